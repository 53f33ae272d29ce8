package outcome_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/deployer/internal/record/outcome"
	"devpilot.io/bitbucket/services/deployer/internal/record/streams"
)

// recorder is webhook; it can be away, and can take what it then does not answer.
type recorder struct {
	mu    sync.Mutex
	away  bool
	calls int
	got   map[int32]int
}

func (r *recorder) Record(_ context.Context, outcomes []*webhookv1.RecordedOutcome) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if r.away {
		return errors.New("webhook is away")
	}
	for _, o := range outcomes {
		r.got[o.GetDelivery()]++
	}
	return nil
}

func (r *recorder) set(away bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = away
}

func (r *recorder) seen() (calls int, got map[int32]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	got = map[int32]int{}
	for k, v := range r.got {
		got[k] = v
	}
	return r.calls, got
}

func newOutbox(t *testing.T) (*outcome.Outbox, *recorder, func() uint64) {
	t.Helper()
	js := testkit.JS(t)
	if _, err := stream.Ensure(t.Context(), js, streams.Outcomes, stream.Options{}); err != nil {
		t.Fatal(err)
	}
	r := &recorder{got: map[int32]int{}}
	stored := func() uint64 {
		s, err := js.Stream(t.Context(), streams.OutcomesStream)
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().State.LastSeq
	}
	return &outcome.Outbox{JS: js, Recorder: r, Logger: testkit.Logger(t).Logger, Now: time.Now}, r, stored
}

func about(delivery int32) *webhookv1.RecordedOutcome {
	return &webhookv1.RecordedOutcome{Workspace: "acme-inc", Webhook: "hook", Delivery: delivery, Outcome: &webhookv1.DeliveryOutcome{App: "web"}}
}

func TestPut_storesNothingWhileWebhookAnswers(t *testing.T) {
	d, r, stored := newOutbox(t)
	if err := d.Put(t.Context(), about(1), about(2)); err != nil {
		t.Fatal(err)
	}
	if calls, got := r.seen(); calls != 1 || got[1] != 1 || got[2] != 1 {
		t.Errorf("%d calls brought %v", calls, got)
	}
	if n := stored(); n != 0 {
		t.Errorf("%d messages were stored", n)
	}
}

// What webhook does not take is kept for it, and brought once it answers: Put does not fail for its sake.
func TestPut_keepsWhatWebhookDoesNotTake(t *testing.T) {
	d, r, stored := newOutbox(t)
	r.set(true)
	for n := range int32(3) {
		if err := d.Put(t.Context(), about(n+1)); err != nil {
			t.Fatalf("outcome %d: %v", n+1, err)
		}
	}
	if n := stored(); n != 3 {
		t.Fatalf("%d of 3 outcomes were stored", n)
	}
	if calls, _ := r.seen(); calls != 1 {
		t.Errorf("webhook was called %d times while it is away", calls)
	}
	r.set(false)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		if err := d.Run(ctx); err != nil {
			t.Errorf("forward: %v", err)
		}
	})
	testkit.Eventually(t, time.Minute, func() error {
		if _, got := r.seen(); len(got) != 3 {
			return fmt.Errorf("brought are %v", got)
		}
		return nil
	})
}

// position is one that a restart of this process does not lose.
type position struct {
	mu sync.Mutex
	at uint64
}

func (p *position) Load(context.Context, time.Time) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at, nil
}

func (p *position) Save(_ context.Context, _ time.Time, sequence uint64, cutBack bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sequence > p.at || cutBack {
		p.at = sequence
	}
	return nil
}

// What was stored is brought also after NATS has lost the consumer, which lives in its memory.
func TestRun_goesOnAfterItsConsumerIsLost(t *testing.T) {
	d, r, _ := newOutbox(t)
	d.Position = &position{}
	r.set(true)
	for n := range int32(2) {
		if err := d.Put(t.Context(), about(n+1)); err != nil {
			t.Fatal(err)
		}
		r.set(false)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := d.Run(ctx); err != nil {
				t.Errorf("forward: %v", err)
			}
		})
		testkit.Eventually(t, time.Minute, func() error {
			if _, got := r.seen(); got[n+1] == 0 {
				return fmt.Errorf("brought are %v", got)
			}
			return nil
		})
		cancel()
		wg.Wait()
		if err := d.JS.DeleteConsumer(t.Context(), streams.OutcomesStream, "webhook"); err != nil {
			t.Fatal(err)
		}
		r.set(true)
	}
}
