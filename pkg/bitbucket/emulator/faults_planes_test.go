package emulator_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

// try sends a request as jane-dev that need not be answered; the error is that of the answer's body too.
func (f *fixture) try(method, address, token string, body string) (status int, header http.Header, raw []byte, err error) {
	f.t.Helper()
	request, err := http.NewRequestWithContext(f.t.Context(), method, address, strings.NewReader(body))
	f.must(err)
	switch {
	case strings.HasSuffix(address, "/access_token"):
		consumer := emulator.DefaultConsumer()
		request.SetBasicAuth(consumer.Key, consumer.Secret)
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	case strings.Contains(address, ".git/"):
		request.SetBasicAuth("x-token-auth", token)
		request.Header.Set("Git-Protocol", "version=2")
	default:
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := f.client.Do(request)
	if err != nil {
		return 0, nil, nil, err
	}
	raw, err = io.ReadAll(answer.Body)
	return answer.StatusCode, answer.Header, raw, errors.Join(err, answer.Body.Close())
}

// asked is one request of each plane.
var asked = map[string]struct{ method, path, body string }{
	"api":         {"GET", "/2.0/repositories/acme/web", ""},
	"git":         {"GET", "/acme/web.git/info/refs?service=git-upload-pack", ""},
	"git:ls-refs": {"POST", "/acme/web.git/git-upload-pack", "0014command=ls-refs\n0000"},
	"oauth":       {"POST", "/site/oauth2/access_token", "grant_type=refresh_token&refresh_token=x"},
	"site":        {"GET", "/acme/web/admin/webhooks", ""},
}

func TestFaults_eachPlaneSaysAStatusInItsOwnWords(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	words := map[string]map[int]string{
		"api":         {401: `"Token is invalid, expired, or not supported for this endpoint."`, 404: `"You may not have access to this repository`, 429: `"Rate limit for this resource`, 503: "<h1>503"},
		"git":         {401: "You may not have access to this repository or it no longer exists in this workspace.", 404: "You may not have access", 429: "Rate limit", 503: "<h1>503"},
		"git:ls-refs": {401: "You may not have access", 404: "You may not have access", 429: "Rate limit", 502: "<h1>502"},
		"oauth":       {401: `"message":"Token is invalid`, 404: `"message":`, 429: `"Rate limit`, 500: `"Something went wrong"`},
		"site":        {401: "<h1>401", 404: "<h1>404", 429: "<h1>429", 503: "<h1>503"},
	}
	for plane, statuses := range words {
		request := asked[plane]
		healthy, _, _, err := f.try(request.method, f.server.SiteURL()+request.path, token, request.body)
		f.must(err)
		for status, text := range statuses {
			f.server.Inject(emulator.Fault{Route: plane, Status: status, RetryAfter: 1500 * time.Millisecond, Times: 1})
			got, header, raw, err := f.try(request.method, f.server.SiteURL()+request.path, token, request.body)
			f.must(err)
			if got != status || !strings.Contains(string(raw), text) || header.Get("Retry-After") != "2" {
				t.Errorf("%s: %d %v %s, want %d %s", plane, got, header, raw, status, text)
			}
			if isGit := strings.HasPrefix(plane, "git"); isGit && status == 401 && header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s: 401 without WWW-Authenticate", plane)
			}
			if again, _, _, err := f.try(request.method, f.server.SiteURL()+request.path, token, request.body); err != nil || again != healthy {
				t.Errorf("%s after the fault: %d %v, want %d", plane, again, err, healthy)
			}
		}
	}
}

