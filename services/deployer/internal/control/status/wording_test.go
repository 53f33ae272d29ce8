package status

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

func TestWant(t *testing.T) {
	start := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name   string
		change func(*deployerv1.Deployment)
		state  bitbucket.BuildState // empty: nothing
		text   string
	}{
		{"waits", func(d *deployerv1.Deployment) { d.State = deployerv1.Deployment_PENDING }, "", ""},
		{"waits again", func(d *deployerv1.Deployment) { d.State = deployerv1.Deployment_PENDING }, "", ""},
		{"fetches: the commit may change", func(d *deployerv1.Deployment) { d.Stage = deployerv1.Deployment_SOURCE_CONTROL }, "", ""},
		{"runs", func(*deployerv1.Deployment) {}, bitbucket.BuildInProgress, "Deployment #7 is running"},
		{"no commit", func(d *deployerv1.Deployment) { d.Commit = nil }, "", ""},
		{"completed", func(d *deployerv1.Deployment) { d.State = deployerv1.Deployment_COMPLETED }, bitbucket.BuildSuccessful, "Live in 12 s"},
		{"completed quickly", func(d *deployerv1.Deployment) {
			d.State, d.EndTime = deployerv1.Deployment_COMPLETED, timestamppb.New(start.Add(420*time.Millisecond))
		}, bitbucket.BuildSuccessful, "Live in 0.4 s"},
		{"completed slowly", func(d *deployerv1.Deployment) {
			d.State, d.EndTime = deployerv1.Deployment_COMPLETED, timestamppb.New(start.Add(125*time.Second))
		}, bitbucket.BuildSuccessful, "Live in 2 min 5 s"},
		{"rolled back", func(d *deployerv1.Deployment) {
			d.State, d.Trigger = deployerv1.Deployment_COMPLETED, deployerv1.Deployment_ROLLBACK
		}, bitbucket.BuildSuccessful, "Live again in 12 s"},
		{"failed", func(d *deployerv1.Deployment) {
			d.State, d.Error = deployerv1.Deployment_FAILED, &deployerv1.DeploymentError{Message: "npm ci exited\nwith 1"}
		}, bitbucket.BuildFailed, "Failed: npm ci exited with 1"},
		{"failed but live", func(d *deployerv1.Deployment) {
			d.State, d.Stage, d.Error = deployerv1.Deployment_FAILED, deployerv1.Deployment_POST_RELEASE, &deployerv1.DeploymentError{Message: "no"}
		}, bitbucket.BuildFailed, "Live, but failed afterwards: no"},
		{"failed while fetching", func(d *deployerv1.Deployment) {
			d.State, d.Stage = deployerv1.Deployment_FAILED, deployerv1.Deployment_SOURCE_CONTROL
		}, bitbucket.BuildFailed, "Failed"},
		{"cancelled", func(d *deployerv1.Deployment) {
			d.State, d.CancelledBy = deployerv1.Deployment_CANCELLED, &deployerv1.DeploymentActor{Label: "Jane Developer"}
		}, bitbucket.BuildStopped, "Cancelled by Jane Developer"},
		{"cancelled by one of two of one name", func(d *deployerv1.Deployment) {
			d.State, d.CancelledBy = deployerv1.Deployment_CANCELLED, &deployerv1.DeploymentActor{Label: "Ann (ann@example.com)"}
		}, bitbucket.BuildStopped, "Cancelled by Ann"},
		{"cancelled before it started", func(d *deployerv1.Deployment) { d.State, d.StartTime = deployerv1.Deployment_CANCELLED, nil }, "", ""},
		{"superseded", func(d *deployerv1.Deployment) { d.State, d.SupersededBy = deployerv1.Deployment_SUPERSEDED, 14 }, bitbucket.BuildStopped, "Superseded by #14"},
		{"superseded before it started", func(d *deployerv1.Deployment) { d.State, d.StartTime = deployerv1.Deployment_SUPERSEDED, nil }, "", ""},
	} {
		d := &deployerv1.Deployment{
			Number: 7, State: deployerv1.Deployment_PROCESSING, Stage: deployerv1.Deployment_POST_SETUP, Branch: "main",
			Commit: &deployerv1.DeploymentCommit{Hash: "abc"}, StartTime: timestamppb.New(start), EndTime: timestamppb.New(start.Add(12900 * time.Millisecond)),
		}
		tc.change(d)
		w, ok := want(&storev1.Deployment{Deployment: d})
		if ok != (tc.state != "") || ok && (w.state != tc.state || w.description != tc.text || w.branch != "main" || w.end() != (tc.state != bitbucket.BuildInProgress)) {
			t.Errorf("%s: %v %+v", tc.name, ok, w)
		}
		if d.Tag = "v1"; ok {
			if w, _ := want(&storev1.Deployment{Deployment: d}); w.branch != "" {
				t.Errorf("%s: a tag is told as the branch %s", tc.name, w.branch)
			}
		}
	}
	if w, ok := want(nil); ok {
		t.Errorf("an empty record calls for %+v", w)
	}
}

