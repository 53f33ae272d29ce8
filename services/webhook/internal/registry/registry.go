package registry

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nuid"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/cache"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
)

// Account gives the calls at Bitbucket for a workspace's integration. background calls leave budget
// to people.
type Account func(workspace, place string, background bool) Hooks

// Connections tells how a workspace's integration stands now.
type Connections interface {
	// Current returns the connection; its ID is "" when the workspace is not connected.
	Current(ctx context.Context, workspace string) (Connection, error)
}

// Connection is a workspace's connection with Bitbucket.
type Connection struct {
	ID string
	// NarrowedTo are the UUIDs of the Bitbucket workspaces that count, sorted; none: all do.
	NarrowedTo []string
}

// What Timing's fields are where nothing else is said.
const (
	// takeover is how long a lease must be seen unchanged before it may be taken over.
	takeover = 30 * time.Second
	// run bounds what one run does at Bitbucket; it is less than takeover, so that nobody works on what another has.
	run = 25 * time.Second
	// checkEvery is how often a registered webhook is compared with Bitbucket's list at most.
	checkEvery = 6 * time.Hour
	// secretAge is how old the secret of a webhook that we registered becomes before it is rotated.
	secretAge = 90 * 24 * time.Hour
	// suspect is the least pause between two checks of a webhook for evidence that something is wrong with it.
	suspect = 15 * time.Second
	// mistrust is the longest pause between two times that refused signatures have the secret written; it doubles from suspect.
	mistrust = time.Hour
	// retryFirst is the first pause after temporary trouble, and retryMost the longest; they double.
	retryFirst, retryMost = 5 * time.Second, time.Hour
	// retryGiven is the longest pause after a refusal that somebody must cure; it doubles from 12 times retryFirst.
	retryGiven = 24 * time.Hour
	// sweep is how often all webhooks are looked through.
	sweep = time.Hour
	// poll is how often a waiter looks for a result of another replica.
	poll = 200 * time.Millisecond
)

// Timing is how long things take; the zero value of each field means its default, which says what it is.
type Timing struct {
	Takeover, Run         time.Duration
	CheckEvery            time.Duration // see checkedInTime
	SecretAge             time.Duration // negative: secrets are not rotated
	Suspect, Mistrust     time.Duration
	RetryFirst, RetryMost time.Duration
	RetryGiven            time.Duration
	Sweep, Poll           time.Duration
}

func (t Timing) withDefaults() Timing {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&t.Takeover, takeover)
	def(&t.Run, run)
	def(&t.CheckEvery, checkEvery)
	def(&t.SecretAge, secretAge)
	def(&t.Suspect, suspect)
	def(&t.Mistrust, mistrust)
	def(&t.RetryFirst, retryFirst)
	def(&t.RetryMost, retryMost)
	def(&t.RetryGiven, retryGiven)
	def(&t.Sweep, sweep)
	def(&t.Poll, poll)
	return t
}

// Config is what a Registry needs.
type Config struct {
	Store       *natsstore.Store
	Cache       *cache.Webhooks
	Vault       *Vault
	View        View
	Account     Account
	Connections Connections
	Logger      *slog.Logger
	Registerer  prometheus.Registerer // nil: no metrics
	Now         func() time.Time
	Timing      Timing
}

// Registry is safe for concurrent use. Run does the background work; without it nothing is done at
// Bitbucket.
type Registry struct {
	cfg      Config
	holder   string // of this process's leases
	schedule *schedule
	runs     *prometheus.CounterVec
}

// New makes a registry. It hears of changes from the cache, whose Run must not have begun.
func New(cfg Config) *Registry {
	cfg.Timing = cfg.Timing.withDefaults()
	r := &Registry{cfg: cfg, holder: nuid.Next(), schedule: newSchedule(),
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_webhook_registrations_total",
			Help: "Runs at Bitbucket by what was to be done and the result: ok or the reason.",
		}, []string{"action", "result"}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(r.runs, census{r})
	}
	cfg.Cache.OnChange(r.reschedule)
	return r
}

// View shows webhooks to people.
func (r *Registry) View() View { return r.cfg.View }

// want asks for a run and returns the request's number.
func (r *Registry) want(rec *storev1.WebhookRecord, checkOnly bool) int64 {
	if rec.Work == nil {
		rec.Work = &storev1.Work{}
	}
	w := rec.GetWork()
	w.CheckOnly = checkOnly && (w.GetWanted() == w.GetDone() || w.GetCheckOnly())
	w.Wanted++
	w.DueTime = timestamppb.New(r.cfg.Now())
	return w.GetWanted()
}

