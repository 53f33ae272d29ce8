package edge

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

func serve(t *testing.T, logs *testkit.Logs, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	public, err := url.Parse("http://127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	origins, err := NewOrigins(public, nil)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := Wrap(Config{Logger: logs.Logger, Hosts: NewHosts(public, ""), Origins: origins, Now: time.Now}, h)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(wrapped)
	t.Cleanup(s.Close)
	return s
}

func TestRecovery_answersAPanicAsAProblem(t *testing.T) {
	logs := testkit.Logger(t)
	s := serve(t, logs, func(http.ResponseWriter, *http.Request) { panic("planted") })
	resp, err := http.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var p struct {
		Reason  string
		Details map[string]string
	}
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusInternalServerError || p.Reason != "INTERNAL" || p.Details["errorId"] == "" {
		t.Errorf("%d %+v", resp.StatusCode, p)
	}
	testkit.Eventually(t, 5*time.Second, func() error { // the line is written after the answer
		if !logs.Contains("panic: planted") || !logs.Contains(p.Details["errorId"]) || !logs.Contains("edge_test.go") {
			return io.ErrUnexpectedEOF
		}
		return nil
	})
}

func TestRecovery_cutsAnAnswerThatHasBegun(t *testing.T) {
	logs := testkit.Logger(t)
	s := serve(t, logs, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
		panic("planted")
	})
	resp, err := http.Get(s.URL)
	if err != nil {
		return // cut before the header arrived: noticed as well
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the client took half an answer for a whole one")
	}
}

func TestParseProxies_namesTheSetting(t *testing.T) {
	for _, text := range []string{"10.0.0/8", "10.0.0.0/33", "proxy.example.com", ""} {
		want := fmt.Sprintf("--trusted-proxies (DEVPILOT_TRUSTED_PROXIES): %q is no address or network such as 10.0.0.0/8", text)
		if _, err := ParseProxies([]string{"192.0.2.7", text}); err == nil || err.Error() != want {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestProxies_client(t *testing.T) {
	p, err := ParseProxies([]string{"10.0.0.0/8", "192.0.2.7", "fd00::/8"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ remote, forwarded, want string }{
		{"203.0.113.5:1234", "198.51.100.1", "203.0.113.5"}, // not a proxy: what it says is nothing
		{"10.1.2.3:1234", "198.51.100.1", "198.51.100.1"},
		{"10.1.2.3:1234", "6.6.6.6, 198.51.100.1, 192.0.2.7", "198.51.100.1"},
		{"10.1.2.3:1234", "", "10.1.2.3"},
		{"10.1.2.3:1234", "nonsense", "10.1.2.3"},
		{"[fd00::1]:1234", "2001:db8::1", "2001:db8::1"},
		{"[::ffff:10.1.2.3]:1234", "198.51.100.1", "198.51.100.1"},
		{"", "198.51.100.1", ""},
	} {
		r := &http.Request{RemoteAddr: tc.remote, Header: http.Header{}}
		if tc.forwarded != "" {
			r.Header.Set("X-Forwarded-For", tc.forwarded)
		}
		if got := p.client(r); got != tc.want {
			t.Errorf("%+v: %q", tc, got)
		}
	}
}
