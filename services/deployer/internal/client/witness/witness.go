// Package witness asks Bitbucket's REST API about what git says: an answer "not found", or one that is
// no answer, may be a passing untruth. What git says is believed only while the rest is well.
//
// Depends on the interface below.
package witness

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"devpilot.io/bitbucket/pkg/apierr"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
)

// Repositories is the repo service. It says that a repository is not found only where the account
// itself is.
type Repositories interface {
	Repository(ctx context.Context, workspace, repository string) (*repov1.Repository, error)
	Head(ctx context.Context, workspace, repository, branch string) (string, error)
}

const (
	// fresh is how long an answer is used again: the REST API's budget is small (BITBUCKET.md#budgets).
	fresh = 20 * time.Second
	// timeout bounds a question.
	timeout = 10 * time.Second
	// most bounds the answers that are kept.
	most = 4096
)

// Witness is safe for concurrent use.
type Witness struct {
	Repositories Repositories
	Now          func() time.Time

	asking singleflight.Group
	mu     sync.Mutex
	heard  map[question]answer
}

type question struct{ workspace, repository, branch string }

type answer struct {
	at  time.Time
	err error
}

// Well tells whether all but what failed is well. confirmed says that the REST API says the same of what
// failed: that the repository, or the branch, is not to be found.
func (w *Witness) Well(ctx context.Context, workspace, repository, branch, reason string) (well, confirmed bool) {
	switch apierr.Reason(reason) {
	case apierr.ReasonRepositoryNotFound:
		// That the API has the repository says that git is wrong.
		gone := apierr.Has(w.ask(ctx, question{workspace, repository, ""}), apierr.ReasonRepositoryNotFound)
		return gone, gone
	case apierr.ReasonBranchNotFound:
		gone := apierr.Has(w.ask(ctx, question{workspace, repository, branch}), apierr.ReasonBranchNotFound)
		return gone, gone
	default:
		err := w.ask(ctx, question{workspace, repository, ""})
		refused := apierr.Has(err, apierr.ReasonAccessRefused) // about the repository; the token is good
		return err == nil || refused, refused && reason == string(apierr.ReasonAccessRefused)
	}
}

// Empty tells whether the REST API says that a repository has no branches at all.
func (w *Witness) Empty(ctx context.Context, workspace, repository string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := w.Repositories.Repository(ctx, workspace, repository)
	return r.GetMainBranch() == "", err
}

// ask puts a question, once for all who ask it at a time.
func (w *Witness) ask(ctx context.Context, q question) error {
	_, err, _ := w.asking.Do(q.workspace+"\n"+q.repository+"\n"+q.branch, func() (any, error) {
		if err, known := w.known(q); known {
			return nil, err
		}
		return nil, w.live(context.WithoutCancel(ctx), q)
	})
	return err
}

// known is what was heard a moment ago of the same, or of all of the workspace.
func (w *Witness) known(q question) (error, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, known := range []question{q, {workspace: q.workspace}} {
		if a, ok := w.heard[known]; ok && w.Now().Sub(a.at) < fresh {
			return a.err, true
		}
	}
	return nil, false
}

func (w *Witness) live(ctx context.Context, q question) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var err error
	if q.branch != "" {
		_, err = w.Repositories.Head(ctx, q.workspace, q.repository, q.branch)
	} else {
		_, err = w.Repositories.Repository(ctx, q.workspace, q.repository)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.heard) >= most || w.heard == nil {
		w.heard = map[question]answer{}
	}
	about := q
	if err != nil && !aboutOne(err) {
		about = question{workspace: q.workspace} // the API is away, not the repository
	}
	w.heard[about] = answer{at: w.Now(), err: err}
	return err
}

// aboutOne tells the refusals that are about a repository or a branch, and say nothing of others.
func aboutOne(err error) bool {
	return slices.Contains([]apierr.Reason{apierr.ReasonRepositoryNotFound, apierr.ReasonBranchNotFound, apierr.ReasonAccessRefused, apierr.ReasonAccessRestricted}, apierr.ReasonOf(err))
}
