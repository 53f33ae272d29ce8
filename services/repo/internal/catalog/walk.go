package catalog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/when"
)

// retryPause is about how long a Bitbucket workspace that failed is left alone before its second
// try.
const retryPause = 300 * time.Millisecond

// walk lists everything an account can reach: Bitbucket has no single call for it (BITBUCKET.md#lists-that-are-gone).
// It can be asked for what it has so far while it goes on.
type walk struct {
	account    *bitbucket.Account
	connection string
	allows     func(bitbucketWorkspace string) bool // nil: all
	began      time.Time
	// previous lends its repositories where a workspace fails for the moment; nil for none.
	previous *Snapshot

	mu         sync.Mutex
	listed     bool // the workspaces are known
	workspaces []bitbucket.WorkspaceAccess
	parts      []*part // of each workspace; nil while it is being listed
}

// part is one Bitbucket workspace of the list.
type part struct {
	repositories []Repository
	failures     []Failure
	err          error // why nothing could be listed
}

// run walks. It fails only where the whole list fails: the workspaces cannot be listed, the
// connection is at fault, or no workspace could be listed at all.
func (w *walk) run(ctx context.Context) (*Snapshot, error) {
	workspaces, err := w.account.Workspaces(ctx)
	if err != nil {
		return nil, fmt.Errorf("list Bitbucket workspaces: %w", err)
	}
	unique := uniqueWorkspaces(workspaces.Values)
	all := len(unique)
	if w.allows != nil {
		unique = slices.DeleteFunc(unique, func(ws bitbucket.WorkspaceAccess) bool { return !w.allows(ws.UUID) })
	}
	w.mu.Lock()
	w.listed, w.workspaces, w.parts = true, unique, make([]*part, len(unique))
	w.mu.Unlock()

	g, gctx := errgroup.WithContext(ctx)
	for i, ws := range unique {
		g.Go(func() error {
			p := w.workspace(gctx, ws)
			if connectionFault(p.err) {
				return p.err // the others would fail the same way
			}
			w.mu.Lock()
			w.parts[i] = p
			w.mu.Unlock()
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := w.allFailed(); err != nil {
		return nil, err
	}
	s := w.snapshot()
	switch {
	case workspaces.Skipped > 0:
		s.Failures = append(s.Failures, skipped("", workspaces.Skipped, "Bitbucket workspaces", "your account"))
	case workspaces.Size > all:
		s.Failures = append(s.Failures, Failure{Reason: apierr.ReasonBitbucketUnavailable, Message: fmt.Sprintf(
			"Bitbucket says that there are %d Bitbucket workspaces but listed %d. Repositories may be missing; refresh the list in a minute.", workspaces.Size, all)})
	}
	return s, nil
}

// skipped says that entries of a listing could not be read; the others are there.
func skipped(workspace string, n int, what, where string) Failure {
	return Failure{Workspace: workspace, Reason: apierr.ReasonBitbucketUnavailable, Message: fmt.Sprintf(
		"Bitbucket described %d of the %s of %s in a way that cannot be read; they are left out. If one of them is missing here, paste its URL, or look at it at Bitbucket.", n, what, where)}
}

func uniqueWorkspaces(list []bitbucket.WorkspaceAccess) []bitbucket.WorkspaceAccess {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(list), func(ws bitbucket.WorkspaceAccess) bool {
		id := ws.UUID + "/" + ws.Slug
		double := seen[id]
		seen[id] = true
		return double
	})
}

// connectionFault tells errors that are about the connection as a whole from those of one
// workspace: what Bitbucket answers to a call is about that call, whatever it says.
func connectionFault(err error) bool {
	if kind, answered := bitbucket.KindOf(err); answered && kind != bitbucket.KindUnauthorized {
		return false
	}
	switch apierr.ReasonOf(err) {
	case apierr.ReasonNotConnected, apierr.ReasonTokenExpired, apierr.ReasonReconnectRequired, apierr.ReasonScopeMissing,
		apierr.ReasonConsumerRefused:
		return true
	default:
		return false
	}
}

// allFailed returns the error of a walk that found nothing but errors.
func (w *walk) allFailed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.parts {
		if p.err == nil {
			return nil
		}
	}
	if len(w.parts) == 0 {
		return nil
	}
	return fmt.Errorf("no Bitbucket workspace could be listed: %w", w.parts[0].err)
}

// workspace lists one Bitbucket workspace; once more after a moment when that failed for a reason
// that may pass, or when the count is not what Bitbucket said.
func (w *walk) workspace(ctx context.Context, ws bitbucket.WorkspaceAccess) *part {
	p, again := w.try(ctx, ws)
	if !again {
		return p
	}
	select {
	case <-ctx.Done():
		return p
	case <-time.After(retryPause/2 + rand.N(retryPause)):
	}
	second, _ := w.try(ctx, ws)
	if second.err != nil && p.err == nil {
		return p // an incomplete list is better than none
	}
	return second
}

// try lists one Bitbucket workspace: its repositories and, at the same time, what the account may
// do with them.
func (w *walk) try(ctx context.Context, ws bitbucket.WorkspaceAccess) (p *part, again bool) {
	var (
		repositories bitbucket.Listing[bitbucket.Repository]
		permissions  bitbucket.Listing[bitbucket.RepositoryPermission]
		repoErr      error
		permErr      error
		wg           sync.WaitGroup
	)
	wg.Go(func() {
		repositories, repoErr = w.account.Repositories(ctx, ws.Workspace, bitbucket.RepositoriesOptions{Role: bitbucket.RoleMember})
	})
	wg.Go(func() { permissions, permErr = w.account.RepositoryPermissions(ctx, ws.Workspace, "") })
	wg.Wait()

	p = &part{}
	if repoErr != nil {
		p.err = fmt.Errorf("list repositories of %s: %w", ws.Label(), repoErr)
		return p, worthRetrying(repoErr)
	}
	rights := make(map[string]bitbucket.Permission, len(permissions.Values))
	for _, r := range permissions.Values {
		rights[r.RepositoryUUID] = r.Permission
	}
	seen := make(map[string]bool, len(repositories.Values))
	for _, r := range repositories.Values {
		if seen[r.UUID] {
			continue
		}
		seen[r.UUID] = true
		if r.Workspace.UUID == "" {
			r.Workspace = ws.Workspace
		}
		p.repositories = append(p.repositories, repositoryOf(r, rights[r.UUID]))
	}
	if permErr != nil {
		if connectionFault(permErr) {
			p.err = permErr
			return p, false
		}
		f := failureOf(ws.Slug, permErr)
		f.Message = fmt.Sprintf("Whether webhooks can be registered in %s is not known. %s", ws.Label(), f.Message)
		p.failures = append(p.failures, f)
		again = worthRetrying(permErr)
	}
	if n := repositories.Skipped; n > 0 {
		p.failures = append(p.failures, skipped(ws.Slug, n, "repositories", ws.Label()))
	}
	if n := repositories.Size; n >= 0 && n != len(seen)+repositories.Skipped {
		p.failures = append(p.failures, Failure{Workspace: ws.Slug, Reason: apierr.ReasonBitbucketUnavailable, Message: fmt.Sprintf(
			"Bitbucket says that there are %d repositories in %s but listed %d. Some may be missing; refresh the list in a minute.", n, ws.Label(), len(seen))})
		again = true
	}
	return p, again
}

// worthRetrying: what may pass in a moment. A rate limit does not, and trying would make it worse.
func worthRetrying(err error) bool {
	return bitbucket.IsKind(err, bitbucket.KindUnavailable, bitbucket.KindNetwork, bitbucket.KindBadResponse) &&
		!errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// soFar is the list as far as the walk has come; nil while not even the workspaces are known.
func (w *walk) soFar() *Snapshot {
	w.mu.Lock()
	listed := w.listed
	w.mu.Unlock()
	if !listed {
		return nil
	}
	s := w.snapshot()
	s.Partial = true
	return s
}

// snapshot puts the parts together. Parts that failed for the moment are filled from the previous
// snapshot, and say so; parts that are not there yet are failures, too.
func (w *walk) snapshot() *Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &Snapshot{Connection: w.connection, FetchTime: w.began}
	seen := map[string]bool{}
	add := func(list []Repository) {
		for _, r := range list {
			if !seen[r.ID] {
				seen[r.ID] = true
				s.Repositories = append(s.Repositories, r)
			}
		}
	}
	for _, p := range w.parts {
		if p != nil && p.err == nil {
			add(p.repositories)
			s.Failures = append(s.Failures, p.failures...)
		}
	}
	for i, p := range w.parts {
		ws := w.workspaces[i].Workspace
		switch {
		case p == nil:
			s.Failures = append(s.Failures, Failure{Workspace: ws.Slug, Reason: apierr.ReasonTimeout,
				Message: fmt.Sprintf("Bitbucket is still sending the repositories of %s. Ask again in a few seconds.", ws.Label())})
		case p.err != nil:
			f := failureOf(ws.Slug, p.err)
			if older := w.earlier(ws.UUID, p.err); len(older) > 0 {
				add(older)
				f.Message += fmt.Sprintf(" Its repositories are shown as they were at %s.", when.UTC(w.previous.FetchTime))
			}
			s.Failures = append(s.Failures, f)
		}
	}
	sortRepositories(s.Repositories)
	return s
}

// earlier returns what the previous snapshot has of a Bitbucket workspace that failed for the
// moment. One that the account may no longer list is not shown any more.
func (w *walk) earlier(workspaceID string, err error) []Repository {
	var e *bitbucket.Error
	if w.previous == nil || !errors.As(err, &e) || !e.Temporary() {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(w.previous.Repositories), func(r Repository) bool { return r.WorkspaceID != workspaceID })
}
