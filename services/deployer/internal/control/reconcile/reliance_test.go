package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// hooks answers as webhook does, and counts.
type hooks struct {
	hook  *webhookv1.Webhook
	err   error
	asked int
}

func (h *hooks) Webhooks(_ context.Context, _ string, repositories []string) (map[string]*webhookv1.Webhook, error) {
	h.asked++
	if h.err != nil || h.hook == nil {
		return nil, h.err
	}
	return map[string]*webhookv1.Webhook{repositories[0]: h.hook}, nil
}

// bench is a reconciler with a clock of its own and so many watched repositories, "0" to "n-1".
type bench struct {
	*Reconciler
	now   time.Time
	hooks *hooks
}

func newBench(repositories int) *bench {
	b := &bench{now: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC), hooks: &hooks{}}
	b.Reconciler = New(Config{Now: func() time.Time { return b.now }, Webhooks: b.hooks, Logger: slog.New(slog.DiscardHandler)})
	for i := range repositories {
		b.changed(fmt.Sprint(i), watchedBy("web"))
	}
	return b
}

// around tells whether d is want, give or take a tenth.
func around(d, want time.Duration) bool { return d >= want-want/10 && d <= want+want/10 }

func (b *bench) verified() *webhookv1.Webhook {
	return &webhookv1.Webhook{State: webhookv1.Webhook_ACTIVE, LastVerifiedTime: timestamp(b.now.Add(-time.Hour))}
}

func TestRely_onWebhooksThatWorkOnly(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(h *webhookv1.Webhook, h0 *hooks, state *storev1.Reconciliation, now time.Time)
		want   time.Duration
	}{
		"works": {nil, 2 * time.Minute},
		"added by hand": {func(h *webhookv1.Webhook, _ *hooks, _ *storev1.Reconciliation, _ time.Time) {
			h.State = webhookv1.Webhook_MANUAL
		}, 2 * time.Minute},
		"no delivery yet": {func(h *webhookv1.Webhook, _ *hooks, _ *storev1.Reconciliation, _ time.Time) { h.LastVerifiedTime = nil }, 30 * time.Second},
		"refused": {func(h *webhookv1.Webhook, _ *hooks, _ *storev1.Reconciliation, _ time.Time) {
			h.State, h.Reason = webhookv1.Webhook_NOT_REGISTERED, "NOT_REPOSITORY_ADMIN"
		}, 30 * time.Second},
		"no public URL": {func(h *webhookv1.Webhook, _ *hooks, _ *storev1.Reconciliation, _ time.Time) {
			h.State, h.Reason = webhookv1.Webhook_NOT_REGISTERED, "NO_PUBLIC_URL"
		}, 30 * time.Second},
		"changed there": {func(h *webhookv1.Webhook, _ *hooks, _ *storev1.Reconciliation, _ time.Time) {
			h.State = webhookv1.Webhook_DRIFTED
		}, 30 * time.Second},
		"in some trouble": {func(h *webhookv1.Webhook, _ *hooks, _ *storev1.Reconciliation, _ time.Time) {
			h.Reason = "BITBUCKET_UNAVAILABLE"
		}, 30 * time.Second},
		"being registered": {func(h *webhookv1.Webhook, _ *hooks, _ *storev1.Reconciliation, _ time.Time) {
			h.State = webhookv1.Webhook_PENDING
		}, 30 * time.Second},
		"left": {func(h *webhookv1.Webhook, _ *hooks, _ *storev1.Reconciliation, _ time.Time) {
			h.State = webhookv1.Webhook_LEFT_ON_BITBUCKET
		}, 30 * time.Second},
		"not known": {func(_ *webhookv1.Webhook, h *hooks, _ *storev1.Reconciliation, _ time.Time) { h.hook = nil }, 30 * time.Second},
		"webhook is away": {func(_ *webhookv1.Webhook, h *hooks, _ *storev1.Reconciliation, _ time.Time) {
			h.err = errors.New("away")
		}, 30 * time.Second},
		"missed since": {func(_ *webhookv1.Webhook, _ *hooks, s *storev1.Reconciliation, now time.Time) {
			s.MissedTime = timestamp(now.Add(-30 * time.Minute))
		}, 30 * time.Second},
		"came after a miss": {func(_ *webhookv1.Webhook, _ *hooks, s *storev1.Reconciliation, now time.Time) {
			s.MissedTime = timestamp(now.Add(-2 * time.Hour))
		}, 2 * time.Minute},
	} {
		b := newBench(1)
		b.hooks.hook = b.verified()
		state := &storev1.Reconciliation{}
		if c.change != nil {
			c.change(b.hooks.hook, b.hooks, state, b.now)
		}
		changed := b.rely(t.Context(), "0", "acme-inc", "0", state)
		if got := b.interval("0"); !around(got, c.want) || changed != (c.want == 2*time.Minute) {
			t.Errorf("%s: %v, changed %v", name, got, changed)
		}
	}
}

