package ingress

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/seal"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
)

// The limits are per second: in a bubble no second passes, however long the machine takes.
func TestLeader_isAskedBeforeA404(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		delete(w.cache, id) // made a moment ago, by another replica
		h := w.handler(t)
		if got := send(h, body("main")); got.status != 202 || w.reads != 1 {
			t.Errorf("answered %d after %d reads", got.status, w.reads)
		}
		// A flood of made-up paths costs a bounded number of reads.
		for i := range 500 {
			if got := send(h, body("main"), path(fmt.Sprintf("%s%026d", PathPrefix, i))); got.status != 404 {
				t.Fatalf("answered %d", got.status)
			}
		}
		if w.reads > 40 {
			t.Errorf("%d reads from the leader", w.reads)
		}
		if got := send(h, "x", path("/elsewhere")); got.status != 404 {
			t.Errorf("another path: %d", got.status)
		}
	})
}

func TestLeader_isAskedBeforeA401(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.stale[id] = "the one before"
		h := w.handler(t)
		if got := send(h, body("main")); got.status != 202 || w.reads != 1 {
			t.Fatalf("rotated a moment ago: answered %d after %d reads", got.status, w.reads)
		}
		if v := w.stored[0].GetSecretVersion(); v != 2 {
			t.Errorf("secret version %d", v)
		}
		w.stale[id] = secret
		for range 500 {
			if got := send(h, body("main"), header(hook.HeaderSignature, hook.Sign([]byte("x"), seal.NewSecret("y")))); got.status != 401 {
				t.Fatalf("answered %d", got.status)
			}
		}
		if w.reads > 5 {
			t.Errorf("%d reads from the leader", w.reads)
		}
	})
}

func TestMemory_strangersDoNotTakeBitbucketsPlace(t *testing.T) {
	w := newWorld()
	h := w.handler(t, func(c *Config) { c.Memory = 1 << 20 })
	// Strangers who hold their connections open get a quarter.
	var held []*share
	for {
		s := h.memory.begin()
		s.stranger = true
		if !s.take(minShare) {
			break
		}
		held = append(held, s)
	}
	if n := len(held); n != (1<<18)/minShare {
		t.Errorf("%d strangers at once", n)
	}
	if got := send(h, body("main"), path(PathPrefix+strings.Repeat("z", 26))); got.status != 503 {
		t.Errorf("one stranger more: %d", got.status)
	}
	if got := send(h, body("main")); got.status != 202 {
		t.Errorf("a delivery: %d", got.status)
	}
	for _, s := range held {
		s.release()
	}
	if h.memory.used != 0 || h.memory.strange != 0 {
		t.Errorf("%d and %d bytes are never given back", h.memory.used, h.memory.strange)
	}
	// When all of it is in use deliveries are asked to come again.
	s := h.memory.begin()
	if !s.take(1 << 20) {
		t.Fatal("cannot take all")
	}
	if got := send(h, body("main")); got.status != 503 || !strings.Contains(got.message, "at once") {
		t.Errorf("answered %d %q", got.status, got.message)
	}
	s.release()
	if got := send(h, body("main")); got.status != 202 {
		t.Errorf("after that: %d", got.status)
	}
}

func TestSlowBody_isCut(t *testing.T) {
	w := newWorld()
	server := httptest.NewServer(w.handler(t, func(c *Config) { c.ReadTimeout = 200 * time.Millisecond }))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{", PathPrefix, id)
	if err := conn.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	raw, err := io.ReadAll(conn)
	if err != nil || !bytes.HasPrefix(raw, []byte("HTTP/1.1 503")) {
		t.Errorf("answered %q, %v", raw, err)
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("held for %v", took)
	}
}

// TestHold_outlivesTheReadTimeout: the time limit of the body must not end the wait for the store.
func TestHold_outlivesTheReadTimeout(t *testing.T) {
	w := newWorld()
	slow := &slowInbox{Inbox: w}
	server := httptest.NewServer(w.handler(t, func(c *Config) { c.ReadTimeout, c.Inbox = 200*time.Millisecond, slow }))
	defer server.Close()
	req, err := http.NewRequest(http.MethodPost, server.URL+PathPrefix+id, strings.NewReader(body("main")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(hook.HeaderEvent, hook.EventPush)
	req.Header.Set(hook.HeaderSignature, hook.Sign([]byte(body("main")), seal.NewSecret(secret)))
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("answered %d", resp.StatusCode)
	}
}

type slowInbox struct{ Inbox }

func (s *slowInbox) Store(d *storev1.InboxDelivery, timeout time.Duration) error {
	<-time.After(400 * time.Millisecond)
	return s.Inbox.Store(d, timeout)
}

// FuzzServeHTTP sends anything: the answer is always one of the documented ones, with a JSON body a
// person can read, and nothing is stored that was not signed.
func FuzzServeHTTP(f *testing.F) {
	f.Add(id, body("main"), "repo:push", "1", true)
	f.Add(id, `{"push":{"changes":[{"old":null,"new":null}]}}`, "repo:push", "", true)
	f.Add(id, `{"push":{"changes":null},"repository":{"uuid":7}}`, "repo:push", "x", true)
	f.Add(id, `{"push":{"changes":[]}}`, "diagnostics:ping", "-1", false)
	f.Add("../../etc", "\x00\xff", "\x00", "99999999999999999999", true)
	f.Fuzz(func(t *testing.T, webhook, content, event, attempt string, signed bool) {
		w := newWorld()
		got := send(w.handler(t), content, func(r *http.Request) {
			r.URL.Path = PathPrefix + webhook
			r.Header = http.Header{hook.HeaderEvent: {event}, hook.HeaderAttempt: {attempt}, hook.HeaderRequest: {event + content}}
			if signed {
				r.Header.Set(hook.HeaderSignature, hook.Sign([]byte(content), seal.NewSecret(secret)))
			}
		})
		switch got.status {
		case 200, 202, 400:
			if !signed || webhook != id {
				t.Errorf("answered %d to a request that is not signed, or not for us", got.status)
			}
		case 401:
			if signed && content != "" {
				t.Error("a right signature was refused")
			}
		case 404, 413:
		default:
			t.Errorf("answered %d: %s", got.status, got.raw)
		}
		if got.message == "" || len(got.raw) > 8<<10 {
			t.Errorf("answered %q", got.raw)
		}
		if n := len(w.stored); (n == 1) != (got.status < 300) {
			t.Errorf("answered %d, stored %d", got.status, n)
		}
	})
}
