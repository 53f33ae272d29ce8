package repo_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/testkit"
)

// listingPath is the path of a Bitbucket workspace's repositories: the service calls by UUID.
func listingPath(slug string) string {
	return "/2.0/repositories/%7B" + emulator.SeededUUID("workspace", slug) + "%7D"
}

func permissionsPath(slug string) string {
	return "/2.0/user/workspaces/%7B" + emulator.SeededUUID("workspace", slug) + "%7D/permissions"
}

func (s *stack) inject(f emulator.Fault) string {
	s.t.Helper()
	id, err := s.control.Inject(context.Background(), f)
	s.do(err)
	return id
}

// messageOf is the message of the only partial failure.
func messageOf(t *testing.T, resp *repov1.ListRepositoriesResponse) string {
	t.Helper()
	if len(resp.GetPartialFailures()) != 1 {
		t.Fatalf("partial failures = %v, want one", resp.GetPartialFailures())
	}
	return resp.GetPartialFailures()[0].GetMessage()
}

func TestListRepositories_oneWorkspaceThatFailsIsReportedBesideTheOthers(t *testing.T) {
	tests := map[string]struct {
		fault  emulator.Fault
		reason apierr.Reason
	}{
		"503":           {emulator.Fault{Kind: emulator.FaultServerErrorHTML, Status: 503}, apierr.ReasonBitbucketUnavailable},
		"555":           {emulator.Fault{Kind: emulator.FaultServerErrorHTML, Status: 555}, apierr.ReasonBitbucketUnavailable},
		"lost answer":   {emulator.Fault{Kind: emulator.FaultLostAnswer}, apierr.ReasonBitbucketUnavailable},
		"403":           {emulator.Fault{Status: 403, Body: `{"type":"error","error":{"message":"Access denied."}}`}, apierr.ReasonAccessRestricted},
		"two-step":      {emulator.Fault{Status: 403, Body: "To access this repository, enable two-step authentication."}, apierr.ReasonAccessRestricted},
		"404":           {emulator.Fault{Status: 404, Body: `{"type":"error","error":{"message":"No workspace with identifier 'acme'."}}`}, apierr.ReasonRepositoryNotFound},
		"deleted (410)": {emulator.Fault{Status: 410, Body: `{"type":"error","error":{"message":"This workspace has been deleted"}}`}, apierr.ReasonRepositoryNotFound},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, "sample")
			tt.fault.Path = listingPath("acme")
			s.inject(tt.fault)
			resp := s.list(s.replica())
			if got := names(resp); !slices.Equal(got, []string{"jane-dev/notes", "jane-dev/site"}) {
				t.Errorf("repositories = %v", got)
			}
			if diff := cmp.Diff([]string{"acme " + string(tt.reason)}, reasons(resp)); diff != "" {
				t.Error(diff)
			}
			if m := messageOf(t, resp); m == "" || strings.Contains(m, "<") {
				t.Errorf("message = %q", m)
			}
		})
	}
}

func TestListRepositories_aHiccupIsTriedAgain(t *testing.T) {
	s := newStack(t, "sample")
	for _, path := range []string{listingPath("acme"), permissionsPath("acme")} {
		s.inject(emulator.Fault{Kind: emulator.FaultServerErrorHTML, Path: path, Times: 1})
	}
	if resp := s.list(s.replica()); !slices.Equal(names(resp), sampleNames) || len(resp.GetPartialFailures()) != 0 {
		t.Errorf("repositories = %v, failures %v", names(resp), resp.GetPartialFailures())
	}
}

func TestListRepositories_aWorkspaceThatFailsNowIsShownAsItWas(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	s.list(r)
	fault := s.inject(emulator.Fault{Kind: emulator.FaultServerErrorHTML, Path: listingPath("acme")})
	resp := s.list(r, refresh)
	if !slices.Equal(names(resp), sampleNames) {
		t.Errorf("repositories = %v", names(resp))
	}
	if m := messageOf(t, resp); !strings.Contains(m, "as they were at") {
		t.Errorf("message = %q", m)
	}
	// One that may not be listed any more is not shown from memory.
	s.do(s.control.RemoveFault(t.Context(), fault))
	s.inject(emulator.Fault{Path: listingPath("acme"), Status: 403, Body: `{"type":"error","error":{"message":"Access denied."}}`})
	s.redis.FastForward(time.Minute)
	resp = s.list(r, refresh)
	if !slices.Equal(names(resp), []string{"jane-dev/notes", "jane-dev/site"}) || strings.Contains(messageOf(t, resp), "as they were") {
		t.Errorf("repositories = %v, failures %v", names(resp), resp.GetPartialFailures())
	}
}