// TestRely_ceasesAtTheNextPoll: webhook is asked at every poll while its webhook is relied on.
func TestRely_ceasesAtTheNextPoll(t *testing.T) {
	t.Parallel()
	b := newBench(1)
	b.hooks.hook = b.verified()
	state := &storev1.Reconciliation{}
	b.rely(t.Context(), "0", "acme-inc", "0", state)
	b.hooks.hook = proto.CloneOf(b.hooks.hook)
	b.hooks.hook.State = webhookv1.Webhook_DRIFTED
	b.now = b.now.Add(10 * time.Minute)
	if !b.rely(t.Context(), "0", "acme-inc", "0", state) || !around(b.interval("0"), 30*time.Second) {
		t.Errorf("%v", b.interval("0"))
	}
	// One that is not relied on is asked about now and then.
	before := b.hooks.asked
	for range 20 {
		b.now = b.now.Add(30 * time.Second)
		b.rely(t.Context(), "0", "acme-inc", "0", state)
	}
	if n := b.hooks.asked - before; n != 2 {
		t.Errorf("asked %d times in ten minutes", n)
	}
}

// TestDeliveryMissed_noWebhookIsReliedOnForAWhile, and what was relied on is polled at once.
// Once nothing deploys by a push the webhook goes: what was put off for it is polled as usual.
func TestRely_ceasesWhenAutoDeployIsSwitchedOff(t *testing.T) {
	t.Parallel()
	b := newBench(2)
	b.hooks.hook = b.verified()
	state := &storev1.Reconciliation{LastTime: timestamp(b.now), NextTime: timestamp(b.now.Add(10 * time.Minute))}
	for _, key := range []string{"0", "1"} {
		if !b.rely(t.Context(), key, "acme", key, state) {
			t.Fatal("a webhook that works is not relied on")
		}
	}
	asked := b.hooks.asked
	off := &storev1.RepositoryIndex{Watches: []*storev1.Watch{{App: "web", Branch: "main"}}}
	b.changed("0", off)
	if at, _ := b.loop.At("0"); at.After(b.now.Add(b.cfg.Interval + 1)) {
		t.Errorf("polled next at %v, it is %v", at, b.now)
	}
	if next := b.due("0", state, off); next.After(b.now.Add(b.cfg.Interval)) {
		t.Errorf("due at %v", next)
	}
	if next := b.due("1", state, watchedBy("web")); !next.Equal(state.GetNextTime().AsTime()) {
		t.Errorf("the other one: due at %v", next)
	}
	if d := b.interval("0"); !around(d, 30*time.Second) || b.relied != 1 {
		t.Errorf("interval %v, %d relied on", d, b.relied)
	}
	if b.rely(t.Context(), "0", "acme", "0", state) || b.hooks.asked != asked {
		t.Error("a webhook was asked for that is not there")
	}
}

func TestDeliveryMissed_noWebhookIsReliedOnForAWhile(t *testing.T) {
	t.Parallel()
	const n = 50
	b := newBench(n)
	b.hooks.hook = b.verified()
	states := map[string]*storev1.Reconciliation{}
	for key := range b.watched {
		states[key] = &storev1.Reconciliation{LastTime: timestamp(b.now), NextTime: timestamp(b.now.Add(10 * time.Minute))}
		b.rely(t.Context(), key, "acme-inc", key, states[key])
		b.loop.Set(key, b.now.Add(10*time.Minute))
	}
	if b.relied != n {
		t.Fatalf("%d relied on", b.relied)
	}
	b.now = b.now.Add(2 * time.Minute)
	b.deliveryMissed(states["7"])
	if !states["7"].GetMissedTime().AsTime().Equal(b.now) || b.relied != 0 {
		t.Errorf("%v, %d relied on", states["7"], b.relied)
	}
	for key, state := range states {
		at, _ := b.loop.At(key)
		if at.After(b.now.Add(time.Minute)) || b.due(key, state, b.watched[key].idx).After(b.now) || !around(b.interval(key), 30*time.Second) {
			t.Fatalf("%s: polled in %v, due %v", key, at.Sub(b.now), b.due(key, state, b.watched[key].idx))
		}
	}
	b.now = b.now.Add(59 * time.Minute)
	if b.rely(t.Context(), "1", "acme-inc", "1", states["1"]) {
		t.Error("relied on within the hour")
	}
	b.now = b.now.Add(6 * time.Minute)
	if !b.rely(t.Context(), "1", "acme-inc", "1", states["1"]) {
		t.Error("not relied on after the hour")
	}
	if b.rely(t.Context(), "7", "acme-inc", "7", states["7"]) {
		t.Error("no delivery came of that which missed one")
	}
	b.hooks.hook = b.verified()
	b.hooks.hook.LastVerifiedTime = timestamp(b.now)
	b.now = b.now.Add(6 * time.Minute)
	if !b.rely(t.Context(), "7", "acme-inc", "7", states["7"]) {
		t.Error("a delivery came")
	}
}

