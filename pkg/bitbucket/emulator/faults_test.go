package emulator_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

func TestFaults_answersOfEachKind(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	for _, tc := range []struct {
		fault       emulator.Fault
		status      int
		contentType string
		body        string
		header      map[string]string
	}{
		{emulator.Fault{Kind: emulator.FaultTokenExpired}, 401, "application/json", "OAuth2 access token expired.", nil},
		{emulator.Fault{Kind: emulator.FaultTokenExpiredOld}, 401, "application/json", `"Access token expired.`, nil},
		{emulator.Fault{Kind: emulator.FaultTokenInvalid}, 401, "application/json", "Token is invalid, expired", nil},
		{emulator.Fault{Kind: emulator.FaultMissingScope}, 403, "application/json", `"required":["repository"]`, nil},
		{emulator.Fault{Kind: emulator.FaultRateLimited}, 429, "application/json", "Rate limit", nil},
		{emulator.Fault{Kind: emulator.FaultRateLimited, Headers: map[string]string{"Retry-After": "7"}}, 429, "application/json", "", map[string]string{"Retry-After": "7"}},
		{emulator.Fault{Kind: emulator.FaultRateLimitedText}, 429, "text/plain", "Rate limit for this resource has been exceeded", nil},
		{emulator.Fault{Kind: emulator.FaultRateLimitedReset}, 429, "application/json", "", map[string]string{"X-Ratelimit-Reset": "745"}},
		{emulator.Fault{Kind: emulator.FaultServerErrorHTML}, 502, "text/html", "<h1>502", nil},
		{emulator.Fault{Kind: emulator.FaultServerErrorHTML, Status: 555}, 555, "text/html", "<h1>555", nil},
		{emulator.Fault{Status: 418, Body: `{"a":1}`}, 418, "application/json", `{"a":1}`, nil},
		{emulator.Fault{Status: 500, Body: "<p>oops", BodyKind: "html"}, 500, "text/html", "<p>oops", nil},
	} {
		tc.fault.Route, tc.fault.Times = "/2.0/repositories/{workspace}", 1
		f.server.Inject(tc.fault)
		f.call("GET", "/user", token, nil).want(t, 200)
		a := f.call("GET", "/repositories/acme", token, nil).want(t, tc.status)
		if !strings.HasPrefix(a.Header.Get("Content-Type"), tc.contentType) || !strings.Contains(string(a.raw), tc.body) {
			t.Errorf("%+v: %v %s", tc.fault, a.Header, a.raw)
		}
		for name, value := range tc.header {
			if a.Header.Get(name) != value {
				t.Errorf("%s is %q", name, a.Header.Get(name))
			}
		}
		f.call("GET", "/repositories/acme", token, nil).want(t, 200)
	}
}

func TestFaults_matchingAfterTimesAndRemoval(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	statuses := func(n int) (list []int) {
		for range n {
			list = append(list, f.call("GET", "/repositories/acme/web", token, nil).StatusCode)
		}
		return list
	}
	id := f.server.Inject(emulator.Fault{Route: "api", Path: "/2.0/repositories/acme/web", Method: "GET", Status: 503, After: 1, Times: 2})
	if got := statuses(4); got[0] != 200 || got[1] != 503 || got[2] != 503 || got[3] != 200 {
		t.Errorf("got %v", got)
	}
	if err := f.control.RemoveFault(t.Context(), id); err == nil {
		t.Error("a used up fault could be removed")
	}
	id = must(f.control.Inject(t.Context(), emulator.Fault{Route: "GET /2.0/repositories/{workspace}/{repository}", Status: 503}))(t)
	statuses(3)
	if faults := must(f.control.State(t.Context()))(t).Faults; len(faults) != 1 || faults[0].Hits != 3 {
		t.Errorf("faults %+v", faults)
	}
	f.must(f.control.RemoveFault(t.Context(), id))
	f.server.Inject(emulator.Fault{Status: 503, Method: "POST"})
	f.call("GET", "/user", token, nil).want(t, 200)
	f.refresh("x").want(t, 503)
	f.must(f.control.ClearFaults(t.Context()))
	f.refresh("x").want(t, 400)
	if _, err := f.control.Inject(t.Context(), emulator.Fault{Kind: "magic"}); err == nil {
		t.Error("an unknown kind was accepted")
	}
}

func TestFaults_lostAnswerTakesEffect(t *testing.T) {
	t.Parallel()
	f := start(t)
	pair := f.tokens("jane-dev")
	f.server.Inject(emulator.Fault{Kind: emulator.FaultLostAnswer, Route: "/site/oauth2/access_token", Times: 1})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.server.SiteURL()+"/site/oauth2/access_token",
		strings.NewReader("grant_type=refresh_token&refresh_token="+pair.RefreshToken))
	f.must(err)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	consumer := emulator.DefaultConsumer()
	request.SetBasicAuth(consumer.Key, consumer.Secret)
	answer, err := f.client.Do(request)
	if err == nil {
		_, err = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
	}
	if err == nil {
		t.Fatal("the answer arrived")
	}
	if counters := must(f.control.Counters(t.Context()))(t); counters.Refreshes != 1 {
		t.Errorf("counters %+v", counters)
	}
	f.refresh(pair.RefreshToken).want(t, 400)
}