func TestFaults_planesAndRepositoriesAreToldApart(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	uuid := "{" + emulator.SeededUUID("repository", "acme/web") + "}"
	escaped := strings.NewReplacer("{", "%7B", "}", "%7D").Replace(uuid)
	api, git := f.server.APIURL()+"/repositories/", f.server.SiteURL()+"/"
	requests := map[string]struct{ method, address, body string }{
		"web":     {"GET", api + "acme/web", ""},
		"web id":  {"GET", api + "%7B%7D/" + escaped, ""},
		"hooks":   {"GET", api + "acme/web/hooks", ""},
		"other":   {"GET", api + "acme/docs", ""},
		"listing": {"GET", api + "acme", ""},
		"refs":    {"GET", git + "acme/Web.git/info/refs?service=git-upload-pack", ""},
		"ls":      {"POST", git + "acme/web.git/git-upload-pack", asked["git:ls-refs"].body},
		"fetch":   {"POST", git + "acme/web.git/git-upload-pack", "0012command=fetch0000"},
		"ls docs": {"POST", git + "acme/docs.git/git-upload-pack", asked["git:ls-refs"].body},
		"token":   {"POST", git + "site/oauth2/access_token", "grant_type=refresh_token&refresh_token=x"},
		"page":    {"GET", git + "acme/web/admin/webhooks", ""},
	}
	for _, tc := range []struct {
		fault emulator.Fault
		hit   string
	}{
		{emulator.Fault{Repository: "acme/web"}, "web|web id|hooks|refs|ls|fetch"},
		{emulator.Fault{Repository: uuid}, "web|web id|hooks|refs|ls|fetch"},
		{emulator.Fault{Repository: "ACME/web", Route: "api"}, "web|web id|hooks"},
		{emulator.Fault{Repository: "acme/web", Route: "GET /2.0/repositories/{workspace}/{repository}/hooks"}, "hooks"},
		{emulator.Fault{Repository: "acme/web", Route: "git"}, "refs|ls|fetch"},
		{emulator.Fault{Route: "git"}, "refs|ls|fetch|ls docs"},
		{emulator.Fault{Route: "git:refs"}, "refs"},
		{emulator.Fault{Route: "git:ls-refs"}, "ls|ls docs"},
		{emulator.Fault{Route: "git:fetch"}, "fetch"},
		{emulator.Fault{Route: "oauth"}, "token"},
		{emulator.Fault{Route: "site"}, "page"},
		{emulator.Fault{Repository: "acme/other"}, ""},
	} {
		tc.fault.Status = 418
		id := f.server.Inject(tc.fault)
		for name, request := range requests {
			status, _, _, err := f.try(request.method, request.address, token, request.body)
			f.must(err)
			if want := strings.Contains("|"+tc.hit+"|", "|"+name+"|"); (status == 418) != want {
				t.Errorf("%+v: %s is hit: %v", tc.fault, name, !want)
			}
		}
		f.must(f.control.RemoveFault(t.Context(), id))
	}
	for _, wrong := range []emulator.Fault{{Route: "gti"}, {Repository: "web"}, {BodyKind: "xml"}} {
		if _, err := f.control.Inject(t.Context(), wrong); err == nil {
			t.Errorf("%+v was accepted", wrong)
		}
	}
}

func TestFaults_wrongBodies(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	for plane, contentType := range map[string]string{"api": "text/html", "oauth": "text/html", "git": "application/json", "site": "application/json"} {
		f.server.Inject(emulator.Fault{Kind: emulator.FaultWrongBody, Route: plane, Times: 1})
		request := asked[plane]
		status, header, raw, err := f.try(request.method, f.server.SiteURL()+request.path, token, request.body)
		f.must(err)
		if status != 200 || !strings.HasPrefix(header.Get("Content-Type"), contentType) {
			t.Errorf("%s: %d %v %s", plane, status, header, raw)
		}
	}
	f.server.Inject(emulator.Fault{Kind: emulator.FaultWrongBody, Route: "git", BodyKind: "html", Status: 202, Times: 1})
	if status, header, _, err := f.try("GET", f.server.SiteURL()+asked["git"].path, token, ""); err != nil || status != 202 || header.Get("Content-Type") != "text/html" {
		t.Errorf("%d %v %v", status, header, err)
	}
}

func TestFaults_flushSaysThatThereAreNoRefs(t *testing.T) {
	t.Parallel()
	f := start(t)
	g := newGit(t, "x-token-auth", f.tokens("jane-dev").AccessToken)
	id := f.server.Inject(emulator.Fault{Kind: emulator.FaultFlush, Repository: "acme/web"})
	for _, version := range []string{"0", "2"} {
		if out := g.run(g.home, "-c", "protocol.version="+version, "ls-remote", f.remote("acme/web")); out != "" {
			t.Errorf("version %s: %s", version, out)
		}
	}
	if out := g.run(g.home, "ls-remote", f.remote("acme/docs")); !strings.Contains(out, "refs/heads/main") {
		t.Errorf("another repository: %s", out)
	}
	f.must(f.control.RemoveFault(t.Context(), id))
	f.server.Inject(emulator.Fault{Kind: emulator.FaultFlush, Route: "git:fetch", Times: 1})
	if out, err := g.try(g.home, "clone", "--quiet", f.remote("acme/web"), "broken"); err == nil {
		t.Errorf("cloned from a flush: %s", out)
	}
	g.clone(f.remote("acme/web"))
}

func TestFaults_spoiledAnswers(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	address := f.server.SiteURL() + asked["git"].path
	_, _, whole, err := f.try("GET", address, token, "")
	f.must(err)
	spoiled := func(fault emulator.Fault) ([]byte, error) {
		fault.Repository = "acme/web"
		id := f.server.Inject(fault)
		_, _, raw, err := f.try("GET", address, token, "")
		f.must(f.control.RemoveFault(t.Context(), id))
		return raw, err
	}
	half := whole[:len(whole)/2]
	if raw, err := spoiled(emulator.Fault{Kind: emulator.FaultTruncated}); !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.Equal(raw, half) {
		t.Errorf("truncated: %v %q", err, raw)
	}
	if raw, err := spoiled(emulator.Fault{Kind: emulator.FaultHalved}); err != nil || !bytes.Equal(raw, half) {
		t.Errorf("halved: %v %q", err, raw)
	}
	started := time.Now()
	if raw, err := spoiled(emulator.Fault{Kind: emulator.FaultTrickle, Delay: 50 * time.Millisecond}); err != nil || !bytes.Equal(raw, whole) {
		t.Errorf("trickle: %v %q", err, raw)
	}
	if took := time.Since(started); took < 50*time.Millisecond {
		t.Errorf("trickled in %s", took)
	}
	if _, err := spoiled(emulator.Fault{Kind: emulator.FaultReset}); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset: %v", err)
	}
	if raw, err := spoiled(emulator.Fault{}); err != nil || !bytes.Equal(raw, whole) {
		t.Errorf("whole: %v %q", err, raw)
	}
}

