package live

import (
	"net/http"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
)

func TestStreams_limitPerCaller(t *testing.T) {
	s := NewStreams(time.Second)
	var leave []func()
	for range perCaller {
		l, err := s.Enter("jane")
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	if _, err := s.Enter("jane"); !apierr.Has(err, apierr.ReasonRateLimited) || apierr.From(err).Kind().HTTPStatus() != http.StatusTooManyRequests {
		t.Errorf("one too many: %v", err)
	}
	other, err := s.Enter("john")
	if err != nil {
		t.Fatal(err)
	}
	other()
	for _, l := range leave {
		l()
	}
	if len(s.open) != 0 {
		t.Errorf("%d callers remembered", len(s.open))
	}
	s.Drain()
	s.Drain()
	select {
	case <-s.Stopped():
	default:
		t.Error("not stopped")
	}
}

func TestEvent(t *testing.T) {
	if got := string(Event("7", "change", []byte(`{}`))); got != "id: 7\nevent: change\ndata: {}\n\n" {
		t.Errorf("%q", got)
	}
	if got := string(Event("", "", []byte(`x`))); got != "data: x\n\n" {
		t.Errorf("%q", got)
	}
}
