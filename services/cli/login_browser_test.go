package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

const deviceCode = "dpl_BCDFGHJK_secret"

// approver is a Devpilot that hands out login requests, and answers the questions about them one after another.
type approver struct {
	*httptest.Server
	answers []func(w http.ResponseWriter)
	asked   atomic.Int32
	name    atomic.Value // of the client
	page    string
}

func newApprover(t *testing.T, answers ...func(w http.ResponseWriter)) *approver {
	t.Helper()
	a := &approver{answers: answers}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/loginRequests", func(w http.ResponseWriter, r *http.Request) {
		var in struct{ ClientName string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Header.Get("Authorization") != "" {
			t.Errorf("asked with %q: %v", r.Header.Get("Authorization"), err)
		}
		a.name.Store(in.ClientName)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"deviceCode": deviceCode, "userCode": "BCDF-GHJK", "verificationUrl": a.page, "intervalSeconds": 0, "expireTime": "2030-01-01T00:00:00Z",
		})
	})
	mux.HandleFunc("POST /v1/loginRequests:redeem", func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(raw), deviceCode) || r.URL.RawQuery != "" {
			t.Errorf("%s asks with %s", r.URL, raw)
		}
		n := int(a.asked.Add(1)) - 1
		a.answers[min(n, len(a.answers)-1)](w)
	})
	a.Server = httptest.NewServer(mux)
	t.Cleanup(a.Close)
	a.page = a.URL + "/login?code=BCDF-GHJK"
	return a
}

func says(status int, body string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// hangsUp answers nothing, as a Devpilot that is stopped in the middle.
func hangsUp(http.ResponseWriter) { panic(http.ErrAbortHandler) }

var (
	waits    = says(200, `{"state":"PENDING"}`)
	approves = says(200, `{"state":"APPROVED","secret":"dp_good","workspace":"shop","apiKey":{"id":"1","label":"devpilot on laptop","scope":"DEPLOY"}}`)
	denies   = says(200, `{"state":"DENIED"}`)
	isGone   = says(404, `{"status":404,"detail":"There is no such login request.","reason":"LOGIN_REQUEST_NOT_FOUND"}`)
	tooSoon  = says(429, `{"status":429,"detail":"Too soon.","reason":"RATE_LIMITED","retryAfterSeconds":1}`)
	isDown   = says(503, `{"status":503,"detail":"The store is away.","reason":"STORAGE_UNAVAILABLE"}`)
)

// terminal runs a command as somebody at a terminal does.
func (m *machine) terminal(ctx context.Context, words ...string) (code int, out, said string) {
	var stdout, stderr bytes.Buffer
	code = Run(ctx, Process{
		Args: words, Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, Version: "test",
		Getenv: func(name string) string { return m.env[name] }, Directory: func() (string, error) { return m.dir, nil },
		Browser:  browser(func(address string) { m.open = append(m.open, address) }),
		Hostname: func() (string, error) { return "laptop\x1b[2J" + strings.Repeat("x", 100), nil },
		Secret:   func() (string, error) { return "dp_good", nil },
	})
	return code, stdout.String(), stderr.String()
}

func TestLoginInBrowser_keepsTheKeyThatAPersonApproved(t *testing.T) {
	t.Parallel()
	m, a := newMachine(t), newApprover(t, waits, tooSoon, isDown, hangsUp, approves)
	code, out, said := m.terminal(t.Context(), "login", a.URL)
	if code != CodeDone || !strings.Contains(out, "in workspace shop, with the scope DEPLOY") || !strings.Contains(said, "BCDF-GHJK") || !strings.Contains(said, a.page) {
		t.Fatalf("%d %q %q", code, out, said)
	}
	if strings.Contains(out+said, deviceCode) || strings.Contains(out+said, "dp_good") {
		t.Errorf("a secret was printed: %q %q", out, said)
	}
	if !strings.Contains(said, "does not answer just now") {
		t.Errorf("nothing was said while Devpilot was away: %q", said)
	}
	if len(m.open) != 1 || m.open[0] != a.page {
		t.Errorf("opened %q", m.open)
	}
	if name := a.name.Load().(string); len([]rune(name)) != maxHost || strings.Contains(name, "\x1b") || !strings.HasPrefix(name, "laptop") {
		t.Errorf("it calls itself %q", name)
	}
	path := filepath.Join(m.dir, credentialsDir, credentialsFile)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the file has mode %v: %v", info.Mode(), err)
	}
	if kept, err := os.ReadFile(path); err != nil || !strings.Contains(string(kept), "dp_good") || strings.Contains(string(kept), deviceCode) {
		t.Errorf("kept %s: %v", kept, err)
	}
}

