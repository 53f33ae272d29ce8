package httpserver

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

type site struct {
	t       *testing.T
	server  *Server
	address string
}

func serve(t *testing.T, cfg Config) *site {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Logger = testkit.Logger(t).Logger
	s := &site{t: t, server: New(cfg), address: l.Addr().String()}
	ended := make(chan error, 1)
	go func() { ended <- s.server.Serve(l) }()
	t.Cleanup(func() {
		if err := s.server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s
}

// send opens a connection and sends this much of a request.
func (s *site) send(part string) net.Conn {
	s.t.Helper()
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, part); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// cut waits until the other side has closed the connection.
func cut(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Fatalf("still open: %v", err)
	}
}

func (s *site) get(c *http.Client) error {
	resp, err := c.Get("http://" + s.address + "/")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "hello" {
		return fmt.Errorf("%q, %w", body, err)
	}
	return nil
}

func (s *site) open() int {
	s.server.bound.mu.Lock()
	defer s.server.bound.mu.Unlock()
	return s.server.bound.all
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return
	}
	_, _ = io.WriteString(w, "hello")
})

// Whoever sends halves of requests, of whatever kind, pushes out nobody but such.
func TestServer_halvesPushOutHalves(t *testing.T) {
	t.Parallel()
	halves := map[string]string{
		"nothing":       "",
		"half a header": "POST / HTTP/1.1\r\nHost: x\r\nA: ",
		"half a body":   "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
		"half a chunk":  "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf",
		"kept alive":    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
	}
	for name, half := range halves {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			working := make(chan struct{})
			s := serve(t, Config{Connections: 40, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/work" {
					<-working
				}
				hello(w, r)
			})})
			// Some whole requests that take long: they are never cut.
			var busy sync.WaitGroup
			for range 10 {
				c := s.send("GET /work HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
				busy.Go(func() {
					answer, err := io.ReadAll(c)
					if err != nil || !strings.HasSuffix(string(answer), "hello") {
						t.Errorf("a whole request was answered %q, %v", answer, err)
					}
				})
			}
			testkit.Eventually(t, time.Minute, func() error {
				s.server.bound.mu.Lock()
				defer s.server.bound.mu.Unlock()
				if n := s.server.bound.all - s.server.bound.waiting.Len(); n != 10 {
					return fmt.Errorf("%d of 10 are served", n)
				}
				return nil
			})
			var held []net.Conn
			for range 300 {
				held = append(held, s.send(half))
			}
			if n := s.open(); n > 20 {
				t.Errorf("%d connections of one address; 20 may be", n)
			}
			for range 20 {
				if err := s.get(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}); err != nil {
					t.Fatalf("beside the halves: %v", err)
				}
			}
			for _, c := range held[:250] {
				cut(t, c)
			}
			close(working)
			busy.Wait()
		})
	}
}

// A body and an answer each have their time; a long answer that is taken has all the time it needs.
func TestServer_deadlines(t *testing.T) {
	t.Parallel()
	s := serve(t, Config{Connections: 40, BodyTimeout: 50 * time.Millisecond, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			w.WriteHeader(http.StatusRequestTimeout)
			return
		}
		for i := range 3 { // longer than the body's time
			select {
			case <-r.Context().Done():
				return
			case <-time.After(60 * time.Millisecond):
			}
			_, _ = fmt.Fprintf(w, "%d", i)
			_ = http.NewResponseController(w).Flush()
		}
	})})
	c := s.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusRequestTimeout {
		t.Fatalf("half a body: %v, %v", resp, err)
	}
	cut(t, c)
	for _, whole := range []string{
		"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nwhole", "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
	} {
		answer, err := io.ReadAll(s.send(whole))
		if err != nil || !strings.HasSuffix(string(answer), "0\r\n\r\n") {
			t.Fatalf("a long answer: %q, %v", answer, err)
		}
	}
}

// Connections that end are counted no more, however they end.
func TestServer_countsEnds(t *testing.T) {
	t.Parallel()
	s := serve(t, Config{Connections: 40, Handler: hello})
	for range 3 {
		for range 15 {
			c := s.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
				t.Fatal(err)
			}
			_ = c.Close()
		}
		_ = s.send("GET / HT").Close()
	}
	testkit.Eventually(t, time.Minute, func() error {
		s.server.bound.mu.Lock()
		defer s.server.bound.mu.Unlock()
		if b := s.server.bound; b.all != 0 || b.waiting.Len() != 0 || len(b.addresses) != 0 {
			return fmt.Errorf("%d connections, %d waiting, %d addresses", b.all, b.waiting.Len(), len(b.addresses))
		}
		return nil
	})
	if err := s.server.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// Files of any size go out whole.
func TestServer_files(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	want := strings.Repeat("0123456789abcdef", 3<<16+1)
	if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, Config{Connections: 40, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) })})
	for _, rng := range []string{"", "bytes=5-", "bytes=1048570-2097160"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.address+"/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		expect := want
		switch rng {
		case "bytes=5-":
			expect = want[5:]
		case "bytes=1048570-2097160":
			expect = want[1048570:2097161]
		}
		if rng != "" {
			req.Header.Set("Range", rng)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || string(got) != expect {
			t.Fatalf("%q: %d bytes of %d, %v", rng, len(got), len(expect), err)
		}
	}
}
