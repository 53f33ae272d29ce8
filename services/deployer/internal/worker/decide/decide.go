// Package decide decides about pushes whose rules need the repository: the lanes' candidates. It has
// slots of its own, so that no deployment waits for a decision, and shares them fairly: a workspace whose
// git stalls holds up nobody else's.
//
// A wake-up only says that a lane has candidates, and is acknowledged as soon as it is remembered: the
// candidates stand in the lane, and the janitor wakes again for those that a dead process left.
//
// Depends on internal/record/lane, internal/record/policy and the interfaces below.
package decide

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/tracing"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/policy"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// Apps reads what people saved; APP_NOT_FOUND when it is gone.
type Apps interface {
	App(ctx context.Context, k lane.Key) (*storev1.App, error)
}

// Config is what a Decider needs.
type Config struct {
	Server     string
	Dispatcher *lane.Dispatcher
	Apps       Apps
	Git        policy.Git
	// Head asks Bitbucket where a branch or tag is; nil where nobody can be asked.
	Head   func(ctx context.Context, workspace, repository string, ref lane.Ref) (string, error)
	Logger *slog.Logger
	Now    func() time.Time
	// Tell tells the deliveries of a lane's candidates that they are being decided about; nil where nobody
	// is to hear of it.
	Tell func(ctx context.Context, k lane.Key, l *storev1.Lane) error
	// Tracer records decisions; may be nil.
	Tracer trace.Tracer
	// Count counts what comes of pushes, in the words of package verdict; nil: nobody does.
	Count func(verdict string)
	// Timeout bounds what git is asked about one lane's candidates; policy.Timeout when zero.
	Timeout time.Duration
}

// Decider is safe for concurrent use.
type Decider struct {
	cfg Config

	mu     sync.Mutex
	shares *shares
	known  map[lane.Key]*pending // lanes that wait or are decided about now
}

// pending is a lane that waits or is decided about now.
type pending struct {
	again bool        // it is to be decided once more
	tell  *time.Timer // tells its deliveries, unless it is decided about before
}

// tellAfter is how long a decision may take until its delivery hears that there will be one.
const tellAfter = time.Second

// New makes a decider; Run has it work.
func New(cfg Config) *Decider {
	if cfg.Timeout == 0 {
		cfg.Timeout = policy.Timeout
	}
	return &Decider{cfg: cfg, known: map[lane.Key]*pending{}}
}

