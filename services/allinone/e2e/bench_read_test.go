package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// readers is how many connections ask at the same time.
const readers = 16

// BenchmarkGetApp asks the product as it ships for one app, over 16 connections, with a session and
// with an API key; and beside it a server that does nothing but answer the same JSON. What it prints
// is the product's share of that server's speed.
func BenchmarkGetApp(b *testing.B) {
	s := &shared{stack: startProcess(b, "info"), planted: map[string]string{}}
	s.owner = newBrowser(b, s.url()).signIn(s.adminToken())
	n := s.tenant(b, "reads")
	repo := s.site().repository(b, "reads", "site")
	n.app("web", repo, "main")
	n.live("web", s.site().commit(b, repo, "main", "<h1>Read</h1>"))
	path := n.path("/apps/web")

	address, err := url.Parse(s.url())
	if err != nil {
		b.Fatal(err)
	}
	callers := map[string]string{"key": "Authorization: Bearer " + n.key("MEMBER").bearer}
	for _, c := range s.owner.http.Jar.Cookies(address) {
		callers["session"] = "Cookie: " + c.Name + "=" + c.Value
	}
	var app object
	if err := json.Unmarshal(ask(b, address.Host, path, callers["key"]), &app); err != nil {
		b.Fatal(err)
	}
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(app)
	}))
	defer plain.Close()

	for _, who := range []string{"session", "key"} {
		b.Run(who, func(b *testing.B) {
			for b.Loop() {
				// By turns, so that what else the machine does falls on both.
				var ours, theirs int64
				for range 4 {
					ours += load(b, address.Host, path, callers[who])
					theirs += load(b, plain.Listener.Addr().String(), path, callers[who])
				}
				b.ReportMetric(float64(ours)/float64(4*loadTime/time.Second), "req/s")
				b.ReportMetric(float64(theirs)/float64(4*loadTime/time.Second), "plain-req/s")
				b.ReportMetric(float64(ours)/float64(theirs), "of-plain")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// loadTime is how long one turn of asking lasts.
const loadTime = time.Second

// load asks over all connections for a while and counts the answers.
func load(b *testing.B, host, path, credential string) int64 {
	b.Helper()
	var count atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(loadTime)
	for range readers {
		wg.Go(func() {
			conn, err := net.Dial("tcp", host)
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			request, answers := question(host, path, credential), bufio.NewReader(conn)
			for time.Now().Before(end) {
				if _, err := conn.Write(request); err != nil {
					b.Error(err)
					return
				}
				if _, err := readAnswer(answers, io.Discard); err != nil {
					b.Error(err)
					return
				}
				count.Add(1)
			}
		})
	}
	wg.Wait()
	return count.Load()
}

func question(host, path, credential string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n\r\n", path, host, credential)
}

// ask is one request on a connection of its own.
func ask(b *testing.B, host, path, credential string) []byte {
	b.Helper()
	conn, err := net.Dial("tcp", host)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(question(host, path, credential)); err != nil {
		b.Fatal(err)
	}
	var body bytes.Buffer
	if _, err := readAnswer(bufio.NewReader(conn), &body); err != nil {
		b.Fatal(err)
	}
	return body.Bytes()
}

// readAnswer reads an answer with as little work as can be: what the client costs is taken from the
// server on a machine that both share.
func readAnswer(r *bufio.Reader, body io.Writer) (int64, error) {
	status, err := r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if !bytes.Contains(status, []byte(" 200 ")) {
		return 0, fmt.Errorf("the answer is %q", status)
	}
	length := int64(-1)
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err != nil {
				return 0, err
			}
		}
	}
	if length < 0 {
		return 0, fmt.Errorf("the answer does not say its length")
	}
	return io.CopyN(body, r, length)
}
