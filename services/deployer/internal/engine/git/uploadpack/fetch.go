package uploadpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Wish is one commit, without what came before it.
type Wish struct {
	Want string // the hash of the commit, or of the tag that leads to it
	// Have are commits that are there already, each with its whole tree: what they hold need not come.
	Have []string
	// Shallow are the commits that are there without what came before them.
	Shallow []string
}

// Boundary is how the end of the history that is there moves: commits whose parents are not there now, and
// commits whose parents came.
type Boundary struct{ Shallow, Unshallow []string }

// ErrStalled says that a pack came too slowly.
var ErrStalled = errors.New("uploadpack: the server sends next to nothing")

// leastRate is how many bytes a second a pack must bring, as git itself is told (http.lowSpeedLimit).
const leastRate = 1000

// maxBoundary bounds how many commits a boundary may name.
const maxBoundary = 10_000

// Fetch asks for a commit and has take read the pack, which is thin: it builds on what is there already.
// The pack's reader fails unless the pack came whole. That failure, and not what take made of it, is what
// Fetch returns. Objects are not looked at.
func (s *Session) Fetch(ctx context.Context, w Wish, take func(Boundary, io.Reader) error) error {
	if !s.able.depth {
		return ErrVersion
	}
	command := s.command("fetch")
	for _, line := range []string{"thin-pack", "no-progress", "ofs-delta"} {
		command = appendLine(command, line)
	}
	for _, h := range w.Shallow {
		command = appendLine(command, "shallow "+h)
	}
	command = appendLine(command, "deepen 1")
	command = appendLine(command, "want "+w.Want)
	for _, h := range w.Have {
		command = appendLine(command, "have "+h)
	}
	command = append(appendLine(command, "done"), flushLine...)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := s.c.ask(ctx, s.q, http.MethodPost, askPath, resultType, command, func(sc *scanner) error {
		p := newPulse(sc.r, s.c.stall, func() { cancel(ErrStalled) })
		defer p.stop()
		sc.r = p
		b, err := s.boundary(sc)
		if err != nil {
			return err
		}
		pack := &packReader{sc: sc, done: p.stop}
		err = take(b, pack)
		if pack.err != nil && !errors.Is(pack.err, io.EOF) {
			return pack.err
		}
		return err
	})
	if err != nil && errors.Is(context.Cause(ctx), ErrStalled) {
		return ErrStalled
	}
	return err
}

// boundary reads what comes before the pack.
func (s *Session) boundary(sc *scanner) (b Boundary, err error) {
	section := ""
	for {
		line, k, err := sc.next()
		text := string(line)
		switch {
		case err != nil:
			return b, err
		case k == delimiter && section != "":
			section = ""
		case k != data:
			return b, protocolError("an unexpected end of a section before the pack")
		case section == "" && text == "packfile":
			return b, nil
		case section == "" && text == "shallow-info":
			section = text
		case section == "":
			return b, protocolError("an unknown section: %.100q", text)
		default:
			what, hash, _ := strings.Cut(text, " ")
			if !isHash(hash, s.HashLength()) || len(b.Shallow)+len(b.Unshallow) == maxBoundary {
				return b, protocolError("expected shallow/unshallow, got %.100q", text)
			}
			switch what {
			case "shallow":
				b.Shallow = append(b.Shallow, hash)
			case "unshallow":
				b.Unshallow = append(b.Unshallow, hash)
			default:
				return b, protocolError("expected shallow/unshallow, got %.100q", text)
			}
		}
	}
}

// The bands of an answer that carries a pack.
const (
	bandPack  = 1
	bandSaid  = 2 // progress, for people
	bandError = 3
)

// packReader reads the pack out of an answer.
type packReader struct {
	sc   *scanner
	rest []byte
	said []byte // to people
	err  error
	done func() // the server has sent all
}

// Read implements io.Reader.
func (p *packReader) Read(b []byte) (int, error) {
	for len(p.rest) == 0 && p.err == nil {
		p.rest, p.err = p.part()
	}
	if len(p.rest) == 0 {
		return 0, p.err
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

func (p *packReader) part() ([]byte, error) {
	content, k, err := p.sc.packet()
	switch {
	case err != nil:
		return nil, err
	case k == flush:
		p.done()
		return nil, io.EOF
	case k != data:
		return nil, protocolError("an unexpected end of a section in the pack")
	case len(content) == 0:
		return nil, protocolError("a part of no band in the pack")
	}
	switch content[0] {
	case bandPack:
		return content[1:], nil
	case bandSaid:
		p.said = append(p.said, content[1:min(len(content), 1+maxSaid-len(p.said))]...)
		return nil, nil
	case bandError:
		return nil, &RemoteError{Said: people(content[1:min(len(content), maxSaid)]), Before: people(p.said)}
	}
	return nil, protocolError("bad band #%d", content[0])
}

func people(b []byte) string { return strings.TrimSpace(strings.ToValidUTF8(string(b), "\uFFFD")) }

// pulse watches that something comes.
type pulse struct {
	r     io.Reader
	every time.Duration
	stall func()

	mu    sync.Mutex
	timer *time.Timer // nil once it is stopped
	came  int64       // since it was last looked at
}

func newPulse(r io.Reader, every time.Duration, stall func()) *pulse {
	p := &pulse{r: r, every: every, stall: stall}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(every, p.look)
	return p
}

func (p *pulse) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer == nil {
		return
	}
	if float64(p.came) < leastRate*p.every.Seconds() {
		p.stall()
		return
	}
	p.came = 0
	p.timer.Reset(p.every)
}

func (p *pulse) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}

// Read implements io.Reader.
func (p *pulse) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.mu.Lock()
	p.came += int64(n)
	p.mu.Unlock()
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("uploadpack: %w", err)
	}
	return n, err
}