// TestLogout_endsTheKeyThatALoginMade, which nobody else has; what cannot be ended is forgotten here all the same.
func TestLogout_endsTheKeyThatALoginMade(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		code   int
		want   string
	}{
		"ended":       {says(200, `{}`), CodeDone, "its key is ended"},
		"had ended":   {says(401, `{"status":401,"detail":"The key is not valid.","reason":"UNAUTHENTICATED"}`), CodeDone, "its key is ended"},
		"was deleted": {says(404, `{"status":404,"detail":"No such key.","reason":"API_KEY_NOT_FOUND"}`), CodeDone, "its key is ended"},
		"refused":     {says(403, `{"status":403,"detail":"Your role is MEMBER.","reason":"PERMISSION_DENIED"}`), CodeNotAllowed, "still works"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, a := newMachine(t), newApprover(t, approves)
			var asked atomic.Value
			a.Config.Handler.(*http.ServeMux).HandleFunc("DELETE /v1/workspaces/shop/apiKeys/1", func(w http.ResponseWriter, r *http.Request) {
				asked.Store(r.Header.Get("Authorization"))
				c.answer(w)
			})
			if code, _, said := m.terminal(t.Context(), "login", a.URL); code != CodeDone {
				t.Fatal(code, said)
			}
			code, out, said := m.terminal(t.Context(), "logout")
			if code != c.code || !strings.Contains(out+said, c.want) || asked.Load() != "Bearer dp_good" {
				t.Errorf("%d %q %q, asked by %v", code, out, said, asked.Load())
			}
			if raw, err := os.ReadFile(filepath.Join(m.dir, credentialsDir, credentialsFile)); err != nil || strings.Contains(string(raw), "dp_good") {
				t.Errorf("after logout the file holds %s: %v", raw, err)
			}
		})
	}
}

func TestLoginInBrowser_saysHowItEnded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		code   int
		want   string
	}{
		"denied":  {denies, CodeNotAllowed, "denied"},
		"expired": {isGone, CodeNotSignedIn, "in time"},
		"refused": {says(403, `{"status":403,"detail":"Your role is MEMBER.","reason":"PERMISSION_DENIED"}`), CodeNotAllowed, "Your role"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, a := newMachine(t), newApprover(t, c.answer)
			code, _, said := m.terminal(t.Context(), "login", a.URL)
			if code != c.code || !strings.Contains(said, c.want) || name != "refused" && !strings.Contains(said, "Next: devpilot login\n") {
				t.Errorf("%d %q", code, said)
			}
			if _, err := os.Stat(filepath.Join(m.dir, credentialsDir)); !errors.Is(err, os.ErrNotExist) {
				t.Error("something was kept")
			}
		})
	}
	away := httptest.NewServer(http.NotFoundHandler())
	older := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		says(404, `{"status":404,"detail":"There is nothing at this address.","reason":"NOT_FOUND"}`)(w)
	}))
	t.Cleanup(older.Close)
	away.Close()
	for address, want := range map[string]int{away.URL: CodeTryLater, older.URL: CodeUsage, "http://devpilot.example.com": CodeUsage} {
		if code, _, said := newMachine(t).terminal(t.Context(), "login", address); code != want {
			t.Errorf("%s: %d %q", address, code, said)
		}
	}
}

func TestLoginInBrowser_opensNothingButAPage(t *testing.T) {
	t.Parallel()
	m, a := newMachine(t), newApprover(t, waits)
	for _, page := range []string{"file:///etc/passwd", "--help", "javascript:alert(1)", "https:opaque", ""} {
		a.page = page
		if code, _, said := m.terminal(t.Context(), "login", a.URL); code != CodeFailed || len(m.open) != 0 {
			t.Errorf("%q: %d %q, opened %q", page, code, said, m.open)
		}
	}
}

func TestLoginInBrowser_endsCleanlyWhenInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	m, a := newMachine(t), newApprover(t, func(w http.ResponseWriter) {
		waits(w)
		cancel()
	})
	if code, _, said := m.terminal(ctx, "login", a.URL); code != CodeInterrupted || !strings.HasSuffix(said, "devpilot: interrupted\n") {
		t.Errorf("%d %q", code, said)
	}
}

// Where standard input is no terminal a key is read from it; a flag says otherwise, each way.
func TestLogin_whichWay(t *testing.T) {
	t.Parallel()
	a := newApprover(t, approves)
	if code, out, said := newMachine(t).run("", "login", a.URL, "--browser"); code != CodeDone || !strings.Contains(out, "workspace shop") {
		t.Errorf("--browser: %d %q %q", code, out, said)
	}
	address := devpilotAt(t, map[string]string{"GET /v1/me": me})
	if code, out, said := newMachine(t).terminal(t.Context(), "login", address, "--with-key"); code != CodeDone || !strings.Contains(out, "as CI") {
		t.Errorf("--with-key: %d %q %q", code, out, said)
	}
	if code, _, _ := newMachine(t).run("", "login", address, "--with-key", "--browser"); code != CodeUsage {
		t.Error("both ways at once")
	}
	_, out, _ := newMachine(t).run("", "login", "--help")
	for _, word := range []string{"In a browser", "With an API key", "--with-key", "< key"} {
		if !strings.Contains(out, word) {
			t.Errorf("--help has no %q: %s", word, out)
		}
	}
}
