package ingress

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// minShare is what every request is charged at least, for itself and its goroutine.
const minShare = 8 << 10

// memory bounds the bytes of deliveries in flight. Requests for webhooks that we do not know may
// take a quarter of it, so that strangers, who cannot know the ids, never take the place of
// Bitbucket.
type memory struct {
	mu                  sync.Mutex
	max, used           int64
	maxStrange, strange int64
}

func newMemory(bytes int64) *memory { return &memory{max: bytes, maxStrange: bytes / 4} }

// share is what one request takes of the memory.
type share struct {
	m        *memory
	bytes    int64
	stranger bool
}

func (m *memory) begin() *share { return &share{m: m} }

// take reports whether n more bytes may be used.
func (s *share) take(n int64) bool {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.m.used+n > s.m.max || s.stranger && s.m.strange+n > s.m.maxStrange {
		return false
	}
	s.m.used += n
	if s.stranger {
		s.m.strange += n
	}
	s.bytes += n
	return true
}

func (s *share) release() {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.used -= s.bytes
	if s.stranger {
		s.m.strange -= s.bytes
	}
	s.bytes = 0
}

const reasonSlow = "incomplete"

// chunk is how much is read at a time; memory is taken as bytes arrive, not as they are announced.
const chunk = 32 << 10

// readBody reads the body as far as the cap.
func readBody(w http.ResponseWriter, r *http.Request, used *share) ([]byte, *answer) {
	if r.ContentLength > MaxBody {
		discard(r.Body)
		return nil, tooLarge()
	}
	if !used.take(minShare) {
		return nil, full()
	}
	in := http.MaxBytesReader(w, r.Body, MaxBody)
	body := make([]byte, 0, min(max(r.ContentLength, 4<<10), chunk))
	free := int64(minShare)
	for {
		if len(body) == cap(body) {
			body = append(body, 0)[:len(body)]
		}
		n, err := in.Read(body[len(body):min(cap(body), len(body)+chunk)])
		body = body[:len(body)+n]
		if free -= int64(n); free < 0 {
			if !used.take(-free) {
				return nil, full()
			}
			free = 0
		}
		var large *http.MaxBytesError
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return body, nil
		case errors.As(err, &large):
			discard(r.Body)
			return nil, tooLarge()
		default:
			return nil, trouble(reasonSlow, "The body did not arrive completely.", err)
		}
	}
}

// maxDiscard is how much of a body over the cap is read and thrown away, in bytes.
const maxDiscard = 8 << 20

// discard reads what is left of a body that is too large, up to a bound and until the read deadline:
// a sender whose connection is closed while it still writes, or a proxy in front of us, sees a broken
// connection in place of our answer.
func discard(body io.Reader) { _, _ = io.CopyN(io.Discard, body, maxDiscard) }

func full() *answer {
	return trouble("busy", "Too many deliveries arrive at once. Bitbucket sends this one again.", nil)
}