func TestKey_isShortAndOnePerAppAndConnection(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range []lane.Key{{Workspace: "acme", App: "web"}, {Workspace: "acme", App: "api"}, {Workspace: "acme-web", App: "x"}, {Workspace: strings.Repeat("w", 63), App: strings.Repeat("a", 63)}} {
		for _, connection := range []string{"c1", "c2", strings.Repeat("c", 200)} {
			key := Key(k, connection)
			if len(key) > bitbucket.MaxStatusKey || !strings.HasPrefix(key, "devpilot-") || seen[key] || key != Key(k, connection) {
				t.Errorf("%v %s: %s", k, connection, key)
			}
			seen[key] = true
		}
	}
}

func TestUnsendable(t *testing.T) {
	const cloud, emulator = bitbucket.DefaultAPIURL, "http://localhost:8081/2.0"
	for _, tc := range []struct {
		public, api string
		sendable    bool
	}{
		{"https://devpilot.example.com", cloud, true},
		{"http://devpilot.example.com", cloud, false},
		{"http://127.0.0.1:8080", cloud, false},
		{"https://10.0.0.1", cloud, false},
		{"http://127.0.0.1:8080", emulator, true},
		{"http://localhost:8080", emulator, false}, // as a link it is refused everywhere
	} {
		if why, err := unsendable(tc.public, tc.api); err != nil || (why == "") != tc.sendable {
			t.Errorf("%s for %s: %q, %v", tc.public, tc.api, why, err)
		}
	}
	for _, public := range []string{"", "devpilot", "ftp://x"} {
		if _, err := unsendable(public, cloud); err == nil {
			t.Errorf("%q is taken for a public URL", public)
		}
	}
}

func TestJudge(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want meaning
	}{
		{&bitbucket.Error{Kind: bitbucket.KindRateLimited, RetryAfter: time.Minute}, temporaryThere},
		{&bitbucket.Error{Kind: bitbucket.KindRefused}, temporaryThere},
		{&bitbucket.Error{Kind: bitbucket.KindUnavailable, Status: http.StatusBadGateway}, temporaryThere},
		{&bitbucket.Error{Kind: bitbucket.KindNetwork}, temporary},
		{&bitbucket.Error{Kind: bitbucket.KindScopeMissing}, refusedAccount},
		{&bitbucket.Error{Kind: bitbucket.KindUnauthorized}, refusedRepository},
		{&bitbucket.Error{Kind: bitbucket.KindForbidden}, refusedKey},
		{&bitbucket.Error{Kind: bitbucket.KindAccessRestricted}, refusedRepository},
		{&bitbucket.Error{Kind: bitbucket.KindNotFound}, refusedCommit},
		{&bitbucket.Error{Kind: bitbucket.KindInvalid}, refusedKey},
		{apierr.New(apierr.ReasonReconnectRequired, "x"), refusedAccount},
		{apierr.New(apierr.ReasonNotConnected, "x"), refusedAccount},
		{apierr.New(apierr.ReasonBitbucketUnavailable, "x"), temporary},
		{errors.New("connection refused"), temporary},
	} {
		if got := judge(tc.err); got.what != tc.want {
			t.Errorf("%v: %v", tc.err, got)
		}
	}
	if got := judge(&bitbucket.Error{Kind: bitbucket.KindRateLimited, RetryAfter: time.Minute}); got.wait != time.Minute {
		t.Errorf("asked to wait a minute: %v", got.wait)
	}
}

