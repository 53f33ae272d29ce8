package repo_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/testkit"
)

// What jane-dev of the emulator's sample scenario can reach by a grant, in order.
var sampleNames = []string{"acme/api", "acme/docs", "acme/empty", "acme/legacy", "acme/web", "jane-dev/notes", "jane-dev/site"}

func TestListRepositories_allOfAllBitbucketWorkspaces(t *testing.T) {
	s := newStack(t, "sample")
	resp := s.list(s.replica())
	if diff := cmp.Diff(sampleNames, names(resp)); diff != "" {
		t.Errorf("repositories (-want +got):\n%s", diff)
	}
	if resp.GetTotalSize() != int32(len(sampleNames)) || resp.GetStale() || resp.GetNextPageToken() != "" || len(resp.GetPartialFailures()) != 0 {
		t.Errorf("answer = %v", resp)
	}
	if age := time.Since(resp.GetFetchTime().AsTime()); age < 0 || age > time.Minute {
		t.Errorf("fetch time is %s ago", age)
	}
	want := &repov1.Repository{
		Id: emulator.SeededUUID("repository", "acme/web"), FullName: "acme/web", Name: "Web", BitbucketWorkspace: "acme",
		BitbucketWorkspaceId: emulator.SeededUUID("workspace", "acme"), Private: true, MainBranch: "main",
		UpdateTime: timestamppb.New(time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)), Permission: repov1.Repository_ADMIN,
		HtmlUrl: s.emulator.SiteURL() + "/acme/web",
	}
	if diff := cmp.Diff(want, resp.GetRepositories()[4], protocmp.Transform()); diff != "" {
		t.Errorf("acme/web (-want +got):\n%s", diff)
	}
	permissions := map[string]repov1.Repository_Permission{}
	for _, r := range resp.GetRepositories() {
		permissions[r.GetFullName()] = r.GetPermission()
	}
	wantPermissions := map[string]repov1.Repository_Permission{
		"acme/api": repov1.Repository_ADMIN, "acme/docs": repov1.Repository_WRITE, "acme/empty": repov1.Repository_ADMIN, "acme/legacy": repov1.Repository_READ,
		"acme/web": repov1.Repository_ADMIN, "jane-dev/notes": repov1.Repository_ADMIN, "jane-dev/site": repov1.Repository_ADMIN,
	}
	if diff := cmp.Diff(wantPermissions, permissions); diff != "" {
		t.Errorf("permissions (-want +got):\n%s", diff)
	}
	if empty := resp.GetRepositories()[2]; empty.GetMainBranch() != "" {
		t.Errorf("the empty repository has main branch %q", empty.GetMainBranch())
	}
}

func TestListRepositories_searchIsBySubstringFromTheSnapshot(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	s.list(r)
	s.resetCalls()
	tests := map[string][]string{
		"we":       {"acme/web"},
		"WEB":      {"acme/web"},
		" web ":    {"acme/web"},
		"ACME":     {"acme/api", "acme/docs", "acme/empty", "acme/legacy", "acme/web"},
		"e/":       {"acme/api", "acme/docs", "acme/empty", "acme/legacy", "acme/web"},
		"acme/e":   {"acme/empty"},
		"dev/":     {"jane-dev/notes", "jane-dev/site"},
		"API":      {"acme/api"},
		"nothing":  nil,
		"acme web": nil,
	}
	for q, want := range tests {
		resp := s.list(r, query(q))
		if diff := cmp.Diff(want, names(resp)); diff != "" || resp.GetTotalSize() != int32(len(want)) {
			t.Errorf("query %q: total %d (-want +got):\n%s", q, resp.GetTotalSize(), diff)
		}
	}
	if n, routes := s.calls(); n != 0 {
		t.Errorf("searching made %d calls to Bitbucket: %v", n, routes)
	}
}

