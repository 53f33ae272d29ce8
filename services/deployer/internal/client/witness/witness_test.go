package witness

import (
	"context"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
)

// rest is a REST API with one answer.
type rest struct {
	err   error
	calls int
}

func (r *rest) Repository(context.Context, string, string) (*repov1.Repository, error) {
	r.calls++
	return &repov1.Repository{}, r.err
}

func (r *rest) Head(context.Context, string, string, string) (string, error) {
	r.calls++
	return "", r.err
}

func TestWell_whatTheRESTAPISaysOfGitsRefusals(t *testing.T) {
	refuse := func(r apierr.Reason) error { return apierr.New(r, "No.") }
	for _, c := range []struct {
		reason          string
		err             error
		well, confirmed bool
	}{
		{"REPOSITORY_NOT_FOUND", nil, false, false}, // it is there: git is wrong
		{"REPOSITORY_NOT_FOUND", refuse(apierr.ReasonRepositoryNotFound), true, true},
		{"REPOSITORY_NOT_FOUND", refuse(apierr.ReasonBitbucketUnavailable), false, false},
		{"BRANCH_NOT_FOUND", nil, false, false},
		{"BRANCH_NOT_FOUND", refuse(apierr.ReasonBranchNotFound), true, true},
		{"BRANCH_NOT_FOUND", refuse(apierr.ReasonRepositoryNotFound), false, false},
		{"BRANCH_NOT_FOUND", refuse(apierr.ReasonTokenExpired), false, false},
		{"GIT_FAILED", nil, true, false},
		{"GIT_FAILED", refuse(apierr.ReasonBitbucketUnavailable), false, false},
		{"ACCESS_REFUSED", nil, true, false},
		{"ACCESS_REFUSED", refuse(apierr.ReasonAccessRefused), true, true},
		{"ACCESS_REFUSED", refuse(apierr.ReasonTokenExpired), false, false},
	} {
		w := &Witness{Repositories: &rest{err: c.err}, Now: time.Now}
		if well, confirmed := w.Well(t.Context(), "acme-inc", "r", "main", c.reason); well != c.well || confirmed != c.confirmed {
			t.Errorf("%s, %v: %v %v", c.reason, c.err, well, confirmed)
		}
	}
}

// TestWell_asksSeldom: the REST API's budget is small. That it is away answers for all of a workspace.
func TestWell_asksSeldom(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	api := &rest{err: apierr.New(apierr.ReasonBitbucketUnavailable, "No.")}
	w := &Witness{Repositories: api, Now: func() time.Time { return now }}
	ask := func(workspace, repository string, calls int) {
		t.Helper()
		w.Well(t.Context(), workspace, repository, "", "GIT_FAILED")
		if api.calls != calls {
			t.Errorf("%d calls, want %d", api.calls, calls)
		}
	}
	ask("a", "1", 1)
	ask("a", "1", 1)
	ask("a", "2", 1) // away
	ask("b", "1", 2) // another connection
	now = now.Add(fresh)
	api.err = apierr.New(apierr.ReasonRepositoryNotFound, "No.")
	ask("a", "1", 3)
	ask("a", "2", 4) // that one is not found says nothing of the other
	ask("a", "1", 4)
}
