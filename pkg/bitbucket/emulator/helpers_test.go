package emulator_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/testkit"
)

const callbackURL = "https://devpilot.example.test/oauth/bitbucket/callback"

func TestMain(m *testing.M) { testkit.Main(m, func() error { return goleak.Find() }) }

// fixture is a running emulator with what tests do to it.
type fixture struct {
	t       *testing.T
	server  *emulator.Server
	control *emulator.Control
	client  *http.Client
}

// start runs an emulator with the sample scenario, unless the options say otherwise.
func start(t *testing.T, change ...func(*emulator.Options)) *fixture {
	t.Helper()
	options := emulator.Options{Scenario: "sample", DataDir: t.TempDir(), Logger: testLogger(t)}
	options.Consumer.CallbackURL = callbackURL
	for _, c := range change {
		c(&options)
	}
	server, err := emulator.Start("127.0.0.1:0", options)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{Proxy: nil}
	f := &fixture{t: t, server: server, control: server.Control(), client: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := server.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return f
}

// testLogger fails the test on errors that the emulator logs about itself.
func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(errorSink{t}, &slog.HandlerOptions{Level: slog.LevelError}))
}

type errorSink struct{ t *testing.T }

func (s errorSink) Write(p []byte) (int, error) {
	s.t.Errorf("emulator logged: %s", p)
	return len(p), nil
}

// answer is a response with its body read.
type answer struct {
	*http.Response
	raw  []byte
	json map[string]any
}

func (f *fixture) send(request *http.Request) *answer {
	f.t.Helper()
	response, err := f.client.Do(request)
	if err != nil {
		f.t.Fatal(err)
	}
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil {
		f.t.Fatal(err)
	}
	a := &answer{Response: response, raw: raw}
	if strings.HasPrefix(response.Header.Get("Content-Type"), "application/json") && !bytes.HasPrefix(raw, []byte("[")) {
		if err := json.Unmarshal(raw, &a.json); err != nil {
			f.t.Fatalf("%s %s: %v in %s", request.Method, request.URL, err, raw)
		}
	}
	return a
}

// call sends a request to the REST API; path is below /2.0 or absolute. body is sent as JSON.
func (f *fixture) call(method, path, token string, body any) *answer {
	f.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = f.server.APIURL() + path
	}
	var reader io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			f.t.Fatal(err)
		}
		reader = bytes.NewReader(raw)
	}
	request, err := http.NewRequestWithContext(f.t.Context(), method, path, reader)
	if err != nil {
		f.t.Fatal(err)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	return f.send(request)
}

// form posts to the token endpoint with the consumer's credentials.
func (f *fixture) form(values url.Values) *answer {
	f.t.Helper()
	request, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, f.server.SiteURL()+"/site/oauth2/access_token", strings.NewReader(values.Encode()))
	if err != nil {
		f.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	consumer := emulator.DefaultConsumer()
	request.SetBasicAuth(consumer.Key, consumer.Secret)
	return f.send(request)
}

func (f *fixture) refresh(token string) *answer {
	f.t.Helper()
	return f.form(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

// tokens makes a grant without the consent page.
func (f *fixture) tokens(account string, scopes ...string) emulator.TokenPair {
	f.t.Helper()
	pair, err := f.control.IssueTokens(f.t.Context(), account, scopes...)
	if err != nil {
		f.t.Fatal(err)
	}
	return pair
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) push(repository string, changes ...emulator.RefChange) []emulator.RefResult {
	f.t.Helper()
	results, err := f.control.Push(f.t.Context(), repository, "jane-dev", changes...)
	f.must(err)
	return results
}

func (f *fixture) deliveries(hook string) []emulator.Attempt {
	f.t.Helper()
	list, err := f.control.Deliveries(f.t.Context(), hook, 0)
	f.must(err)
	return list
}

// want fails unless the answer has the status and, if given, the error message.
func (a *answer) want(t *testing.T, status int, message ...string) *answer {
	t.Helper()
	if a.StatusCode != status {
		t.Fatalf("%s %s: status %d, want %d: %s", a.Request.Method, a.Request.URL, a.StatusCode, status, a.raw)
	}
	if len(message) > 0 && a.at("error", "message") != message[0] {
		t.Fatalf("%s %s: message %q, want %q", a.Request.Method, a.Request.URL, a.at("error", "message"), message[0])
	}
	return a
}

// at digs into the JSON: names for objects, numbers for arrays. Missing things are nil.
func (a *answer) at(path ...any) any { return dig(a.json, path...) }

func dig(value any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			object, _ := value.(map[string]any)
			value = object[step]
		case int:
			list, _ := value.([]any)
			if step >= len(list) {
				return nil
			}
			value = list[step]
		}
	}
	return value
}