func TestListRepositories_pagesSurviveAChangingList(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	first := s.list(r, pageOf(3, ""))
	if diff := cmp.Diff(sampleNames[:3], names(first)); diff != "" || first.GetTotalSize() != 7 {
		t.Fatalf("first page:\n%s", diff)
	}
	// The last repository of the page goes, one appears before it and one after.
	s.do(s.control.DeleteRepository(t.Context(), "acme/empty"))
	for _, name := range []string{"acme/aaa", "acme/lll"} {
		_, err := s.control.PutRepository(t.Context(), name, emulator.RepositoryInput{Permissions: map[string]string{"jane-dev": "read"}})
		s.do(err)
	}
	s.list(r, refresh)
	got := names(first)
	for token := first.GetNextPageToken(); token != ""; {
		next := s.list(r, pageOf(2, token))
		got = append(got, names(next)...)
		token = next.GetNextPageToken()
	}
	want := []string{"acme/api", "acme/docs", "acme/empty", "acme/legacy", "acme/lll", "acme/web", "jane-dev/notes", "jane-dev/site"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
}

func TestListRepositories_pageTokensBelongToOneList(t *testing.T) {
	s := newStack(t, "sample")
	s.auth.connect(t, "other", "jane-dev")
	r := s.replica()
	token := s.list(r, pageOf(2, ""), query("acme")).GetNextPageToken()
	if token == "" {
		t.Fatal("no next page")
	}
	if got := names(s.list(r, pageOf(2, token), query("ACME "))); !slices.Equal(got, []string{"acme/empty", "acme/legacy"}) {
		t.Errorf("second page = %v", got)
	}
	for what, req := range map[string]*repov1.ListRepositoriesRequest{
		"another query":     {Workspace: workspace, Query: "web", PageToken: token},
		"no query":          {Workspace: workspace, PageToken: token},
		"another workspace": {Workspace: "other", Query: "acme", PageToken: token},
		"nonsense":          {Workspace: workspace, Query: "acme", PageToken: "nonsense"},
	} {
		_, err := r.ListRepositories(s.as(identity.RoleMember, req.GetWorkspace()), req)
		if !apierr.Has(err, apierr.ReasonPageTokenInvalid) {
			t.Errorf("%s: err = %v", what, err)
		}
	}
	_, err := r.ListBranches(s.ctx(), &repov1.ListBranchesRequest{Workspace: workspace, Repository: emulator.SeededUUID("repository", "acme/web"), PageToken: token})
	if !apierr.Has(err, apierr.ReasonPageTokenInvalid) {
		t.Errorf("another method: err = %v", err)
	}
}

func TestListRepositories_refusesWhatCannotBe(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	for field, change := range map[string]func(*repov1.ListRepositoriesRequest){
		"pageSize":  pageOf(-1, ""),
		"query":     query(strings.Repeat("x", 501)),
		"workspace": func(r *repov1.ListRepositoriesRequest) { r.Workspace = "" },
	} {
		_, err := s.tryList(r, change)
		e := apierr.From(err)
		if e.Reason() != apierr.ReasonInvalidArgument || len(e.Fields()) != 1 || e.Fields()[0].Name != field {
			t.Errorf("%s: err = %v", field, err)
		}
	}
	if got := len(names(s.list(r, pageOf(1_000_000, "")))); got != len(sampleNames) {
		t.Errorf("a huge page has %d repositories", got)
	}
}

func TestListRepositories_openingAnOldListRenewsItInTheBackground(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	before := s.list(r)
	_, err := s.control.PutRepository(t.Context(), "acme/new", emulator.RepositoryInput{Permissions: map[string]string{"jane-dev": "admin"}})
	s.do(err)

	s.clock.advance(29 * time.Second)
	s.resetCalls()
	if resp := s.list(r); resp.GetStale() || slices.Contains(names(resp), "acme/new") {
		t.Errorf("a list of 29 s: stale %t, %v", resp.GetStale(), names(resp))
	}
	s.clock.advance(2 * time.Second)
	if resp := s.list(r, query("acme")); resp.GetStale() {
		t.Error("searching renewed the list")
	}
	if n, routes := s.calls(); n != 0 {
		t.Errorf("%d calls before the list was old: %v", n, routes)
	}

	s.do(s.control.SetLatency(t.Context(), 250*time.Millisecond)) // the renewal takes longer than the answer
	resp := s.list(r)
	if !resp.GetStale() || !resp.GetFetchTime().AsTime().Equal(before.GetFetchTime().AsTime()) || slices.Contains(names(resp), "acme/new") {
		t.Errorf("opening a list of 31 s: stale %t, fetched %s, %v", resp.GetStale(), resp.GetFetchTime().AsTime(), names(resp))
	}
	testkit.Eventually(t, 10*time.Second, func() error {
		resp = s.list(r)
		if resp.GetStale() || !slices.Contains(names(resp), "acme/new") {
			return fmt.Errorf("stale %t, %v", resp.GetStale(), names(resp))
		}
		return nil
	})
	if _, routes := s.calls(); routes["GET /2.0/user/workspaces"] != 1 {
		t.Errorf("calls = %v, want one walk", routes)
	}
}

func TestListRepositories_refreshAtMostOnceAMinute(t *testing.T) {
	s := newStack(t, "sample")
	one, two := s.replica(), s.replica()
	s.list(one)
	put := func(name string) {
		_, err := s.control.PutRepository(t.Context(), name, emulator.RepositoryInput{Permissions: map[string]string{"jane-dev": "admin"}})
		s.do(err)
	}
	put("acme/new-1")
	if resp := s.list(one, refresh); resp.GetStale() || resp.GetNextRefreshTime() != nil || !slices.Contains(names(resp), "acme/new-1") {
		t.Errorf("refresh: stale %t, next %v, %v", resp.GetStale(), resp.GetNextRefreshTime(), names(resp))
	}
	put("acme/new-2")
	s.resetCalls()
	for _, r := range []*replica{one, two} {
		resp := s.list(r, refresh)
		wait := resp.GetNextRefreshTime().AsTime().Sub(s.clock.now())
		if wait < 30*time.Second || wait > time.Minute || !slices.Contains(names(resp), "acme/new-1") || slices.Contains(names(resp), "acme/new-2") {
			t.Errorf("second refresh: again in %s, %v", wait, names(resp))
		}
	}
	if n, routes := s.calls(); n != 0 {
		t.Errorf("%d calls within the minute: %v", n, routes)
	}
	s.redis.FastForward(time.Minute)
	s.clock.advance(time.Minute)
	if resp := s.list(two, refresh); !slices.Contains(names(resp), "acme/new-2") || resp.GetNextRefreshTime() != nil {
		t.Errorf("refresh after a minute: %v", names(resp))
	}
	// The other replica learns of it at once, not only when its own copy is old.
	if resp := s.list(one, query("new")); !slices.Equal(names(resp), []string{"acme/new-1", "acme/new-2"}) {
		t.Errorf("the other replica has %v", names(resp))
	}
}

func TestListRepositories_replicasShareOneWalk(t *testing.T) {
	s := newStack(t, "sample")
	s.do(s.control.SetLatency(t.Context(), 30*time.Millisecond))
	one, two := s.replica(), s.replica()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			r := []*replica{one, two}[i%2]
			if resp, err := s.tryList(r); err != nil || !slices.Equal(names(resp), sampleNames) {
				t.Errorf("list = %v, %v", names(resp), err)
			}
		})
	}
	wg.Wait()
	if _, routes := s.calls(); routes["GET /2.0/user/workspaces"] != 1 {
		t.Errorf("calls = %v, want one walk", routes)
	}
	s.resetCalls()
	if resp := s.list(s.replica()); !slices.Equal(names(resp), sampleNames) {
		t.Errorf("a new replica has %v", names(resp))
	}
	if n, routes := s.calls(); n != 0 {
		t.Errorf("a new replica made %d calls: %v", n, routes)
	}
}