// shortPage is a page that says there are three repositories and lists two.
func shortPage(t *testing.T) string {
	t.Helper()
	repository := func(n int) map[string]any {
		return map[string]any{"uuid": fmt.Sprintf("{00000000-0000-4000-8000-%012d}", n), "full_name": fmt.Sprintf("acme/r%d", n), "name": "r"}
	}
	body, err := json.Marshal(map[string]any{"size": 3, "pagelen": 100, "page": 1, "values": []any{repository(1), repository(2), repository(2)}})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestListRepositories_countIsChecked(t *testing.T) {
	s := newStack(t, "sample")
	s.inject(emulator.Fault{Path: listingPath("acme"), Status: 200, Body: shortPage(t), Times: 1})
	r := s.replica()
	if resp := s.list(r); !slices.Equal(names(resp), sampleNames) || len(resp.GetPartialFailures()) != 0 {
		t.Errorf("a count that was wrong once: %v, %v", names(resp), resp.GetPartialFailures())
	}
	s.inject(emulator.Fault{Path: listingPath("acme"), Status: 200, Body: shortPage(t)})
	resp := s.list(r, refresh)
	if !slices.Equal(names(resp), []string{"acme/r1", "acme/r2", "jane-dev/notes", "jane-dev/site"}) {
		t.Errorf("a count that stays wrong: %v", names(resp))
	}
	if m := messageOf(t, resp); !strings.Contains(m, "3 repositories in acme but listed 2") {
		t.Errorf("message = %q", m)
	}
}

func TestListRepositories_unknownPermissionsAreReported(t *testing.T) {
	s := newStack(t, "sample")
	s.inject(emulator.Fault{Kind: emulator.FaultServerErrorHTML, Path: permissionsPath("acme")})
	resp := s.list(s.replica())
	if !slices.Equal(names(resp), sampleNames) {
		t.Errorf("repositories = %v", names(resp))
	}
	for _, r := range resp.GetRepositories() {
		if unknown := r.GetPermission() == repov1.Repository_PERMISSION_UNSPECIFIED; unknown != (r.GetBitbucketWorkspace() == "acme") {
			t.Errorf("%s has permission %s", r.GetFullName(), r.GetPermission())
		}
	}
	if m := messageOf(t, resp); !strings.Contains(m, "Whether webhooks can be registered in acme is not known") {
		t.Errorf("message = %q", m)
	}
}

func TestListRepositories_whatStopsTheWholeWalk(t *testing.T) {
	tests := map[string]struct {
		fault emulator.Fault
		want  apierr.Reason
	}{
		"workspaces cannot be listed": {emulator.Fault{Kind: emulator.FaultServerErrorHTML, Route: "GET /2.0/user/workspaces"}, apierr.ReasonBitbucketUnavailable},
		"limit reached":               {emulator.Fault{Kind: emulator.FaultRateLimited, Route: "api", Headers: map[string]string{"Retry-After": "77"}}, apierr.ReasonBitbucketRateLimited},
		"every workspace fails":       {emulator.Fault{Kind: emulator.FaultServerErrorHTML, Path: "/2.0/repositories/"}, apierr.ReasonBitbucketUnavailable},
		"a scope is missing":          {emulator.Fault{Kind: emulator.FaultMissingScope, Path: "/2.0/repositories/"}, apierr.ReasonScopeMissing},
		"token not accepted":          {emulator.Fault{Kind: emulator.FaultTokenInvalid, Route: "api"}, apierr.ReasonTokenExpired},
		"pages lead elsewhere":        {emulator.Fault{Status: 200, Body: `{"values":[],"next":"https://api.bitbucket.invalid/2.0/x"}`, Route: "GET /2.0/user/workspaces"}, apierr.ReasonBitbucketUnavailable},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, "sample")
			s.inject(tt.fault)
			_, err := s.tryList(s.replica())
			e := apierr.From(err)
			if e.Reason() != tt.want || e.Message() == "" {
				t.Errorf("err = %v", err)
			}
			if tt.want == apierr.ReasonBitbucketRateLimited && (e.RetryAfter() < 30*time.Second || e.RetryAfter() > 77*time.Second) {
				t.Errorf("retry after %s", e.RetryAfter())
			}
		})
	}
}

