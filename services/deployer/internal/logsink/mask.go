package logsink

import (
	"strings"
	"sync"
	"time"

	"devpilot.io/bitbucket/pkg/seal"
)

// Secrets are the texts that no log line may hold. It is safe for concurrent use.
type Secrets struct {
	mu       sync.RWMutex
	until    map[string]time.Time
	longest  int
	replacer *strings.Replacer
}

// NewSecrets knows none.
func NewSecrets() *Secrets { return &Secrets{until: map[string]time.Time{}} }

// shortest is the length below which a text is not masked: it would hide ordinary words.
const shortest = 8

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
	s.longest = 0
	var pairs []string
	for t, until := range s.until {
		if now.After(until) {
			delete(s.until, t)
			continue
		}
		s.longest = max(s.longest, len(t))
		pairs = append(pairs, t, seal.Redacted)
	}
	s.replacer = strings.NewReplacer(pairs...)
}

// mask hides all known secrets in a line.
func (s *Secrets) mask(line string) string {
	s.mu.RLock()
	r := s.replacer
	s.mu.RUnlock()
	if r == nil {
		return line
	}
	return r.Replace(line)
}

// maxLength is the length of the longest secret.
func (s *Secrets) maxLength() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.longest
}
