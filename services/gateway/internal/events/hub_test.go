package events

import (
	"context"
	"errors"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

func TestHub_dropsWhoDoesNotKeepUp(t *testing.T) {
	h := NewHub(nil, testkit.Logger(t).Logger)
	slow, at := h.Subscribe("acme")
	quick, _ := h.Subscribe("acme")
	other, _ := h.Subscribe("other")
	if at != 0 {
		t.Errorf("begins at %d", at)
	}
	for i := range uint64(buffer + 1) {
		h.dispatch(Change{Sequence: i + 1, workspace: "acme", Kind: "app"})
		if c := <-quick.C; c.Sequence != i+1 {
			t.Fatalf("change %d came as %d", i+1, c.Sequence)
		}
	}
	n := 0
	for range slow.C { // closed after what it had
		n++
	}
	if n != buffer {
		t.Errorf("the slow one got %d of %d", n, buffer)
	}
	slow.Close() // again: harmless
	quick.Close()
	if len(other.C) != 0 {
		t.Error("another workspace's subscriber got something")
	}
	other.Close()
	if len(h.subs) != 0 {
		t.Errorf("%d workspaces remembered", len(h.subs))
	}
}

func TestHub_startsAtTheNewestAndNoticesAnotherStream(t *testing.T) {
	h := NewHub(nil, testkit.Logger(t).Logger)
	if h.Ready() == nil {
		t.Error("ready before it knows its place")
	}
	if from := h.place(nil, 41); from != 42 {
		t.Errorf("begins at %d", from)
	}
	s, at := h.Subscribe("acme")
	if at != 41 {
		t.Errorf("subscribed at %d", at)
	}
	if from := h.place(nil, 50); from != 42 { // after a break: where it was
		t.Errorf("goes on at %d", from)
	}
	if from := h.place(nil, 3); from != 4 { // made anew
		t.Errorf("goes on at %d", from)
	}
	if _, ok := <-s.C; ok {
		t.Error("a subscriber of the old stream goes on")
	}
}

func TestHub_betweenRefusesWhatItCannotTell(t *testing.T) {
	h := NewHub(nil, testkit.Logger(t).Logger)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := h.between(ctx, "acme", 10, 5); !errors.Is(err, errTooFar) {
		t.Errorf("a place ahead: %v", err)
	}
	if list, err := h.between(ctx, "acme", 5, 5); err != nil || len(list) != 0 {
		t.Errorf("up to date: %v %v", list, err)
	}
}

func TestDecode_trustsTheSubject(t *testing.T) {
	c := decode("devpilot.event.v1.deployer.acme.app", []byte("not a message \xff"), 7, time.Unix(0, 0))
	if c.workspace != "acme" || c.Service != "deployer" || c.Kind != "app" || c.Sequence != 7 {
		t.Errorf("%+v", c)
	}
	if c := decode("something.else", nil, 8, time.Unix(0, 0)); c.workspace != "" {
		t.Errorf("%+v", c)
	}
}