func TestListRepositories_aRefusalIsAboutOneWorkspace(t *testing.T) {
	for name, tt := range map[string]struct {
		fault emulator.Fault
		lost  string // begins the names that are not listed
		want  apierr.Reason
		says  string
	}{
		"401 for one listing":     {emulator.Fault{Kind: emulator.FaultTokenInvalid, Path: listingPath("acme")}, "acme/", apierr.ReasonAccessRefused, "the Bitbucket workspace acme"},
		"403 for one listing":     {emulator.Fault{Kind: emulator.FaultMissingScope, Path: listingPath("acme")}, "acme/", apierr.ReasonScopeMissing, ""},
		"429 for one listing":     {emulator.Fault{Kind: emulator.FaultRateLimited, Path: listingPath("acme")}, "acme/", apierr.ReasonBitbucketRateLimited, ""},
		"404 for one listing":     {emulator.Fault{Status: 404, Path: listingPath("acme")}, "acme/", apierr.ReasonRepositoryNotFound, "the Bitbucket workspace acme"},
		"401 for its permissions": {emulator.Fault{Kind: emulator.FaultTokenInvalid, Path: permissionsPath("acme")}, "", apierr.ReasonAccessRefused, "the Bitbucket workspace acme"},
		"a scope for its rights":  {emulator.Fault{Kind: emulator.FaultMissingScope, Path: permissionsPath("acme")}, "", apierr.ReasonScopeMissing, "in acme is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, "sample")
			s.inject(tt.fault)
			resp, err := s.tryList(s.replica())
			if err != nil {
				t.Fatal(err)
			}
			want := slices.DeleteFunc(slices.Clone(sampleNames), func(n string) bool { return tt.lost != "" && strings.HasPrefix(n, tt.lost) })
			if got := names(resp); !slices.Equal(got, want) {
				t.Errorf("listed %v, want %v", got, want)
			}
			if len(resp.GetPartialFailures()) != 1 {
				t.Fatalf("failures %v", resp.GetPartialFailures())
			}
			f := resp.GetPartialFailures()[0]
			if f.GetReason() != string(tt.want) || !strings.Contains(f.GetMessage(), tt.says) || strings.ContainsAny(f.GetMessage(), "{}") {
				t.Errorf("failure %v", f)
			}
		})
	}
}

func TestListRepositories_aListThatCannotBeRenewedIsShownWithItsAge(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	s.list(r)
	s.inject(emulator.Fault{Kind: emulator.FaultServerErrorHTML, Route: "api"})
	s.clock.advance(time.Minute)
	if resp := s.list(r); !resp.GetStale() && len(resp.GetPartialFailures()) == 0 { // it may have failed already
		t.Error("no renewal began")
	}
	var resp *repov1.ListRepositoriesResponse
	testkit.Eventually(t, 10*time.Second, func() error {
		// The failure may be known a moment before the fetch has ended.
		if resp = s.list(r); len(resp.GetPartialFailures()) == 0 || resp.GetStale() {
			return fmt.Errorf("failures %v, stale %t: a client would ask for ever", resp.GetPartialFailures(), resp.GetStale())
		}
		return nil
	})
	if !slices.Equal(names(resp), sampleNames) {
		t.Errorf("listed %v", names(resp))
	}
	if diff := cmp.Diff([]string{" BITBUCKET_UNAVAILABLE"}, reasons(resp)); diff != "" {
		t.Error(diff)
	}
	if m := messageOf(t, resp); !strings.Contains(m, "could not be renewed and is from") {
		t.Errorf("message = %q", m)
	}
	// A person who insists gets the same, not an error.
	if resp := s.list(r, refresh); !slices.Equal(names(resp), sampleNames) || len(resp.GetPartialFailures()) != 1 {
		t.Errorf("refresh: %v, %v", names(resp), resp.GetPartialFailures())
	}
	// It is tried again after a while, and then the failure is gone.
	s.do(s.control.ClearFaults(t.Context()))
	s.clock.advance(31 * time.Second)
	testkit.Eventually(t, 10*time.Second, func() error {
		if resp := s.list(r); len(resp.GetPartialFailures()) != 0 || resp.GetStale() {
			return fmt.Errorf("failures %v, stale %t", resp.GetPartialFailures(), resp.GetStale())
		}
		return nil
	})
}

func TestListRepositories_expiredTokenIsExchangedOnce(t *testing.T) {
	s := newStack(t, "sample")
	_, err := s.control.ExpireTokens(t.Context(), "")
	s.do(err)
	if resp := s.list(s.replica()); !slices.Equal(names(resp), sampleNames) {
		t.Errorf("repositories = %v", names(resp))
	}
	if s.auth.renewed != 1 {
		t.Errorf("%d renewals, want 1", s.auth.renewed)
	}
}

