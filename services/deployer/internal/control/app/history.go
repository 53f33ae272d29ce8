package app

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

const (
	// scan is how many records a filtered page examines at most where they come from the leader; it
	// may then come back short.
	scan = 500
	// getters is how many records are read from the leader at once.
	getters = 8
)

// Filter narrows a history.
type Filter struct {
	Apps    identity.Apps                 // those of the history of all apps
	States  []deployerv1.Deployment_State // any of them; none: all
	Branch  string
	Trigger deployerv1.Deployment_Trigger
	Commit  string // a prefix
	After   *timestamppb.Timestamp
	Before  *timestamppb.Timestamp
}

func (f Filter) matches(d *store.DeploymentSummary) bool {
	switch {
	case len(f.States) > 0 && !slices.Contains(f.States, d.State),
		f.Branch != "" && d.Branch != f.Branch,
		f.Trigger != deployerv1.Deployment_TRIGGER_UNSPECIFIED && d.Trigger != f.Trigger,
		f.Commit != "" && !strings.HasPrefix(d.Hash, strings.ToLower(f.Commit)),
		f.After != nil && d.Created.Before(f.After.AsTime()),
		f.Before != nil && !d.Created.Before(f.Before.AsTime()):
		return false
	}
	return true
}

// Deployment returns one deployment.
func (s *Service) Deployment(ctx context.Context, k lane.Key, number int32) (*deployerv1.Deployment, error) {
	r, err := s.history(ctx)
	if err != nil {
		return nil, err
	}
	a, l, err := r.laneOf(ctx, k)
	if err != nil {
		return nil, err
	}
	d, err := s.deployment(ctx, r, k, a, l, number)
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, noDeployment(k, number)
	}
	return d, nil
}

// Generation is the generation of the app's lane: its log lines carry it.
func (s *Service) Generation(ctx context.Context, k lane.Key) (int64, error) {
	r, err := s.read(ctx)
	if err != nil {
		return 0, err
	}
	_, l, err := r.laneOf(ctx, k)
	return l.GetGeneration(), err
}

// laneOf reads the lane of an app that must be there from the leader, to decide something.
func (s *Service) laneOf(ctx context.Context, k lane.Key) (*storev1.Lane, error) {
	if _, _, err := s.load(ctx, k); err != nil {
		return nil, err
	}
	l, _, err := s.cfg.Dispatcher.Get(ctx, k)
	return l, err
}

// deployment reads a record and fills in what the lane knows; nil when there is none. A record that
// the lane's outbox still holds is made up from there: the decision counts, not what was written.
func (s *Service) deployment(ctx context.Context, r *reading, k lane.Key, a *storev1.App, l *storev1.Lane, number int32) (*deployerv1.Deployment, error) {
	if number < 1 || number > l.GetLastNumber() {
		return nil, nil
	}
	rec, rev, err := r.deployments.Get(ctx, k.Record(number))
	if err != nil && !isAbsent(err) {
		return nil, fmt.Errorf("app: read deployment %s/%d: %w", k, number, err)
	}
	if lane.Terminal(rec.GetDeployment().GetState()) && l.GetRunning().GetJob().GetNumber() == number {
		// It ended after the lane was read: what is live, and kept, by then is in the lane of now.
		if l, _, err = s.cfg.Dispatcher.Get(ctx, k); err != nil {
			return nil, err
		}
	}
	for _, c := range l.GetOutbox() {
		if c.GetNumber() == number {
			rec, _ = lane.Apply(rec, k.Workspace, k.App, l.GetGeneration(), c)
		}
	}
	if rec.GetGeneration() != l.GetGeneration() {
		return nil, nil
	}
	d := proto.CloneOf(rec.GetDeployment())
	d.Etag = Etag(rev)
	if lane.Terminal(d.GetState()) {
		d.CancelTime = nil // nobody waits for it to stop any more; cancelled_by says who asked
	}
	if e := d.GetError(); e != nil && d.GetState() != deployerv1.Deployment_FAILED { // a person's wish is no fault
		d.Error = nil
		if e.GetMessage() != lane.CancelMessage(d.GetCancelledBy()) {
			d.Notes = append(d.Notes, e.GetMessage())
		}
	}
	d.Live = l.GetLive().GetNumber() == number && !l.GetLive().GetLost()
	for _, kept := range l.GetKept() {
		if kept.GetNumber() == number && (d.GetLive() || number != l.GetLive().GetNumber()) {
			d.ReleaseKept = true
		}
	}
	if d.GetReleaseKept() && s.cfg.Live != nil && served(a, l, number) {
		d.ReleaseUrl = s.cfg.Live(k.Workspace, k.App, number)
	}
	if d.GetState() == deployerv1.Deployment_PENDING && d.GetWaitingFor() == nil {
		d.WaitingFor = s.offline(d.GetServer())
	}
	return d, nil
}

