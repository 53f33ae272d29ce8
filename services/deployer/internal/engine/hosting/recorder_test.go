package hosting

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// slow is a ResponseWriter with a deadline, whose visitor takes a second for each write.
type slow struct {
	*httptest.ResponseRecorder
	deadlines []time.Time
	late      bool
}

func (s *slow) SetWriteDeadline(t time.Time) error {
	s.deadlines = append(s.deadlines, t)
	return nil
}

func (s *slow) Write(p []byte) (int, error) {
	pause := time.NewTimer(time.Second)
	<-pause.C
	s.late = s.late || len(s.deadlines) == 0 || time.Now().After(s.deadlines[len(s.deadlines)-1])
	return len(p), nil
}

func TestRecorder_movesTheDeadlineWhileTheVisitorReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &slow{ResponseRecorder: httptest.NewRecorder()}
		rec := newRecorder(w)
		const size = 300 * part // five minutes, with a minute's timeout
		n, err := io.Copy(rec, io.LimitReader(zeros{}, size))
		if err != nil || n != size || rec.bytes != size || rec.status != http.StatusOK || rec.broken {
			t.Errorf("sent %d, %v; recorded %d, status %d, broken %t", n, err, rec.bytes, rec.status, rec.broken)
		}
		if w.late || len(w.deadlines) < 40 || len(w.deadlines) > 61 {
			t.Errorf("late: %t, with %d deadlines", w.late, len(w.deadlines))
		}
	})
}

func TestRecorder_knowsWhoseFaultItIs(t *testing.T) {
	rec := newRecorder(httptest.NewRecorder())
	if _, err := io.Copy(rec, iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("abc")))); !errors.Is(err, iotest.ErrTimeout) || !rec.broken {
		t.Errorf("a file that fails: %v, broken %t", err, rec.broken)
	}
	rec = newRecorder(away{httptest.NewRecorder()})
	if _, err := io.Copy(rec, strings.NewReader("abc")); !errors.Is(err, io.ErrClosedPipe) || rec.broken {
		t.Errorf("a visitor who left: %v, broken %t", err, rec.broken)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

type away struct{ http.ResponseWriter }

func (away) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