func TestFaults_endWithTheirTime(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	f.server.Inject(emulator.Fault{Route: "api", Status: 503, For: time.Hour, Times: 1})
	f.call("GET", "/user", token, nil).want(t, 503)
	f.call("GET", "/user", token, nil).want(t, 200)
	f.server.Inject(emulator.Fault{Route: "api", Status: 503, For: 30 * time.Millisecond})
	f.server.Inject(emulator.Fault{Kind: emulator.FaultPermissionDowngrade, Repository: "acme/web", Permission: "none", For: 30 * time.Millisecond})
	eventually(t, "both to end", func() bool {
		return f.call("GET", "/repositories/acme/web", token, nil).StatusCode == http.StatusOK && len(must(f.control.State(t.Context()))(t).Faults) == 0
	})
	request := must(http.NewRequestWithContext(t.Context(), http.MethodPost, f.server.SiteURL()+"/_emulator/faults",
		strings.NewReader(`{"route":"api","status":429,"retry_after":"2s","for":"1h"}`)))(t)
	f.send(request).want(t, 200)
	if a := f.call("GET", "/user", token, nil).want(t, 429); a.Header.Get("Retry-After") != "2" {
		t.Errorf("got %v", a.Header)
	}
}

func TestFaults_oldNameIsTakenByAnother(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	g := newGit(t, "x-token-auth", token)
	before := must(f.control.Refs(t.Context(), "acme/web"))(t)
	id := emulator.SeededUUID("repository", "acme/web")
	f.server.Inject(emulator.Fault{Kind: emulator.FaultNameTaken, Repository: "acme/web", Slug: "web-legacy"})
	taken := f.call("GET", "/repositories/acme/web", token, nil).want(t, 200)
	if moved := f.call("GET", "/repositories/acme/web-legacy", token, nil).want(t, 200); moved.json["uuid"] != "{"+id+"}" || taken.json["uuid"] == moved.json["uuid"] {
		t.Errorf("moved %v, taken by %v", moved.json["uuid"], taken.json["uuid"])
	}
	f.call("GET", "/repositories/acme/web/hooks", token, nil).want(t, 200) // who administered the old one does the new one too
	refs := g.run(g.home, "ls-remote", f.remote("acme/web"))
	for _, hash := range before {
		if strings.Contains(refs, hash) {
			t.Errorf("the stranger has %s of the old repository:\n%s", hash, refs)
		}
	}
	if !strings.Contains(refs, "refs/heads/main") {
		t.Errorf("the stranger has no main: %s", refs)
	}
	if old := g.run(g.home, "ls-remote", f.remote("acme/web-legacy")); !strings.Contains(old, before["refs/heads/main"]) {
		t.Errorf("the moved one lost its history: %s", old)
	}
	f.must(f.control.ReplaceRepository(t.Context(), "acme/docs", "docs-old", emulator.RepositoryInput{Seed: "site", Permissions: map[string]string{"jane-dev": "read"}}))
	f.call("GET", "/repositories/acme/docs/hooks", token, nil).want(t, 403)
	if err := f.control.ReplaceRepository(t.Context(), "acme/docs", "docs", emulator.RepositoryInput{}); err == nil {
		t.Error("a repository was replaced by itself")
	}
}

func TestFaults_ofOneAccount(t *testing.T) {
	t.Parallel()
	f := start(t)
	jane, admin := f.tokens("jane-dev"), f.tokens("acme-admin")
	code := f.code() // of jane-dev
	f.server.Inject(emulator.Fault{Account: "jane-dev", Status: 418})
	f.call("GET", "/user", jane.AccessToken, nil).want(t, 418)
	f.call("GET", "/user", admin.AccessToken, nil).want(t, 200)
	f.call("GET", "/user", "", nil).want(t, 401)
	f.refresh(jane.RefreshToken).want(t, 418)
	f.refresh(admin.RefreshToken).want(t, 200)
	f.form(url.Values{"grant_type": {"authorization_code"}, "code": {code}}).want(t, 418)
	if status, _, _, err := f.try("GET", f.server.SiteURL()+asked["git"].path, jane.AccessToken, ""); err != nil || status != 418 {
		t.Errorf("git with a token: %d %v", status, err)
	}
	newGit(t, "jane-dev", "jane-dev-password").clone(f.remote("acme/web")) // a person
	f.must(f.control.ClearFaults(t.Context()))
	f.refresh(jane.RefreshToken).want(t, 200)
}