// Deployments returns a page of the history, newest first, beginning below the number before (0:
// at the newest), and the number to go on below, 0 at the end.
func (s *Service) Deployments(ctx context.Context, k lane.Key, f Filter, before int32, size int) (page []*deployerv1.Deployment, next int32, err error) {
	r, err := s.history(ctx)
	if err != nil {
		return nil, 0, err
	}
	a, l, err := r.laneOf(ctx, k)
	if err != nil {
		return nil, 0, err
	}
	if before == 0 || before > l.GetLastNumber()+1 {
		before = l.GetLastNumber() + 1
	}
	h := pastOf{s: s, reading: r, key: k, app: a, lane: l, filter: f}
	if r.deployments.FromCopy() {
		return h.fromCopy(ctx, before-1, size)
	}
	return h.fromLeader(ctx, before-1, size)
}

// pastOf looks through an app's history.
type pastOf struct {
	s       *Service
	reading *reading
	key     lane.Key
	app     *storev1.App
	lane    *storev1.Lane
	filter  Filter
}

// fromCopy returns a full page, however many deployments do not match: their summaries are in memory.
func (h *pastOf) fromCopy(ctx context.Context, n int32, size int) (page []*deployerv1.Deployment, next int32, err error) {
	changing := map[int32]bool{} // the copy has them as they were
	for _, c := range h.lane.GetOutbox() {
		changing[c.GetNumber()] = true
	}
	for ; n >= 1; n-- {
		if !changing[n] {
			sum, ok := h.reading.deployments.Summary(h.key.Record(n))
			if d, is := sum.(*store.DeploymentSummary); ok && is && (d.Generation != h.lane.GetGeneration() || !h.filter.matches(d)) {
				continue
			}
		}
		d, err := h.at(ctx, n)
		if err != nil {
			return nil, 0, err
		}
		if d == nil {
			continue
		}
		if page = append(page, d); len(page) == size {
			return page, nextBelow(n - 1), nil
		}
	}
	return page, 0, nil
}

// at returns a deployment that matches, or nil.
func (h *pastOf) at(ctx context.Context, number int32) (*deployerv1.Deployment, error) {
	d, err := h.s.deployment(ctx, h.reading, h.key, h.app, h.lane, number)
	if err != nil || d == nil || !h.filter.matches(store.Summarize(h.lane.GetGeneration(), d)) {
		return nil, err
	}
	return d, nil
}

// fromLeader examines a bounded number of records.
func (h *pastOf) fromLeader(ctx context.Context, n int32, size int) (page []*deployerv1.Deployment, next int32, err error) {
	for examined := 0; n >= 1 && examined < scan; {
		ds := make([]*deployerv1.Deployment, min(int(n), size, scan-examined))
		err := each(len(ds), false, func(i int) (err error) {
			ds[i], err = h.at(ctx, n-int32(i)) // a page is small
			return err
		})
		if err != nil {
			return nil, 0, err
		}
		for _, d := range ds {
			n--
			examined++
			if d == nil {
				continue
			}
			if page = append(page, d); len(page) == size {
				return page, nextBelow(n), nil
			}
		}
	}
	return page, nextBelow(n), nil
}

func nextBelow(n int32) int32 {
	if n < 1 {
		return 0
	}
	return n + 1
}

// each calls fn for 0 to n-1 and returns the first error: several at once, unless it is all memory.
func each(n int, memory bool, fn func(i int) error) error {
	if memory {
		for i := range n {
			if err := fn(i); err != nil {
				return err
			}
		}
		return nil
	}
	var g errgroup.Group
	g.SetLimit(getters)
	for i := range n {
		g.Go(func() error { return fn(i) })
	}
	return g.Wait()
}
