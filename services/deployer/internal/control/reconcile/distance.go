package reconcile

import (
	"context"
	"errors"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/heads"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/uploadpack"
	records "devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// Distances tells how far a commit is from an older one; heads.ErrNoDistance where Bitbucket's git does not.
type Distances interface {
	Distance(ctx context.Context, workspace, fullName, older, newer string) (uploadpack.Distance, error)
}

// maxDistances is how many distances one poll asks for: two questions each.
const maxDistances = 10

// pair is what a distance is between.
type pair struct{ live, head string }

// uncounted is what is to be counted of an app: how far its branch is from what is live, where that says
// something and was not counted. What was asked for within the last interval will as a rule be live before
// anybody has read a number.
func (r *Reconciler) uncounted(a *storev1.App, l *storev1.Lane) (p pair, ok bool) {
	_, head := records.WatchedHead(a, l)
	p = pair{l.GetLive().GetHash(), head.GetHash()}
	if p.live == "" || p.head == "" || p.live == p.head || lane.DistanceTo(l, p.head) != nil {
		return p, false
	}
	for _, job := range []*storev1.Job{l.GetRunning().GetJob(), l.GetWaiting()} {
		if job != nil && r.cfg.Now().Sub(job.GetAskTime().AsTime()) < r.cfg.Interval {
			return p, false
		}
	}
	return p, true
}

// count notes how far an app's branch is from what is live. l is the lane after the poll's decisions. What
// cannot be counted now is left to the next poll.
func (r *Reconciler) count(ctx context.Context, s seen, l *storev1.Lane, poll *polling) {
	p, ok := r.uncounted(s.app, l)
	if r.cfg.Distances == nil || !ok {
		return
	}
	d := poll.distances[p]
	if d == nil {
		if len(poll.distances) == maxDistances {
			poll.again(r.cfg.Now().Add(r.cfg.Interval))
			return
		}
		d = &storev1.Distance{Live: p.live, Head: p.head}
		got, err := r.cfg.Distances.Distance(ctx, s.key.Workspace, poll.name, p.live, p.head)
		if err != nil && !errors.Is(err, heads.ErrNoDistance) {
			r.cfg.Logger.DebugContext(ctx, "commits not counted", logs.Err(err))
			return
		}
		d.Commits, d.Diverged, d.Unknown = int32(got.Commits), got.Apart, err != nil //nolint:gosec // at most maxCommits
		poll.distances[p] = d
	}
	if _, err := r.cfg.Dispatcher.Change(ctx, s.key, func(l *storev1.Lane) error { return lane.NoteDistance(l, d) }); err != nil {
		r.cfg.Logger.DebugContext(ctx, "counted commits not noted", logs.Err(err))
	}
}

// Settled is told of a lane in which nothing runs or waits: where its branch is behind by a number of commits
// that nobody has counted, its repository is polled soon.
func (r *Reconciler) Settled(ctx context.Context, k lane.Key, l *storev1.Lane) {
	if r.cfg.Distances == nil || l.GetLive() == nil {
		return
	}
	apps, err := r.cfg.Copies.Apps.AtLeast(ctx, 0)
	if err != nil {
		return // the usual poll counts
	}
	a, _, err := apps.Get(ctx, k.String())
	if err != nil || a.GetGeneration() != l.GetGeneration() {
		return
	}
	if _, ok := r.uncounted(a, l); !ok {
		return
	}
	key := records.RepositoryKey(k.Workspace, a.GetRepository())
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watched[key] != nil {
		r.behind[key] = true
		r.loop.Set(key, r.cfg.Now())
	}
}
