package bitbucket_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/seal"
)

func TestEmulator_hooks(t *testing.T) {
	f := startEmulator(t)
	a := f.account("jane-dev")
	ref := bitbucket.Ref{Workspace: "acme", Repository: "web"}
	in := bitbucket.HookInput{
		Description: "Devpilot", URL: "https://hooks.example.test/webhooks/bitbucket/abc", Active: true,
		Events: []string{bitbucket.EventPush}, Secret: seal.NewSecret("a secret of ours"),
	}
	made, err := a.CreateHook(t.Context(), ref, in)
	f.do(err)
	if made.URL != in.URL || !made.Active || !made.SecretSet || made.CreatedAt.IsZero() || !slices.Equal(made.Events, in.Events) {
		t.Errorf("created %+v", made)
	}
	in.Description, in.Secret = "Devpilot 2", seal.Secret{}
	changed, err := a.UpdateHook(t.Context(), ref, made.UUID, in)
	if err != nil || changed.Description != "Devpilot 2" || !changed.SecretSet {
		t.Errorf("updated %+v, %v", changed, err)
	}
	for range 12 { // more than one default page
		_, err := a.CreateHook(t.Context(), ref, in)
		f.do(err)
	}
	if all, err := a.Hooks(t.Context(), ref); err != nil || len(all) != 13 {
		t.Errorf("%d hooks, %v", len(all), err)
	}
	f.do(a.DeleteHook(t.Context(), ref, made.UUID))
	if err := a.DeleteHook(t.Context(), ref, made.UUID); !bitbucket.IsKind(err, bitbucket.KindNotFound) {
		t.Errorf("deleting twice: %v", err)
	}
	if _, err := a.Hook(t.Context(), ref, made.UUID); !apierr.Has(err, apierr.ReasonWebhookNotFound) {
		t.Errorf("reading a deleted one: %v", err)
	}
	_, err = a.CreateHook(t.Context(), bitbucket.Ref{Workspace: "acme", Repository: "docs"}, in)
	if !apierr.Has(err, apierr.ReasonNotRepositoryAdmin) {
		t.Errorf("not an admin: %v", err)
	}
	_, err = a.CreateHook(t.Context(), bitbucket.Ref{Workspace: "acme", Repository: "payroll"}, in)
	if !apierr.Has(err, apierr.ReasonRepositoryNotFound) {
		t.Errorf("invisible repository: %v", err)
	}
	for _, object := range []bool{false, true} {
		f.do(f.control.Switch(t.Context(), func(s *emulator.Switches) { s.HookURLs, s.ObjectHookErrors = "public", object }))
		in.URL = "http://127.0.0.1:8082/webhooks/bitbucket/abc"
		if _, err = a.CreateHook(t.Context(), ref, in); !apierr.Has(err, apierr.ReasonNoPublicURL) {
			t.Errorf("a loopback URL, errors as object %t: %v", object, err)
		}
	}
}

func TestEmulator_buildStatus(t *testing.T) {
	f := startEmulator(t)
	a := f.account("jane-dev")
	ref := bitbucket.Ref{Workspace: "acme", Repository: "web"}
	b, err := a.Branch(t.Context(), ref, "main")
	f.do(err)
	s := bitbucket.BuildStatus{Key: bitbucket.StatusKey("acme-inc", "web"), State: bitbucket.BuildInProgress, Name: "Deploy web", URL: "https://console.example.test/d/42", RefName: "main"}
	f.do(a.SetBuildStatus(t.Context(), ref, b.Target.Hash, s))
	s.State = bitbucket.BuildSuccessful
	f.do(a.SetBuildStatus(t.Context(), ref, b.Target.Hash, s))
	list, err := f.control.Statuses(t.Context())
	if err != nil || len(list) != 1 || list[0].State != "SUCCESSFUL" || list[0].Key != s.Key {
		t.Errorf("statuses = %+v, %v", list, err)
	}
	if err := a.SetBuildStatus(t.Context(), ref, strings.Repeat("0", 40), s); !bitbucket.IsKind(err, bitbucket.KindNotFound) {
		t.Errorf("unknown commit: %v", err)
	}
}

// newEndpoint receives deliveries and answers them 202.
func newEndpoint(t *testing.T, receive func(http.Header, []byte)) (address string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			t.Errorf("read delivery: %v", err)
		}
		receive(r.Header.Clone(), body)
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/webhooks/bitbucket/abc"
}

func TestEmulator_deliveryIsVerifiedAndParsed(t *testing.T) {
	type delivery struct {
		header http.Header
		body   []byte
	}
	received := make(chan delivery, 1)
	endpoint := newEndpoint(t, func(h http.Header, body []byte) { received <- delivery{h, body} })
	f := startEmulator(t)
	a := f.account("jane-dev")
	ref := bitbucket.Ref{Workspace: "acme", Repository: "web"}
	secret := seal.NewSecret("a secret of ours")
	made, err := a.CreateHook(t.Context(), ref, bitbucket.HookInput{URL: endpoint, Active: true, Events: []string{bitbucket.EventPush}, Secret: secret})
	f.do(err)
	results, err := f.control.Push(t.Context(), "acme/web", "jane-dev",
		emulator.RefChange{Branch: "main", Commits: []emulator.CommitSpec{{Message: "Change\n", Files: map[string]string{"a": "b"}}}},
		emulator.RefChange{Branch: "fresh", From: "main"},
		emulator.RefChange{Branch: "develop", Delete: true},
		emulator.RefChange{Tag: "v9", From: "main"},
	)
	f.do(err)
	var d delivery
	select {
	case d = <-received:
	case <-time.After(time.Minute):
		t.Fatal("no delivery")
	}
	if _, err := hook.Verify(d.body, d.header.Get(hook.HeaderSignature), secret); err != nil {
		t.Errorf("Verify: %v", err)
	}
	if d.header.Get(hook.HeaderEvent) != hook.EventPush || hook.NormalizeUUID(d.header.Get(hook.HeaderHook)) != made.UUID {
		t.Errorf("headers = %v", d.header)
	}
	p, err := hook.Parse(d.body)
	f.do(err)
	if p.Repository.UUID != emulator.SeededUUID("repository", "acme/web") || p.Repository.FullName != "acme/web" || p.Actor.Label() != "Jane" || p.Unreadable != 0 {
		t.Errorf("push = %+v", p)
	}
	heads := map[string]string{}
	for _, r := range results {
		heads[r.Ref] = r.New
	}
	var got []string
	for _, c := range p.Changes {
		got = append(got, c.Ref().Kind.String()+" "+c.Ref().Name)
		if branch, hash, ok := c.Head(); ok && hash != heads["refs/heads/"+branch] {
			t.Errorf("head of %s = %s, want %s", branch, hash, heads["refs/heads/"+branch])
		}
		if c.Ref().Name == "develop" && (!c.Closed || c.New != nil) {
			t.Errorf("deletion = %+v", c)
		}
	}
	slices.Sort(got)
	if want := []string{"branch develop", "branch fresh", "branch main", "tag v9"}; !slices.Equal(got, want) {
		t.Errorf("changes = %v", got)
	}
}