// reliesOn has the first n repositories relied on; a delivery of each came so long ago.
func (b *bench) reliesOn(n int, ago time.Duration) {
	b.hooks.hook = &webhookv1.Webhook{State: webhookv1.Webhook_ACTIVE, LastVerifiedTime: timestamp(b.now.Add(-ago))}
	for i := range n {
		key := fmt.Sprint(i)
		b.rely(context.Background(), key, "acme-inc", key, &storev1.Reconciliation{})
	}
}

// TestInterval_keepsAllPollsWithinTheBudget, and the first sign of a lost delivery within minutes.
func TestInterval_keepsAllPollsWithinTheBudget(t *testing.T) {
	t.Parallel()
	const days, justNow = 50 * time.Hour, time.Minute
	for name, c := range map[string]struct {
		watched, relied int
		ago             time.Duration
		often, seldom   time.Duration // of one that is not relied on, and of one that is
	}{
		"a thousand, none relied on":      {1000, 0, days, 72 * time.Second, 0},
		"one":                             {1, 1, days, 0, 2 * time.Minute},
		"four hundred":                    {400, 400, days, 0, 2 * time.Minute},
		"a thousand":                      {1000, 990, days, 30 * time.Second, 297 * time.Second},
		"a thousand, pushed to just now":  {1000, 990, justNow, 30 * time.Second, 142560 * time.Millisecond},
		"two thousand":                    {2000, 2000, days, 0, 10 * time.Minute},
		"five thousand":                   {5000, 5000, days, 0, 10 * time.Minute},
		"ten thousand":                    {10_000, 10_000, days, 0, 12 * time.Minute},
		"ten thousand, all pushed to now": {10_000, 10_000, justNow, 0, 12 * time.Minute},
		"half of them":                    {4000, 2000, days, 288 * time.Second, 10 * time.Minute},
	} {
		b := newBench(c.watched)
		b.reliesOn(c.relied, c.ago)
		polls := 0.0
		for i := range c.watched {
			d := b.interval(fmt.Sprint(i))
			polls += time.Hour.Seconds() / d.Seconds()
			want := c.often
			if i < c.relied {
				want = c.seldom
			}
			if !around(d, want) {
				t.Fatalf("%s: repository %d of %d, %d relied on: %v, want %v", name, i, c.watched, c.relied, d, want)
			}
		}
		if polls > 1.02*gitBudget {
			t.Errorf("%s: %.0f polls in an hour", name, polls)
		}
	}
}

// TestInterval_countsThoseThatGo.
func TestInterval_countsThoseThatGo(t *testing.T) {
	t.Parallel()
	b := newBench(1000)
	b.reliesOn(990, time.Hour)
	for i := range 990 {
		b.changed(fmt.Sprint(i), nil)
	}
	if b.relied != 0 || len(b.watched) != 10 {
		t.Errorf("%d of %d", b.relied, len(b.watched))
	}
}

// TestFindsWithin_isTheLongestPauseAndTheWaitForADelivery.
func TestFindsWithin_isTheLongestPauseAndTheWaitForADelivery(t *testing.T) {
	t.Parallel()
	b := newBench(2)
	b.watched["acme.web"] = b.watched["0"]
	if got, want := b.FindsWithin("acme", "web"), 33*time.Second+b.cfg.Grace; got != want {
		t.Errorf("not relied on: %v, want %v", got, want)
	}
	b.reliesOn(2, time.Hour)
	if got, want := b.FindsWithin("acme", "web"), 132*time.Second+b.cfg.Grace; got != want {
		t.Errorf("relied on: %v, want %v", got, want)
	}
}
