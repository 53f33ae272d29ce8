package uploadpack

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Ref is a ref of the server's.
type Ref struct {
	Name string // full: refs/heads/main
	Hash string // lower-case hexadecimal, of SHA-1 or SHA-256
	// Peeled is the object that an annotated tag leads to; empty for all others.
	Peeled string
}

// Question is what is asked, and of whom.
type Question struct {
	Remote         string // the repository's URL, without credentials
	User, Password string // empty: without a credential
	// Prefixes are those of the refs that are asked for: refs/heads/. A server that takes no notice
	// of them gets no more refs through.
	Prefixes []string
	MaxBytes int64 // of an answer, a pack included
}

// Errors of List and Fetch, beside *StatusError, *RemoteError, and those of net/http and of the context.
var (
	// ErrVersion says that the server speaks an older version of the protocol, or cannot do what is asked.
	ErrVersion = errors.New("uploadpack: the server does not speak version 2 of git's protocol")
	// ErrTooLong says that an answer is longer than was allowed.
	ErrTooLong = errors.New("uploadpack: the answer is too long")
)

// IsProtocol tells whether an error says that an answer is none of git's.
func IsProtocol(err error) bool { return errors.Is(err, errProtocol) }

// StatusError is an answer with another HTTP status than 200.
type StatusError struct {
	Status int
	Header http.Header
	Said   string // plain text that came with it, for people; empty when there was none
}

// Error implements error.
func (e *StatusError) Error() string {
	if e.Said == "" {
		return fmt.Sprintf("uploadpack: status %d", e.Status)
	}
	return fmt.Sprintf("uploadpack: status %d: %s", e.Status, e.Said)
}

// RemoteError is a refusal in git's protocol.
type RemoteError struct {
	Said   string
	Before string // what else it said to people before that
}

// Error implements error.
func (e *RemoteError) Error() string { return "uploadpack: remote error: " + e.Said }

// Client asks git servers. It is safe for concurrent use.
type Client struct {
	http  *http.Client
	agent string
	stall time.Duration
}

const (
	// keptPerHost is how many connections to one server stay open while nobody asks, where it takes
	// one question at a time on each.
	keptPerHost = 8
	// keptFor is how long a connection stays open while nobody asks.
	keptFor = 2 * time.Minute
	// endTimeout is how long the end of an answer is waited for once all that matters of it was read.
	endTimeout = time.Second
	// maxSaid bounds what a server may say beside a refusal.
	maxSaid = 4 << 10
)

// New makes a client that introduces itself as agent, and waits so long for the beginning of an answer,
// and for each further part of a pack.
func New(agent string, stall time.Duration) *Client {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: stall}).DialContext, TLSHandshakeTimeout: stall, ResponseHeaderTimeout: stall,
		MaxIdleConnsPerHost: keptPerHost, IdleConnTimeout: keptFor, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10,
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{http: &http.Client{Transport: transport, CheckRedirect: stay}, agent: agent, stall: stall}
}

// List calls fn with the refs that are asked for, in the server's order. When it fails, fn may have been
// called with some of them.
func (c *Client) List(ctx context.Context, q Question, fn func(Ref)) error {
	s, err := c.Open(ctx, q)
	if err != nil {
		return err
	}
	return s.List(ctx, fn)
}

// Session is what is asked of one repository, after its server said what it can do.
type Session struct {
	c    *Client
	q    Question
	able abilities
}

// Open asks what the server can do.
func (c *Client) Open(ctx context.Context, q Question) (*Session, error) {
	able, err := c.discover(ctx, q)
	if err != nil {
		return nil, err
	}
	return &Session{c: c, q: q, able: able}, nil
}

// command begins a request.
func (s *Session) command(name string) []byte {
	b := appendLine(nil, "command="+name)
	if s.able.agent {
		b = appendLine(b, "agent="+s.c.agent)
	}
	if s.able.format != "" {
		b = appendLine(b, "object-format="+s.able.format)
	}
	return append(b, delimiterLine...)
}

// HashLength is that of the repository's hashes.
func (s *Session) HashLength() int { return hashLength(cmp.Or(s.able.format, "sha1")) }

// List is Client.List.
func (s *Session) List(ctx context.Context, fn func(Ref)) error {
	command := appendLine(s.command("ls-refs"), "peel")
	for _, p := range s.q.Prefixes {
		command = appendLine(command, "ref-prefix "+p)
	}
	command = append(command, flushLine...)
	return s.c.ask(ctx, s.q, http.MethodPost, askPath, resultType, command, func(sc *scanner) error {
		for {
			line, k, err := sc.next()
			switch {
			case err != nil:
				return err
			case k == flush:
				return nil
			case k != data:
				return protocolError("an unexpected end of a section in the list of refs")
			}
			ref, ok, err := parseRef(string(line), s.HashLength())
			if err != nil {
				return err
			}
			if ok && slices.ContainsFunc(s.q.Prefixes, func(p string) bool { return strings.HasPrefix(ref.Name, p) }) {
				fn(ref)
			}
		}
	})
}

// abilities are what a server says of itself, as far as it matters here: what it does not say it must
// not be sent.
type abilities struct {
	format string // of the repository's hashes
	agent  bool
	depth  bool // history can be cut off
	filter bool // trees and files can be left out
}