func (a *answer) values() []any {
	list, _ := a.json["values"].([]any)
	return list
}

// names lists a field of all values.
func (a *answer) names(path ...any) []string {
	names := []string{}
	for _, value := range a.values() {
		name, _ := dig(value, path...).(string)
		names = append(names, name)
	}
	return names
}

// has reports whether an object has a name, for asserting what is absent.
func has(object any, name string) bool {
	_, exists := object.(map[string]any)[name]
	return exists
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	testkit.Eventually(t, 10*time.Second, func() error {
		if !condition() {
			return errors.New(what)
		}
		return nil
	})
}

// receiver is a webhook endpoint that records what it gets.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	requests []received
	answer   func(n int, w http.ResponseWriter)
}

type received struct {
	header http.Header
	body   []byte
	json   map[string]any
}

func newReceiver(t *testing.T, reply func(n int, w http.ResponseWriter)) *receiver {
	r := &receiver{answer: reply}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			t.Error(err)
		}
		one := received{header: request.Header.Clone(), body: body}
		if err := json.Unmarshal(body, &one.json); err != nil {
			t.Errorf("delivery is no JSON: %v", err)
		}
		r.mu.Lock()
		r.requests = append(r.requests, one)
		n := len(r.requests)
		r.mu.Unlock()
		if r.answer != nil {
			r.answer(n, w)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) got() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]received(nil), r.requests...)
}

// wait returns when n deliveries have come.
func (r *receiver) wait(t *testing.T, n int) []received {
	t.Helper()
	eventually(t, "deliveries", func() bool { return len(r.got()) >= n })
	got := r.got()
	if len(got) != n {
		t.Fatalf("%d deliveries, want %d", len(got), n)
	}
	return got
}

// hook subscribes the receiver to a repository.
func (f *fixture) hook(repository, target, secret string) emulator.HookState {
	f.t.Helper()
	hook, err := f.control.AddHook(f.t.Context(), repository, emulator.Hook{Description: "test", URL: target, Secret: secret})
	f.must(err)
	return hook
}

// git runs the git program of a person or a deployer. The credential comes from its configuration file, so that it is
// neither in a URL nor among the arguments.
type git struct {
	t    *testing.T
	home string
	env  []string
}

const gitIdentity = "[user]\n\tname = Jane Developer\n\temail = jane@example.test\n[init]\n\tdefaultBranch = main\n[push]\n\tdefault = current\n"

// newGit sends the credential with every request.
func newGit(t *testing.T, user, password string) *git {
	t.Helper()
	basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	return newGitConfig(t, "[http]\n\textraHeader = Authorization: Basic "+basic+"\n")
}

// newGitHelper sends it when asked, by a credential helper.
func newGitHelper(t *testing.T, user, password string) *git {
	t.Helper()
	g := newGitConfig(t, "")
	g.write(g.home, "answer", "username="+user+"\npassword="+password+"\n")
	g.write(g.home, ".gitconfig", gitIdentity+"[credential]\n\thelper = \"!cat "+g.home+"/answer #\"\n")
	return g
}

func newGitConfig(t *testing.T, config string) *git {
	t.Helper()
	g := &git{t: t, home: t.TempDir()}
	g.write(g.home, ".gitconfig", gitIdentity+config)
	g.env = []string{"HOME=" + g.home, "PATH=" + os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C"}
	return g
}

func (g *git) try(dir string, args ...string) (string, error) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Env = dir, g.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (g *git) run(dir string, args ...string) string {
	g.t.Helper()
	out, err := g.try(dir, args...)
	if err != nil {
		g.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

func (g *git) clone(remote string, args ...string) string {
	g.t.Helper()
	dir := filepath.Join(g.t.TempDir(), "clone")
	g.run(g.home, append(append([]string{"clone", "--quiet"}, args...), remote, dir)...)
	return dir
}

func (g *git) write(dir, name, content string) {
	g.t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		g.t.Fatal(err)
	}
}
