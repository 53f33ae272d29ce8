package deploylog

import (
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"time"

	"devpilot.io/bitbucket/pkg/seal"
)

// Secrets are the texts that no line of any log may hold, each for as long as it lives: tokens of
// this process. It is safe for concurrent use. What a single deployment hides is [Writer.Hide]'s.
type Secrets struct {
	mu    sync.RWMutex
	until map[string]time.Time
	mask  *mask
}

// NewSecrets knows none.
func NewSecrets() *Secrets { return &Secrets{until: map[string]time.Time{}, mask: newMask(nil)} }

// shortest is the length below which a text is not masked: it would hide ordinary words. Nothing
// that this process hides is that short. People choose the values of their variables: for those it
// is shortestChosen.
const (
	shortest       = 8
	shortestChosen = 4
)

// Hide masks the texts for so long; a token's forms for as long as it lives.
func (s *Secrets) Hide(life time.Duration, texts ...string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := false
	for _, t := range texts {
		if len(t) < shortest {
			continue
		}
		if _, ok := s.until[t]; !ok {
			changed = true
		}
		s.until[t] = now.Add(life)
	}
	if !changed {
		return
	}
	var forms []form
	for t, until := range s.until {
		if now.After(until) {
			delete(s.until, t)
			continue
		}
		forms = append(forms, form{text: t})
	}
	s.mask = newMask(forms)
}

func (s *Secrets) current() *mask {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mask
}

// form is one way to write a secret, or a piece of one that is long.
type form struct {
	text string
	// alphabet is what an encoding is made of: a match extends over all of it on both sides,
	// where other characters of the secret and its surroundings are. Nil for plain text.
	alphabet *alphabet
}

type alphabet [256]bool

func newAlphabet(characters string) *alphabet {
	var a alphabet
	for i := range len(characters) {
		a[characters[i]] = true
	}
	return &a
}

const letters, digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "0123456789"

var (
	base64Letters = newAlphabet(letters + digits + "+/-_=")
	hexLetters    = newAlphabet(digits + "abcdefABCDEF")
)

// mask finds secrets in a line. It is immutable.
type mask struct {
	index   map[uint32][]form // by the first four bytes
	longest int
}

func newMask(forms []form) *mask {
	m := &mask{index: make(map[uint32][]form, len(forms))}
	for _, f := range forms {
		key := binary.LittleEndian.Uint32([]byte(f.text)) // no form is shorter
		if !slices.Contains(m.index[key], f) {
			m.index[key] = append(m.index[key], f)
			m.longest = max(m.longest, len(f.text))
		}
	}
	return m
}

// span is a part of a line that is hidden.
type span struct {
	from, to int
	alphabet *alphabet
}

// find appends where secrets are.
func (m *mask) find(line string, spans []span) []span {
	if len(m.index) == 0 {
		return spans
	}
	encoded := 0 // up to here an encoding is hidden already
	for i := 0; i+4 <= len(line); i++ {
		key := uint32(line[i]) | uint32(line[i+1])<<8 | uint32(line[i+2])<<16 | uint32(line[i+3])<<24
		for _, f := range m.index[key] {
			if f.alphabet != nil && i < encoded || !strings.HasPrefix(line[i:], f.text) {
				continue
			}
			s := span{from: i, to: i + len(f.text), alphabet: f.alphabet}
			if f.alphabet != nil {
				for s.from > 0 && f.alphabet[line[s.from-1]] {
					s.from--
				}
				for s.to < len(line) && f.alphabet[line[s.to]] {
					s.to++
				}
				encoded = s.to
			}
			spans = append(spans, s)
		}
	}
	return spans
}

// hide replaces the spans of a line, and cuts it behind most bytes of the original. A span that
// begins before the cut is hidden as a whole.
func hide(line string, spans []span, most int) (text string, cut bool) {
	slices.SortFunc(spans, func(a, b span) int { return a.from - b.from })
	var b strings.Builder
	at := 0
	for i := 0; i < len(spans) && spans[i].from < most; i++ {
		s := spans[i]
		for i+1 < len(spans) && spans[i+1].from <= s.to { // one that touches or overlaps it
			i++
			s.to = max(s.to, spans[i].to)
		}
		b.WriteString(line[at:s.from])
		b.WriteString(seal.Redacted)
		at = s.to
	}
	end := max(at, min(most, len(line)))
	b.WriteString(line[at:end])
	return b.String(), end < len(line)
}

// wrap follows a secret whose encoding was broken into lines (base64 does after 76 characters, PEM
// after 64, xxd after 60): the last of them may be too short to be known by itself.
type wrap struct{ in *alphabet }

const shortestWrapped = 60 // characters of a line of a secret that a program may break

// line adds a span over all of a line that goes on with what the line before ended with, and
// remembers whether this line ends so.
func (w *wrap) line(line string, spans []span) []span {
	if w.in != nil && line != "" {
		whole := true
		for i := range len(line) {
			whole = whole && w.in[line[i]]
		}
		if whole {
			spans = append(spans, span{from: 0, to: len(line), alphabet: w.in})
		}
	}
	w.in = nil
	for _, s := range spans {
		if s.alphabet != nil && s.to == len(line) && len(line) >= shortestWrapped {
			w.in = s.alphabet
		}
	}
	return spans
}

// passage is a secret of several lines, known where they come one after the other.
type passage []string

func passageOf(secret string) passage {
	var p passage
	for line := range strings.SplitSeq(strings.Trim(secret, "\r\n"), "\n") {
		p = append(p, strings.TrimSpace(line))
	}
	return p
}

// after returns where the passage goes on after a line; at is where it was expected to before. in tells
// that the line is the one that was expected.
func (p passage) after(line string, at int) (next int, in bool) {
	if at > 0 && at < len(p) && p[at] == line {
		return at + 1, true
	}
	for i, own := range p {
		if own == line && (i == 0 || telling(line)) {
			return i + 1, false
		}
	}
	return 0, false
}

// before is what is known of a stream from the lines before.
type before struct {
	wrap wrap
	at   []int // in each passage
}

// line adds the spans that are known from the lines before.
func (c *before) line(line string, passages []passage, spans []span) []span {
	spans = c.wrap.line(line, spans)
	text := strings.TrimSpace(line)
	for len(c.at) < len(passages) {
		c.at = append(c.at, 0)
	}
	for i, p := range passages {
		var in bool
		if c.at[i], in = p.after(text, c.at[i]); in && len(text) >= shortestChosen {
			from := strings.Index(line, text)
			spans = append(spans, span{from: from, to: from + len(text)})
		}
	}
	return spans
}