// What a server is asked first, what after that, and the types of its answers.
const (
	discovery     = "/info/refs?service=git-upload-pack"
	discoveryType = "application/x-git-upload-pack-advertisement"
	askPath       = "/git-upload-pack"
	resultType    = "application/x-git-upload-pack-result"
)

// SpeaksGit fails unless it is git that answers, in whatever version of its protocol.
func (c *Client) SpeaksGit(ctx context.Context, q Question) error {
	return c.ask(ctx, q, http.MethodGet, discovery, discoveryType, nil, func(*scanner) error { return nil })
}

// discover asks what the server can do.
func (c *Client) discover(ctx context.Context, q Question) (able abilities, err error) {
	err = c.ask(ctx, q, http.MethodGet, discovery, discoveryType, nil, func(s *scanner) error {
		line, k, err := s.next()
		if err == nil && k == data && string(line) == "# service=git-upload-pack" {
			if _, k, err = s.next(); err == nil && k != flush {
				return protocolError("an unexpected line after the service's name")
			}
			if err == nil {
				line, k, err = s.next()
			}
		}
		if err != nil {
			return err
		}
		if k != data || string(line) != "version 2" {
			return ErrVersion
		}
		listed := false
		for {
			line, k, err := s.next()
			switch {
			case err != nil:
				return err
			case k == flush && listed:
				return nil
			case k == flush:
				return protocolError("the server lists no refs")
			case k != data:
				return protocolError("an unexpected end of a section in what the server can do")
			}
			name, value, _ := strings.Cut(string(line), "=")
			switch name {
			case "ls-refs":
				listed = true
			case "fetch":
				can := strings.Fields(value)
				able.depth, able.filter = slices.Contains(can, "shallow"), slices.Contains(can, "filter")
			case "agent":
				able.agent = true
			case "object-format":
				if able.format = value; hashLength(value) == 0 {
					return protocolError("unknown object format %.100q", value)
				}
			}
		}
	})
	return able, err
}

func hashLength(format string) int { return map[string]int{"sha1": 40, "sha256": 64}[format] }

// ask sends one request and has read read its answer.
func (c *Client) ask(ctx context.Context, q Question, method, path, kind string, body []byte, read func(*scanner) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, q.Remote+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("uploadpack: %w", err)
	}
	if q.User != "" || q.Password != "" {
		req.SetBasicAuth(q.User, q.Password)
	}
	req.Header.Set("User-Agent", c.agent)
	req.Header.Set("Git-Protocol", "version=2")
	req.Header.Set("Accept", kind)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-git-upload-pack-request")
		// It changes nothing at the server: where a kept connection turns out to be dead, net/http asks
		// again. Without a value the header is not sent.
		req.Header["Idempotency-Key"] = nil
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("uploadpack: %w", err)
	}
	bounded := &bound{r: res.Body, left: q.MaxBytes}
	defer func() {
		// A connection is kept when its answer was read to its end, which must not be long in coming.
		defer time.AfterFunc(endTimeout, cancel).Stop()
		_, _ = io.CopyN(io.Discard, bounded, maxSaid)
		_ = res.Body.Close()
	}()
	if res.StatusCode != http.StatusOK {
		return &StatusError{Status: res.StatusCode, Header: res.Header, Said: said(res)}
	}
	if got, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";"); strings.TrimSpace(got) != kind {
		return protocolError("content of the type %q", res.Header.Get("Content-Type"))
	}
	return read(&scanner{r: bounded})
}

// said is the text that came with a refusal. git shows nothing but plain text to people.
func said(res *http.Response) string {
	if kind, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";"); strings.TrimSpace(kind) != "text/plain" {
		return ""
	}
	b, _ := io.ReadAll(io.LimitReader(res.Body, maxSaid)) // what came of it is better than nothing
	return strings.TrimSpace(strings.ToValidUTF8(string(b), "\uFFFD"))
}

// bound lets so much through, and is an error from there on.
type bound struct {
	r    io.Reader
	left int64
}

// Read implements io.Reader.
func (b *bound) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, ErrTooLong
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// parseRef reads "<hash> <name>" with attributes. ok is false for a ref that leads nowhere yet.
func parseRef(line string, length int) (r Ref, ok bool, err error) {
	hash, rest, found := strings.Cut(line, " ")
	name, attributes, _ := strings.Cut(rest, " ")
	if !found || name == "" {
		return Ref{}, false, protocolError("invalid ls-refs response: %.100q", line)
	}
	if hash == "unborn" {
		return Ref{}, false, nil
	}
	r = Ref{Name: name, Hash: hash}
	for a := range strings.SplitSeq(attributes, " ") {
		if peeled, ok := strings.CutPrefix(a, "peeled:"); ok {
			r.Peeled = peeled
		}
	}
	if !isHash(hash, length) || r.Peeled != "" && !isHash(r.Peeled, length) {
		return Ref{}, false, protocolError("invalid ls-refs response: %.100q", line)
	}
	return r, true, nil
}

func isHash(s string, length int) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == length && strings.ToLower(s) == s
}