func TestFaults_lateAnswerTakesEffectBeforeItWaits(t *testing.T) {
	t.Parallel()
	f := start(t)
	pair := f.tokens("jane-dev")
	fault := emulator.Fault{Route: "/site/oauth2/access_token", Delay: time.Hour, Late: true, Times: 1}
	f.server.Inject(fault)
	ctx, giveUp := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, f.server.SiteURL()+"/site/oauth2/access_token",
		strings.NewReader("grant_type=refresh_token&refresh_token="+pair.RefreshToken))
	f.must(err)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	consumer := emulator.DefaultConsumer()
	request.SetBasicAuth(consumer.Key, consumer.Secret)
	failed := make(chan error, 1)
	go func() {
		answer, err := f.client.Do(request)
		if err == nil {
			_ = answer.Body.Close()
		}
		failed <- err
	}()
	eventually(t, "the refresh to count", func() bool { return must(f.control.Counters(t.Context()))(t).Refreshes == 1 })
	giveUp()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("the answer did not wait: %v", err)
	}
	f.refresh(pair.RefreshToken).want(t, 400)

	fault.Delay = time.Millisecond
	f.server.Inject(fault)
	next := f.tokens("jane-dev")
	if a := f.refresh(next.RefreshToken).want(t, 200); a.json["token_type"] != "bearer" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %v %s", a.Header, a.raw)
	}
}

func TestFaults_slowAnswerWaitsOrEndsWithItsClient(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	f.server.Inject(emulator.Fault{Delay: 40 * time.Millisecond, Times: 1})
	started := time.Now()
	f.call("GET", "/user", token, nil).want(t, 200)
	if took := time.Since(started); took < 40*time.Millisecond {
		t.Errorf("answered after %s", took)
	}
	f.server.Inject(emulator.Fault{Kind: emulator.FaultSlow, Times: 1})
	f.client.Timeout = 20 * time.Millisecond
	if answer, err := f.client.Get(f.server.APIURL() + "/user"); err == nil {
		_ = answer.Body.Close()
		t.Error("a slow answer was fast")
	}
	f.client.Timeout = 0
}

func TestFaults_nextOnAnotherOrigin(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	f.server.Inject(emulator.Fault{Kind: emulator.FaultForeignNext, Times: 1})
	a := f.call("GET", "/repositories/acme?pagelen=2", token, nil).want(t, 200)
	if next, _ := a.json["next"].(string); next == "" || strings.HasPrefix(next, f.server.SiteURL()) {
		t.Errorf("next is %q", next)
	}
}

func TestFaults_gitOnly(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	g := newGit(t, "x-token-auth", token)
	for kind, text := range map[emulator.FaultKind]string{
		emulator.FaultIPAllowList: "an admin must whitelist your IP", emulator.FaultTwoStep: "enable two-step authentication",
	} {
		f.server.Inject(emulator.Fault{Kind: kind})
		f.call("GET", "/repositories/acme/web", token, nil).want(t, 200)
		if out, err := g.try(g.home, "ls-remote", f.remote("acme/web")); err == nil || !strings.Contains(out, text) {
			t.Errorf("%s: %v %s", kind, err, out)
		}
		f.must(f.control.ClearFaults(t.Context()))
	}
}

func TestFaults_permissionDowngradeAndRotatedSlug(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	id := f.server.Inject(emulator.Fault{Kind: emulator.FaultPermissionDowngrade, Repository: "acme/web"})
	f.call("GET", hooksPath, token, nil).want(t, 403)
	f.call("GET", "/repositories/acme/web", token, nil).want(t, 200)
	if got := f.call("GET", "/repositories/acme?role=contributor", token, nil).names("slug"); len(got) != 3 {
		t.Errorf("contributor: %v", got)
	}
	f.must(f.control.RemoveFault(t.Context(), id))
	f.call("GET", hooksPath, token, nil).want(t, 200)

	f.server.Inject(emulator.Fault{Kind: emulator.FaultRotatedSlug, Repository: "acme/web"})
	f.call("GET", "/repositories/acme/web", token, nil).want(t, 404)
	f.call("GET", "/repositories/acme/web-renamed", token, nil).want(t, 200)
	uuid := "%7B" + emulator.SeededUUID("repository", "acme/web") + "%7D"
	if a := f.call("GET", "/repositories/acme/"+uuid, token, nil).want(t, 200); a.json["full_name"] != "acme/web-renamed" {
		t.Errorf("got %s", a.raw)
	}
}