func TestListRepositories_withoutRedis(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	s.list(r)
	s.redis.Stop()
	if resp := s.list(r); !slices.Equal(names(resp), sampleNames) {
		t.Errorf("from memory: %v", names(resp))
	}
	_, err := s.control.PutRepository(t.Context(), "acme/new", emulator.RepositoryInput{Permissions: map[string]string{"jane-dev": "admin"}})
	s.do(err)
	if resp := s.list(r, refresh); !slices.Contains(names(resp), "acme/new") {
		t.Errorf("refresh: %v", names(resp))
	}
	if resp := s.list(r, refresh); resp.GetNextRefreshTime() == nil {
		t.Error("without Redis there is no limit of refreshes")
	}
	if resp := s.list(s.replica(), query("web")); !slices.Equal(names(resp), []string{"acme/web"}) {
		t.Errorf("a new replica: %v", names(resp))
	}
	id := emulator.SeededUUID("repository", "acme/web")
	if _, err := r.ListBranches(s.ctx(), &repov1.ListBranchesRequest{Workspace: workspace, Repository: id}); err != nil {
		t.Errorf("branches: %v", err)
	}
	// Redis comes back with the list from before; the next renewal of any replica reaches all.
	s.redis.Start()
	s.clock.advance(31 * time.Second)
	other := s.replica()
	testkit.Eventually(t, 10*time.Second, func() error {
		s.list(r)
		if resp := s.list(other, query("new")); !slices.Contains(names(resp), "acme/new") {
			return fmt.Errorf("list = %v", names(resp))
		}
		return nil
	})
}

