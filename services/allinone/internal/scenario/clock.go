package scenario

import (
	"bytes"
	"net/http"
	"net/url"
	"regexp"
	"sort"
	"time"
)

// Clock shows the times of the story in what the product answers. The services themselves keep the true time, by which
// leases, sessions and signatures are; what is shown is mapped on its way out, and times in queries on their way in.
type Clock struct{ record *Record }

// NewClock makes the clock of a record.
func NewClock(record *Record) *Clock { return &Clock{record} }

// stamp is a time as the API writes it.
var stamp = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)

// prologue is how long the product may take from its start to the first beat. What it stores meanwhile is of the first
// beat; what is older, such as the date of a commit, is no time of ours.
const prologue = time.Hour

// Story is what a true time is in the story: the moment of its beat, and after the last beat as much later.
func (c *Clock) Story(at time.Time) time.Time {
	c.record.mu.RLock()
	defer c.record.mu.RUnlock()
	beats := c.record.Beats
	i := sort.Search(len(beats), func(i int) bool { return beats[i].Real.After(at) }) - 1
	switch {
	case len(beats) == 0 || i < 0 && beats[0].Real.Sub(at) > prologue:
		return at
	case i < 0:
		return beats[0].Story
	case i == len(beats)-1 && c.record.Done:
		return beats[i].Story.Add(at.Sub(beats[i].Real))
	default:
		return beats[i].Story
	}
}

// real is the first true time that is not before a time of the story.
func (c *Clock) real(story time.Time) time.Time {
	c.record.mu.RLock()
	defer c.record.mu.RUnlock()
	beats := c.record.Beats
	i := sort.Search(len(beats), func(i int) bool { return !beats[i].Story.Before(story) })
	switch {
	case len(beats) == 0:
		return story
	case i == len(beats):
		return beats[i-1].Real.Add(story.Sub(beats[i-1].Story))
	default:
		return beats[i].Real
	}
}

// Handler shows what next answers with the times of the story. Answers are not compressed.
func (c *Clock) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.Clone(r.Context())
		r.Header.Del("Accept-Encoding")
		r.URL.RawQuery = c.query(r.URL.Query(), r.URL.RawQuery)
		shown := &shower{ResponseWriter: w, clock: c}
		defer shown.end()
		next.ServeHTTP(shown, r)
	})
}

func (c *Clock) query(q url.Values, raw string) string {
	changed := false
	for _, values := range q {
		for i, v := range values {
			if at, err := time.Parse(time.RFC3339Nano, v); err == nil {
				values[i], changed = c.real(at).UTC().Format(time.RFC3339Nano), true
			}
		}
	}
	if !changed {
		return raw
	}
	return q.Encode()
}

func (c *Clock) shown(text []byte) []byte {
	return stamp.ReplaceAllFunc(text, func(b []byte) []byte {
		at, err := time.Parse(time.RFC3339Nano, string(b))
		if err != nil {
			return b
		}
		return []byte(c.Story(at).UTC().Format(time.RFC3339Nano))
	})
}

// longest is how much of an answer is kept back, at most, because a time may go on in what follows.
const longest = len("2006-01-02T15:04:05.999999999Z")

// shower maps times on their way out.
type shower struct {
	http.ResponseWriter
	clock *Clock
	began bool
	plain bool // no text with times
	rest  []byte
}

// WriteHeader implements http.ResponseWriter.
func (s *shower) WriteHeader(status int) {
	if status >= 200 && !s.began {
		s.began = true
		h := s.Header()
		kind := h.Get("Content-Type")
		s.plain = !textual.MatchString(kind)
		if !s.plain {
			h.Del("Content-Length")
		}
		h.Set("Date", s.clock.Story(time.Now()).UTC().Format(http.TimeFormat))
	}
	s.ResponseWriter.WriteHeader(status)
}

// textual are the types of answers that tell of times.
var textual = regexp.MustCompile(`^(application/(problem\+)?json|application/x-ndjson|text/event-stream|text/csv|text/plain)\b`)

// Write implements http.ResponseWriter.
func (s *shower) Write(p []byte) (int, error) {
	if !s.began {
		s.WriteHeader(http.StatusOK)
	}
	if s.plain {
		return s.ResponseWriter.Write(p) //nolint:wrapcheck // part of http.ResponseWriter
	}
	text := append(s.rest, p...)
	// A time never goes over the end of a line; in the last line one may still be growing.
	cut := bytes.LastIndexByte(text, '\n') + 1
	cut = max(cut, len(text)-longest)
	for cut < len(text) && cut > 0 && inStamp(text[cut-1]) && inStamp(text[cut]) {
		cut--
	}
	s.rest = append([]byte(nil), text[cut:]...)
	if _, err := s.ResponseWriter.Write(s.clock.shown(text[:cut])); err != nil {
		return 0, err //nolint:wrapcheck // part of http.ResponseWriter
	}
	return len(p), nil
}

func inStamp(b byte) bool {
	return b >= '0' && b <= '9' || bytes.IndexByte([]byte("-:.TZ"), b) >= 0
}

// Flush implements http.Flusher: what a stream says ends with a line.
func (s *shower) Flush() { _ = s.FlushError() }

// FlushError is Flush for http.ResponseController.
func (s *shower) FlushError() error {
	return http.NewResponseController(s.ResponseWriter).Flush()
}

// Unwrap lets http.ResponseController reach what it needs.
func (s *shower) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// end sends what was kept back.
func (s *shower) end() {
	if len(s.rest) > 0 {
		_, _ = s.ResponseWriter.Write(s.clock.shown(s.rest)) // a client that went away is no error of ours
		s.rest = nil
	}
}