// touch notes that something people see changed.
func (r *Registry) touch(rec *storev1.WebhookRecord) { rec.UpdateTime = timestamppb.New(r.cfg.Now()) }

// Register asks for the webhook to be registered at Bitbucket and waits for what comes of it. The
// error is what Bitbucket, or the way to it, had against it. When ctx ends first the webhook is
// returned as it stands; the work goes on.
func (r *Registry) Register(ctx context.Context, workspace, id, etag string) (*storev1.WebhookRecord, error) {
	return r.ask(ctx, workspace, id, etag, activate)
}

// activate has a hook switched on that somebody switched off at Bitbucket: a person asks for it.
func activate(rec *storev1.WebhookRecord) error {
	if rec.Work == nil {
		rec.Work = &storev1.Work{}
	}
	rec.Work.Activate = true
	return nil
}

// ask requests a run, after change, and waits for it.
func (r *Registry) ask(ctx context.Context, workspace, id, etag string, change func(*storev1.WebhookRecord) error) (*storev1.WebhookRecord, error) {
	var number int64
	rec, err := r.cfg.Store.Update(ctx, workspace, id, func(cur *storev1.WebhookRecord) error {
		if err := CheckEtag(cur, etag); err != nil {
			return err
		}
		if err := usable(cur); err != nil {
			return err
		}
		if change != nil {
			if err := change(cur); err != nil {
				return err
			}
		}
		number = r.want(cur, false)
		if cur.GetState() == webhookv1.Webhook_NOT_REGISTERED {
			cur.State = webhookv1.Webhook_PENDING
			r.touch(cur)
		}
		return nil
	})
	if err != nil {
		return nil, notFound(err)
	}
	rec, done, err := r.wait(ctx, rec, number)
	if err != nil || !done {
		return rec, err
	}
	if reason := rec.GetWork().GetErrorReason(); reason != "" {
		return rec, apierr.New(apierr.Reason(reason), rec.GetWork().GetErrorMessage(),
			apierr.WithRetryAfter(time.Duration(rec.GetWork().GetErrorRetrySeconds())*time.Second))
	}
	return rec, nil
}

// usable refuses work on a webhook that nobody uses.
func usable(rec *storev1.WebhookRecord) error {
	switch {
	case len(rec.GetWatches()) == 0:
		return apierr.New(apierr.ReasonWebhookNotNeeded, "No app deploys this repository on push, so it needs no webhook. Switch auto-deploy on in an app first.")
	default:
		return nil
	}
}

// wait waits until a request has been served, and whatever was asked for meanwhile, so that the
// caller sees a webhook at rest; done is false when ctx ended first.
func (r *Registry) wait(ctx context.Context, rec *storev1.WebhookRecord, number int64) (_ *storev1.WebhookRecord, done bool, err error) {
	// The answer has to be on its way before the caller gives up.
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-250*time.Millisecond))
		defer cancel()
	}
	if w := rec.GetWork(); w.GetDone() >= max(number, w.GetWanted()) {
		return rec, true, nil
	}
	finished := r.schedule.subscribe(rec.GetId())
	defer r.schedule.unsubscribe(rec.GetId(), finished)
	r.schedule.now(rec.GetWorkspace(), rec.GetId())
	tick := time.NewTicker(r.cfg.Timing.Poll)
	defer tick.Stop()
	for w := rec.GetWork(); w.GetDone() < max(number, w.GetWanted()); w = rec.GetWork() {
		select {
		case <-ctx.Done():
			return rec, false, nil
		case <-finished:
		case <-tick.C:
		}
		// With what this process did, of which it is told; what another one did is seen at a later tick at the latest.
		cur, err := r.cfg.Store.Lately(ctx, rec.GetWorkspace(), rec.GetId())
		switch {
		case err == nil:
			rec = cur
		case ctx.Err() != nil:
			return rec, false, nil
		default:
			return nil, false, err
		}
	}
	return rec, true, nil
}

// notFound gives a missing webhook its public form; other errors pass.
func notFound(err error) error {
	if errors.Is(err, kv.ErrNotFound) || errors.Is(err, kv.ErrBadKey) { // too long to be an id of one
		return apierr.New(apierr.ReasonWebhookNotFound, "The workspace has no such webhook.", apierr.WithCause(err))
	}
	return err
}
