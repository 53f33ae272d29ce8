package repo_test

import (
	"slices"
	"testing"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

func TestSuggestServe_oneCallForACommit(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	s.list(r)
	head, err := s.control.Commit(t.Context(), "acme/web", "main", "A site", map[string]string{
		"public/index.html": "<h1>hello", "deep/er/index.html": "<h1>no", "README.md": "index.html",
	})
	s.do(err)
	id := emulator.SeededUUID("repository", "acme/web")
	s.resetCalls()
	for range 2 {
		resp, err := r.SuggestServe(s.ctx(), &repov1.SuggestServeRequest{Workspace: workspace, Repository: id, Commit: head})
		s.do(err)
		var got []string
		for _, x := range resp.GetSuggestions() {
			got = append(got, x.GetDirectory()+" "+x.GetFound())
		}
		if want := []string{". index.html", "public public/index.html"}; !slices.Equal(got, want) {
			t.Errorf("suggested %q, want %q", got, want)
		}
	}
	if n, routes := s.calls(); n != 1 {
		t.Errorf("%d calls for one commit: %v", n, routes)
	}
	if _, err := r.SuggestServe(s.ctx(), &repov1.SuggestServeRequest{Workspace: workspace, Repository: id, Commit: "main"}); !apierr.Has(err, apierr.ReasonInvalidArgument) {
		t.Errorf("a branch's name: %v", err)
	}
}