func TestListRepositories_anotherConnectionHasAnotherList(t *testing.T) {
	s := newStack(t, "sample")
	one, two := s.replica(), s.replica()
	s.list(one)
	s.list(two)
	s.auth.connect(t, workspace, "acme-admin")
	for _, r := range []*replica{one, two} {
		got := names(s.list(r))
		if !slices.Contains(got, "acme/payroll") || slices.Contains(got, "jane-dev/notes") {
			t.Errorf("after connecting another account: %v", got)
		}
	}
	if resp := s.list(one, refresh); resp.GetNextRefreshTime() != nil {
		t.Error("the new connection inherited the old one's limit of refreshes")
	}
}

func TestListRepositories_disconnectForgetsTheList(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	s.list(r)
	if keys := s.keysWith("snapshot"); len(keys) != 1 {
		t.Fatalf("snapshots in Redis: %v", keys)
	}
	s.auth.disconnect(workspace)
	if _, err := s.tryList(r); !apierr.Has(err, apierr.ReasonNotConnected) {
		t.Errorf("err = %v", err)
	}
	if keys := s.keysWith("snapshot"); len(keys) != 0 {
		t.Errorf("snapshots left in Redis: %v", keys)
	}
}

func (s *stack) keysWith(part string) []string {
	s.t.Helper()
	keys, err := s.redis.Client().Keys(context.Background(), "*"+part+"*").Result()
	s.do(err)
	return keys
}

func TestListRepositories_everyKeyExpires(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	s.list(r)
	s.list(r, refresh)
	s.list(r, query(s.emulator.SiteURL()+"/acme/web"))
	client := s.redis.Client()
	keys := s.keysWith("")
	if len(keys) < 4 {
		t.Errorf("keys = %v", keys)
	}
	for _, key := range keys {
		ttl, err := client.TTL(t.Context(), key).Result()
		if err != nil || ttl <= 0 || ttl > 24*time.Hour {
			t.Errorf("key %s lives for %s, %v", key, ttl, err)
		}
		if !strings.HasPrefix(key, "devpilot:repo:v1:") && !strings.Contains(key, "devpilot:bitbucket:v1:") {
			t.Errorf("key %s is not named by the rule", key)
		}
	}
}