func TestBackoffs_growAndAreForgotten(t *testing.T) {
	var h backoffs
	now := time.Now()
	for _, want := range []time.Duration{15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 5 * time.Minute, 5 * time.Minute} {
		h.trouble(now, "a", 0, nil)
		if _, held := h.held(now.Add(want-time.Millisecond), "x", "a"); !held {
			t.Errorf("not held for %v", want)
		}
		if now = now.Add(want); true {
			if _, held := h.held(now, "a"); held {
				t.Errorf("held for longer than %v", want)
			}
		}
	}
	h.clear("a")
	h.trouble(now, "a", 0, nil)
	if _, held := h.held(now.Add(16*time.Second), "a"); held {
		t.Error("a success is not forgotten")
	}
	h.trouble(now, "b", time.Hour, nil)
	if got, held := h.held(now.Add(refusedBackoff-time.Second), "b"); !held || got.refused {
		t.Error("what Bitbucket asks for counts")
	}
	if _, held := h.held(now.Add(refusedBackoff), "b"); held {
		t.Error("what Bitbucket asks for is bounded")
	}
	h.trouble(now, "b", 2*time.Second, nil)
	if _, held := h.held(now.Add(2*time.Second), "b"); held {
		t.Error("two seconds are made more")
	}
	if !h.refuse(now, "c", nil) || h.refuse(now, "c", nil) {
		t.Error("a refusal is news once")
	}
	for i := range 2*maxBackoffs + 10 {
		h.refuse(now, strings.Repeat("n", i%7)+time.Duration(i).String(), nil)
	}
	if len(h.by) > maxBackoffs {
		t.Errorf("%d backoffs", len(h.by))
	}
}

func TestBackoffs_aSecondOneWidensARefusal(t *testing.T) {
	var h backoffs
	now := time.Now()
	steps := func(want bool, all, name string, when time.Time) {
		t.Helper()
		if got := h.second(when, all, name); got != want {
			t.Errorf("%s of %s: %v", name, all, got)
		}
	}
	steps(false, "web", "one", now)
	steps(false, "web", "one", now.Add(time.Minute)) // the same once more
	steps(false, "api", "two", now.Add(time.Minute))
	steps(true, "web", "two", now.Add(2*time.Minute))
	h.clear("web")
	steps(false, "web", "two", now.Add(3*time.Minute))
	steps(false, "web", "three", now.Add(3*time.Minute+refusedBackoff)) // long after
	steps(true, "web", "four", now.Add(4*time.Minute+refusedBackoff))
	for i := range 2*maxBackoffs + 10 {
		h.second(now, time.Duration(i).String(), "x")
	}
	if len(h.doubts) > maxBackoffs {
		t.Errorf("%d doubts", len(h.doubts))
	}
}

func TestTurns_whoComesMeanwhileIsLookedAtAgain(t *testing.T) {
	var turn turns
	if !turn.take("a") || turn.take("a") || !turn.take("b") || !turn.again("a") || turn.again("a") || !turn.take("a") {
		t.Error("turns")
	}
	turn.take("a")
	turn.end("a")
	if !turn.take("a") || turn.again("a") {
		t.Error("a turn that ended remembers")
	}
	r := recent{n: 10}
	for i := range 100 {
		r.add(time.Duration(i).String())
	}
	if !r.has("99ns") || !r.has("90ns") || r.has("50ns") || len(r.new)+len(r.old) > 20 {
		t.Error("recent")
	}
}
