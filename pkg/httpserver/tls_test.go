package httpserver

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/pkg/transport"
)

// What bounds connections knows them within those that encrypt: a request that is served stays while halves push each
// other out.
func TestServer_https(t *testing.T) {
	t.Parallel()
	authority, logger := testkit.Authority(t), testkit.Logger(t).Logger
	files := testkit.Certificate(t, t.TempDir(), "gateway", time.Hour, authority)
	c, err := transport.Open(transport.Config{Files: transport.Files{Certificate: files.Certificate, Key: files.Key}, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	begun, end := make(chan struct{}), make(chan struct{})
	s := serve(t, Config{Connections: 16, TLS: c.HTTP(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" {
			close(begun)
			<-end
		}
		_, _ = io.WriteString(w, r.Proto)
	})})
	roots, _, err := transport.Pool(authority.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "gateway.devpilot.internal"}, ForceAttemptHTTP2: true,
	}}
	get := func(path string) (string, error) {
		resp, err := client.Get("https://" + s.address + path)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
	if body, err := get("/"); err != nil || body != "HTTP/1.1" {
		t.Fatalf("%q, %v", body, err)
	}
	testkit.Eventually(t, time.Minute, func() error { // the client may have its answer before
		s.server.bound.mu.Lock()
		defer s.server.bound.mu.Unlock()
		if waiting := s.server.bound.waiting.Len(); waiting != 1 {
			return fmt.Errorf("%d connections wait, not the one that was answered", waiting)
		}
		return nil
	})
	type answer struct {
		body string
		err  error
	}
	long := make(chan answer, 1)
	go func() {
		body, err := get("/long")
		long <- answer{body, err}
	}()
	<-begun
	first := s.send("\x16\x03\x01") // the beginning of a handshake
	for range 16 {
		s.send("\x16\x03\x01")
	}
	cut(t, first)
	close(end)
	if a := <-long; a.err != nil || a.body != "HTTP/1.1" {
		t.Errorf("the request that was served: %+v", a)
	}
	if plain, err := http.Get("http://" + s.address); err == nil {
		defer plain.Body.Close()
		if body, _ := io.ReadAll(plain.Body); plain.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "HTTPS") {
			t.Errorf("plain HTTP: %d %s", plain.StatusCode, body)
		}
	}
}