func TestListRepositories_tokensStayAtTheirBitbucket(t *testing.T) {
	s := newStack(t, "sample")
	s.auth.site, s.auth.api = "https://bitbucket.org", "https://api.bitbucket.org/2.0"
	if _, err := s.tryList(s.replica()); !apierr.Has(err, apierr.ReasonReconnectRequired) {
		t.Errorf("err = %v", err)
	}
	if n, routes := s.calls(); n != 0 {
		t.Errorf("%d calls with another site's token: %v", n, routes)
	}
}

func TestListRepositories_firstListThatTakesLongComesInParts(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	s.inject(emulator.Fault{Kind: emulator.FaultSlow, Path: listingPath("acme"), Delay: 6 * time.Second, Times: 1})
	ctx, cancel := context.WithTimeout(s.ctx(), 4*time.Second)
	defer cancel()
	resp, err := r.ListRepositories(ctx, &repov1.ListRepositoriesRequest{Workspace: workspace})
	if err != nil {
		t.Fatal(err)
	}
	if !resp.GetStale() || !slices.Equal(names(resp), []string{"jane-dev/notes", "jane-dev/site"}) {
		t.Errorf("stale %t, %v", resp.GetStale(), names(resp))
	}
	if diff := cmp.Diff([]string{"acme TIMEOUT"}, reasons(resp)); diff != "" {
		t.Error(diff)
	}
	// The walk went on.
	resp = s.list(r)
	if !slices.Equal(names(resp), sampleNames) || len(resp.GetPartialFailures()) != 0 {
		t.Errorf("later: %v, %v", names(resp), resp.GetPartialFailures())
	}
	if _, routes := s.calls(); routes["GET /2.0/user/workspaces"] != 1 {
		t.Errorf("calls = %v, want one walk", routes)
	}
}

func TestListRepositories_nothingInTime(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	s.inject(emulator.Fault{Kind: emulator.FaultSlow, Route: "GET /2.0/user/workspaces", Delay: 2 * time.Second, Times: 1})
	ctx, cancel := context.WithTimeout(s.ctx(), 1500*time.Millisecond)
	defer cancel()
	_, err := r.ListRepositories(ctx, &repov1.ListRepositoriesRequest{Workspace: workspace})
	if e := apierr.From(err); e.Reason() != apierr.ReasonTimeout || !strings.Contains(e.Message(), "still sending") || e.RetryAfter() == 0 {
		t.Errorf("err = %v", err)
	}
	if resp := s.list(r); !slices.Equal(names(resp), sampleNames) {
		t.Errorf("later: %v", names(resp))
	}
}

func TestRun_endsListingsAtShutdown(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	s.list(r)
	s.inject(emulator.Fault{Kind: emulator.FaultSlow, Route: "GET /2.0/user/workspaces", Delay: 5 * time.Minute})
	s.clock.advance(time.Minute)
	if resp := s.list(r); !resp.GetStale() {
		t.Fatal("no renewal began")
	}
	began := time.Now()
	r.stop()
	if took := time.Since(began); took > time.Minute {
		t.Errorf("shutdown took %s", took)
	}
	s.do(s.control.ClearFaults(t.Context()))
}

func TestLists_oneOddEntryIsSkippedAndSaid(t *testing.T) {
	s := newStack(t, "sample")
	const commit = `"target":{"hash":"0123456789012345678901234567890123456789"}`
	s.inject(emulator.Fault{Status: 200, Route: "GET /2.0/repositories/{workspace}/{repository}/refs/branches",
		Body: `{"values":[{"name":7,` + commit + `},{"name":"main",` + commit + `},null,{"name":"no-head"}],"size":4}`})
	s.inject(emulator.Fault{Status: 200, Path: listingPath("acme"), Times: 1,
		Body: `{"values":[{"uuid":1},{"uuid":"` + emulator.SeededUUID("repository", "acme/web") + `","full_name":"acme/web","name":"web"}],"size":2}`})
	r := s.replica()
	resp := s.list(r)
	if got := names(resp); !slices.Equal(got, []string{"acme/web", "jane-dev/notes", "jane-dev/site"}) {
		t.Errorf("listed %v", got)
	}
	if m := messageOf(t, resp); !strings.Contains(m, "1 of the repositories of acme") {
		t.Errorf("message = %q", m)
	}
	branches, err := r.ListBranches(s.ctx(), &repov1.ListBranchesRequest{Workspace: workspace, Repository: emulator.SeededUUID("repository", "acme/web")})
	if err != nil || len(branches.GetBranches()) != 1 || branches.GetBranches()[0].GetName() != "main" {
		t.Fatalf("%v, %v", branches, err)
	}
	if f := branches.GetPartialFailures(); len(f) != 1 || !strings.Contains(f[0].GetMessage(), "3 of the branches of acme/web") {
		t.Errorf("%v", f)
	}
}
