package app

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

const (
	// scan is how many records a filtered page examines at most; it may then come back short.
	scan = 500
	// getters is how many records are read at once.
	getters = 8
)

// Filter narrows a history.
type Filter struct {
	State   deployerv1.Deployment_State
	Branch  string
	Trigger deployerv1.Deployment_Trigger
	Commit  string // a prefix
	After   *timestamppb.Timestamp
	Before  *timestamppb.Timestamp
}

func (f Filter) matches(d *deployerv1.Deployment) bool {
	made := d.GetCreateTime().AsTime()
	switch {
	case f.State != deployerv1.Deployment_STATE_UNSPECIFIED && d.GetState() != f.State,
		f.Branch != "" && d.GetBranch() != f.Branch,
		f.Trigger != deployerv1.Deployment_TRIGGER_UNSPECIFIED && d.GetTrigger() != f.Trigger,
		f.Commit != "" && !strings.HasPrefix(d.GetCommit().GetHash(), strings.ToLower(f.Commit)),
		f.After != nil && made.Before(f.After.AsTime()),
		f.Before != nil && !made.Before(f.Before.AsTime()):
		return false
	}
	return true
}

// Deployment returns one deployment.
func (s *Service) Deployment(ctx context.Context, k lane.Key, number int32) (*deployerv1.Deployment, error) {
	l, err := s.laneOf(ctx, k)
	if err != nil {
		return nil, err
	}
	d, err := s.deployment(ctx, k, l, number)
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, apierr.Newf(apierr.ReasonDeploymentNotFound, "App %s has no deployment %d.", k.App, number)
	}
	return d, nil
}

// Generation is the generation of the app's lane: its log lines carry it.
func (s *Service) Generation(ctx context.Context, k lane.Key) (int64, error) {
	l, err := s.laneOf(ctx, k)
	return l.GetGeneration(), err
}

// laneOf reads the lane of an app that must be there.
func (s *Service) laneOf(ctx context.Context, k lane.Key) (*storev1.Lane, error) {
	if _, _, err := s.load(ctx, k); err != nil {
		return nil, err
	}
	l, _, err := s.cfg.Keeper.Get(ctx, k)
	return l, err
}

// deployment reads a record and fills in what the lane knows; nil when there is none. A record that
// the lane's outbox still holds is made up from there: the decision counts, not the copy.
func (s *Service) deployment(ctx context.Context, k lane.Key, l *storev1.Lane, number int32) (*deployerv1.Deployment, error) {
	if number < 1 || number > l.GetLastNumber() {
		return nil, nil
	}
	rec, rev, err := s.cfg.Store.Deployments.Get(ctx, k.Record(number))
	if err != nil && !isAbsent(err) {
		return nil, fmt.Errorf("app: read deployment %s/%d: %w", k, number, err)
	}
	if lane.Terminal(rec.GetDeployment().GetState()) && l.GetRunning().GetJob().GetNumber() == number {
		// It ended after the lane was read: what is live, and kept, by then is in the lane of now.
		if l, _, err = s.cfg.Keeper.Get(ctx, k); err != nil {
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
	d.Live = l.GetLive().GetNumber() == number
	for _, kept := range l.GetKept() {
		if kept.GetNumber() == number {
			d.ReleaseKept = true
		}
	}
	if d.GetReleaseKept() && s.cfg.Live != nil {
		a, _, err := s.load(ctx, k)
		if err != nil {
			return nil, err
		}
		if served(a, l, number) {
			d.ReleaseUrl = s.cfg.Live(k.Workspace, k.App, number)
		}
	}
	if d.GetState() == deployerv1.Deployment_PENDING && d.GetWaitingFor() == nil {
		d.WaitingFor = s.offline(d.GetServer())
	}
	return d, nil
}

// offline says that nobody serves a server, nil when somebody does.
func (s *Service) offline(server string) *deployerv1.DeploymentError {
	since, offline := s.cfg.Servers.Offline(server)
	if !offline {
		return nil
	}
	seen := "No deployer has served it yet"
	if !since.IsZero() {
		seen = "The last one was seen at " + since.UTC().Format("2006-01-02 15:04:05") + " UTC"
	}
	return &deployerv1.DeploymentError{Reason: "SERVER_OFFLINE", Message: fmt.Sprintf("No deployer serves server %s at the moment. %s. Start one with --server %s.", server, seen, server)}
}

// Deployments returns a page of the history, newest first, beginning below the number before (0:
// at the newest), and the number to go on below, 0 at the end.
func (s *Service) Deployments(ctx context.Context, k lane.Key, f Filter, before int32, size int) (page []*deployerv1.Deployment, next int32, err error) {
	l, err := s.laneOf(ctx, k)
	if err != nil {
		return nil, 0, err
	}
	if before == 0 || before > l.GetLastNumber()+1 {
		before = l.GetLastNumber() + 1
	}
	n := before - 1
	for examined := 0; n >= 1 && examined < scan; {
		count := min(int(n), size, scan-examined)
		ds, err := s.read(ctx, k, l, n, count)
		if err != nil {
			return nil, 0, err
		}
		for _, d := range ds {
			n--
			examined++
			if d == nil || !f.matches(d) {
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

// read reads count records from number from downwards.
func (s *Service) read(ctx context.Context, k lane.Key, l *storev1.Lane, from int32, count int) ([]*deployerv1.Deployment, error) {
	out := make([]*deployerv1.Deployment, count)
	err := each(count, func(i int) (err error) {
		out[i], err = s.deployment(ctx, k, l, from-int32(i)) //nolint:gosec // a page is small
		return err
	})
	return out, err
}

// each calls fn for 0 to n-1, several at once, and returns the first error.
func each(n int, fn func(i int) error) error {
	var wg sync.WaitGroup
	var once sync.Once
	var first error
	slots := make(chan struct{}, getters)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := fn(i); err != nil {
				once.Do(func() { first = err })
			}
		})
	}
	wg.Wait()
	return first
}