// Run decides about the lanes it is told of, until ctx is done. Then it wakes others for what is left.
func (d *Decider) Run(ctx context.Context) error {
	s := newShares(ctx)
	d.mu.Lock()
	d.shares = s
	for k := range d.known {
		d.submit(k)
	}
	d.mu.Unlock()
	<-ctx.Done()
	s.wait()
	d.mu.Lock()
	left := d.known
	d.known, d.shares = map[lane.Key]*pending{}, nil
	d.mu.Unlock()
	for _, p := range left {
		p.tell.Stop()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	for k := range left {
		if err := d.cfg.Dispatcher.Waker.WakeDecider(ctx, d.cfg.Server, k); err != nil {
			break // the janitor wakes for them, a little later
		}
	}
	return nil
}

// lastWords bounds what a process that stops still tells others.
const lastWords = 2 * time.Second

// Wake remembers that a lane has candidates.
func (d *Decider) Wake(k lane.Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.known[k]; p != nil {
		p.again = true
		return
	}
	d.known[k] = &pending{tell: time.AfterFunc(tellAfter, func() { d.undecided(k) })}
	if d.shares != nil {
		d.submit(k)
	}
}

func (d *Decider) submit(k lane.Key) {
	d.shares.submit(k.Workspace, func(ctx context.Context) { d.lane(ctx, k) })
}

// Check tells, when it is the workspace's turn, what would come of a push; nil when it cannot.
func (d *Decider) Check(q *storev1.PushQuestion, reply func(*deployerv1.CheckPushResponse)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shares == nil {
		reply(nil)
		return
	}
	a := q.GetApp()
	d.shares.submit(a.GetWorkspace(), func(ctx context.Context) {
		git := policy.Within(d.cfg.Git, d.cfg.Now().Add(d.cfg.Timeout))
		v, err := policy.Decide(ctx, git, a, policy.Of(nil, lane.FromCandidate(q.GetPush())))
		if err != nil {
			reply(nil)
			return
		}
		reply(policy.Response(v))
	})
}

// lane decides about one lane's candidates. After trouble the lane is left to its watch.
func (d *Decider) lane(ctx context.Context, k lane.Key) {
	d.mu.Lock()
	p := d.known[k]
	p.again = false
	d.mu.Unlock()
	ctx = logs.WithAttrs(ctx, slog.String(logs.KeyWorkspace, k.Workspace), slog.String(logs.KeyApp, k.App))
	err := d.Decide(ctx, k)
	if ctx.Err() != nil {
		return // it stays known, and others are woken for it
	}
	if err != nil {
		d.cfg.Logger.WarnContext(ctx, "pushes not decided about, tried again later", logs.Err(err))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.again && d.shares != nil {
		d.submit(k)
		return
	}
	p.tell.Stop()
	delete(d.known, k)
}

// undecided tells a lane's deliveries that they are being decided about.
func (d *Decider) undecided(k lane.Key) {
	d.mu.Lock()
	shares := d.shares
	d.mu.Unlock()
	if d.cfg.Tell == nil || shares == nil {
		return
	}
	ctx, cancel := context.WithTimeout(shares.ctx, tellTimeout)
	defer cancel()
	l, _, err := d.cfg.Dispatcher.Get(ctx, k)
	if err == nil && lane.Undecided(l) {
		err = d.cfg.Tell(ctx, k, l)
	}
	if err != nil && shares.ctx.Err() == nil { // the janitor tells, a little later
		d.cfg.Logger.InfoContext(ctx, "deliveries not told that they are being decided about", slog.String(logs.KeyApp, k.App), logs.Err(err))
	}
}

// tellTimeout bounds the telling.
const tellTimeout = 10 * time.Second

// mostAtOnce is how many candidates of a lane are decided by one change of it.
const mostAtOnce = 32

// Decide decides about a lane's candidates, oldest first, until there are none.
func (d *Decider) Decide(ctx context.Context, k lane.Key) error {
	for {
		l, _, err := d.cfg.Dispatcher.Get(ctx, k)
		if err != nil {
			return err
		}
		if !lane.Undecided(l) {
			return d.cfg.Dispatcher.Flush(ctx, k, l)
		}
		plan, err := d.plan(ctx, k, l)
		if err != nil {
			return err
		}
		backlog, applied := false, 0
		now, err := d.cfg.Dispatcher.Change(ctx, k, func(now *storev1.Lane) error {
			backlog, applied = false, 0
			if now.GetRetired() || now.GetGeneration() != l.GetGeneration() {
				return lane.ErrSkip
			}
			for i, x := range plan {
				err := x.Apply(now)
				if err != nil && i > 0 {
					return nil // somebody else has decided about the rest, or it is decided anew
				}
				backlog = errors.Is(err, lane.ErrBacklog)
				if err != nil {
					return lane.ErrSkip
				}
				applied++
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, x := range plan[:applied] {
			d.tell(ctx, x)
			if d.cfg.Count != nil {
				d.cfg.Count(x.Verdict())
			}
		}
		if backlog {
			err = d.cfg.Dispatcher.Flush(ctx, k, now)
		} else {
			err = d.cfg.Dispatcher.Start(ctx, k, now)
		}
		if err != nil {
			return err
		}
	}
}

// tell logs a decision. Of one about what was found by looking no delivery tells.
func (d *Decider) tell(ctx context.Context, x *policy.Decision) {
	attrs := []slog.Attr{slog.String(logs.KeyCommit, x.Request.Commit.GetHash()), slog.String(logs.KeyReason, x.Reason)}
	if x.Request.Tag != "" {
		attrs = append(attrs, slog.String(logs.KeyTag, x.Request.Tag))
	} else {
		attrs = append(attrs, slog.String(logs.KeyBranch, x.Request.Branch))
	}
	message := "push decided about"
	if x.Request.Found && x.Reason != "" {
		message = "push found by polling, and turned away"
	}
	d.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, message, attrs...) //nolint:sloglint // the caller's constant
}

// plan decides about the candidates as they are in l, each on the lane as the one before leaves it.
func (d *Decider) plan(ctx context.Context, k lane.Key, l *storev1.Lane) ([]*policy.Decision, error) {
	a, err := d.cfg.Apps.App(ctx, k)
	if err != nil && !apierr.Has(err, apierr.ReasonAppNotFound) {
		return nil, err
	}
	l = proto.CloneOf(l)
	git := policy.Within(d.cfg.Git, d.cfg.Now().Add(d.cfg.Timeout))
	var plan []*policy.Decision
	for range mostAtOnce {
		if !lane.Undecided(l) {
			break
		}
		x, err := d.one(ctx, k, l, a, git)
		if err != nil {
			return nil, err
		}
		plan = append(plan, x)
		if err := x.Apply(l); err != nil {
			break
		}
	}
	return plan, nil //nolint:nilerr // what git cannot tell is noted, and deploys
}

// one decides about the lane's oldest candidate.
func (d *Decider) one(ctx context.Context, k lane.Key, l *storev1.Lane, a *storev1.App, git policy.Git) (_ *policy.Decision, err error) {
	c := l.GetCandidates()[0]
	ctx, span := tracing.Start(tracing.Continue(ctx, c.GetTraceparent()), d.cfg.Tracer, "decide push", tracing.About{
		Workspace: k.Workspace, App: k.App, Repository: c.GetRepository(), Delivery: c.GetDelivery().GetNumber(),
	})
	defer func() { span.End(err) }()
	x := policy.About(c, a, d.cfg.Now())
	if own := tracing.Traceparent(ctx); own != "" {
		x.Request.Traceparent = own
	}
	if x.Reason != "" {
		return x, nil
	}
	var actual func(context.Context, lane.Ref) (string, error)
	if d.cfg.Head != nil {
		actual = func(ctx context.Context, ref lane.Ref) (string, error) {
			ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
			defer cancel()
			return d.cfg.Head(ctx, k.Workspace, x.Request.Repository, ref)
		}
	}
	place, err := d.cfg.Dispatcher.Locate(ctx, k, l, &x.Request, actual)
	if err != nil {
		return nil, err
	}
	if x.Past = place == lane.Past && !x.Request.Deleted; x.Past || x.Request.Deleted {
		return x, nil
	}
	verdict, err := policy.Decide(ctx, git, a, policy.Of(l, x.Request))
	if err != nil {
		return nil, err
	}
	if verdict.Unknown != nil {
		d.cfg.Logger.WarnContext(ctx, "what a push changed is not known, it deploys", logs.Err(verdict.Unknown))
	}
	x.Rules(verdict)
	return x, nil
}
