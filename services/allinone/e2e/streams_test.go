package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/testkit"
)

// sse is one server-sent event.
type sse struct{ id, name, data string }

// listener reads a stream of server-sent events.
type listener struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	events []sse
	read   int // how many events until has read
}

// follow opens a stream as a browser does, resuming after lastEvent unless that is empty.
func (n *tenant) follow(a *api, path, lastEvent string) *listener {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	n.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+path, http.NoBody)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	if lastEvent != "" {
		req.Header.Set("Last-Event-ID", lastEvent)
	}
	if a.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+a.bearer)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		n.t.Fatalf("%s answers %d", path, resp.StatusCode)
	}
	l := &listener{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		defer resp.Body.Close()
		l.scan(bufio.NewScanner(resp.Body))
	}()
	return l
}

func (l *listener) scan(lines *bufio.Scanner) {
	lines.Buffer(nil, 1<<20)
	var e sse
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			e.data = value
		case "":
			if e != (sse{}) {
				l.mu.Lock()
				l.events = append(l.events, e)
				l.mu.Unlock()
			}
			e = sse{}
		}
	}
}

// until waits for an event, and returns those up to and with it that it has not returned yet.
func (l *listener) until(t *testing.T, wanted func(sse) bool) []sse {
	t.Helper()
	var found []sse
	testkit.Eventually(t, timeout, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i := l.read; i < len(l.events); i++ {
			if wanted(l.events[i]) {
				found = append([]sse(nil), l.events[l.read:i+1]...)
				l.read = i + 1
				return nil
			}
		}
		return fmt.Errorf("the event did not come; %d others did: %v", len(l.events)-l.read, l.events[l.read:])
	})
	return found
}

// heard is everything that came so far, the beginning of the stream apart.
func (l *listener) heard() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, e := range l.events {
		if e.name != "ready" {
			fmt.Fprintf(&b, "%s %s\n", e.name, e.data)
		}
	}
	return b.String()
}

// close cuts the connection and returns what came before.
func (l *listener) close() []sse {
	l.cancel()
	<-l.done
	return l.events
}

// liveStreams watches a deployment as a live page does.
func liveStreams(t *testing.T, s *shared) {
	site := s.site()
	repo := site.repository(t, "streams", "site")
	n := s.tenant(t, "streams")
	n.app("web", repo, "main")
	events := n.follow(n.api, n.path("/events"), "")
	events.until(t, func(e sse) bool { return e.name == "ready" })

	// The deployment takes a while, so that its log can be followed.
	fault, err := site.Inject(t.Context(), emulator.Fault{Route: "git", Path: "/" + repo.name, Delay: 700 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	n.api.must("POST", n.path("/apps/web/deployments"), object{})
	first := events.until(t, func(e sse) bool { return e.name == "change" && strings.Contains(e.data, `"web/1"`) })
	path := n.path("/apps/web/deployments/1/log?follow=true")
	log := n.follow(n.api, path, "")
	isRecord := func(e sse) bool { return e.name == "record" }
	log.until(t, isRecord)
	before := records(t, log.close())
	resumed := n.follow(n.api, path, strconv.Itoa(len(before)))
	resumed.until(t, func(e sse) bool { return e.name == "end" && strings.Contains(e.data, "COMPLETED") })
	after := records(t, resumed.close())
	if err := site.RemoveFault(t.Context(), fault); err != nil {
		t.Fatal(err)
	}
	all := append(before, after...)
	whole := wholeLog(t, n, "web", 1)
	if len(all) != len(whole) || len(after) == 0 {
		t.Fatalf("followed in two parts the log has %d and %d lines, read at once %d", len(before), len(after), len(whole))
	}
	for i, rec := range all {
		if rec["line"] != whole[i]["line"] || rec["text"] != whole[i]["text"] {
			t.Errorf("line %d: followed %v, read at once %v", i+1, rec, whole[i])
		}
	}

	// What changed while nobody listened is told to who comes back.
	last := first[len(first)-1].id
	events.close()
	n.live("web", site.commit(t, repo, "main", "nobody listens"))
	back := n.follow(n.api, n.path("/events"), last)
	back.until(t, func(e sse) bool { return e.name == "change" && strings.Contains(e.data, `"web/2"`) })
}

// records are the lines of a log among events.
func records(t *testing.T, events []sse) []object {
	t.Helper()
	var list []object
	for _, e := range events {
		if e.name != "record" {
			continue
		}
		rec := object{}
		if err := json.Unmarshal([]byte(e.data), &rec); err != nil {
			t.Fatalf("record %q: %v", e.data, err)
		}
		if fmt.Sprint(rec["line"]) != e.id {
			t.Fatalf("line %v has event id %s", rec["line"], e.id)
		}
		list = append(list, rec)
	}
	return list
}
