package lane

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// Key names an app and its lane.
type Key struct{ Workspace, App string }

// String is <workspace>.<app>, the lane's key in its bucket; both are slugs.
func (k Key) String() string { return k.Workspace + "." + k.App }

// Record is the key of a deployment's record.
func (k Key) Record(number int32) string { return fmt.Sprintf("%s.%s.%d", k.Workspace, k.App, number) }

// Lanes stores lane records; its errors are those of pkg/kv.
type Lanes interface {
	Get(ctx context.Context, key string) (*storev1.Lane, uint64, error)
	Create(ctx context.Context, key string, l *storev1.Lane, opts ...kv.CreateOption) (uint64, error)
	CompareAndSet(ctx context.Context, key string, l *storev1.Lane, rev uint64) (uint64, error)
}

// Records stores deployment records; its errors are those of pkg/kv.
type Records interface {
	Update(ctx context.Context, key string, fn func(*storev1.Deployment) (*storev1.Deployment, error)) (*storev1.Deployment, uint64, error)
}

// SeenRefs stores what lanes know of heads that do not fit them; its errors are those of pkg/kv.
type SeenRefs interface {
	Get(ctx context.Context, key string) (*storev1.SeenRefs, uint64, error)
	Update(ctx context.Context, key string, fn func(*storev1.SeenRefs) (*storev1.SeenRefs, error)) (*storev1.SeenRefs, uint64, error)
}

// Alarm is the schedule's side towards lanes. Arm makes sure, before it returns, that somebody
// reconciles the lane soon, and it writes even if the lane is watched already, so that a concurrent
// removal of the watch fails.
type Alarm interface {
	Arm(ctx context.Context, k Key) error
}

// Waker publishes wake-ups.
type Waker interface {
	Wake(ctx context.Context, server string, k Key) error
	// WakeDecider tells the workers of a server that pushes wait for their decision.
	WakeDecider(ctx context.Context, server string, k Key) error
}

// Teller tells deliveries what was decided about them, and how the deployment ended that came of
// them. It may be called again.
type Teller interface {
	Decided(ctx context.Context, k Key, d *storev1.Decided) error
	Ended(ctx context.Context, k Key, number int32, e *storev1.Ended) error
}

// Dispatcher stores decisions and carries out what follows from them. It is safe for concurrent use.
type Dispatcher struct {
	Lanes   Lanes
	Records Records
	Alarm   Alarm
	Waker   Waker
	// Seen may be nil where no lane sees more heads than fit it.
	Seen SeenRefs
	// Teller may be nil where nobody is to hear of ends.
	Teller Teller
	// Ended counts deployments that ended, once each, by the name of their state; nil: nobody does.
	Ended func(state string)

	written written
}

const (
	changeTries = 200                    // tries of a compare-and-set
	firstPause  = time.Millisecond       // before the second try of a compare-and-set
	mostPause   = 100 * time.Millisecond // between two tries of a compare-and-set at most
)

// Get returns the lane and its revision; an empty lane at revision 0 when there is none.
func (k *Dispatcher) Get(ctx context.Context, key Key) (*storev1.Lane, uint64, error) {
	l, rev, err := k.Lanes.Get(ctx, key.String())
	if errors.Is(err, kv.ErrNotFound) {
		return &storev1.Lane{}, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("lane: read %s: %w", key, err)
	}
	return l, rev, nil
}

// Change makes one decision: fn changes the lane it is given and may be called again on a newer
// one. ErrSkip from fn leaves the lane alone. It returns the lane as stored, or as found with
// ErrSkip or any other error of fn.
func (k *Dispatcher) Change(ctx context.Context, key Key, fn func(*storev1.Lane) error) (*storev1.Lane, error) {
	return k.change(ctx, key, false, fn)
}

// Begin is Change of a lane that is most likely not there: fn is given an empty one first, and what is there only
// where something turns out to be. It has to change what it is given.
func (k *Dispatcher) Begin(ctx context.Context, key Key, fn func(*storev1.Lane) error) (*storev1.Lane, error) {
	return k.change(ctx, key, true, fn)
}

func (k *Dispatcher) change(ctx context.Context, key Key, absent bool, fn func(*storev1.Lane) error) (*storev1.Lane, error) {
	pauses := stream.Pauses(firstPause, mostPause)
	for try := range changeTries {
		l, rev, err := &storev1.Lane{}, uint64(0), error(nil)
		if try > 0 || !absent {
			if l, rev, err = k.Get(ctx, key); err != nil {
				return nil, err
			}
		}
		if Crowded(l) && k.Seen != nil {
			rev, err = k.fold(ctx, key, l, rev)
		}
		if err == nil {
			l, err = k.changeAt(ctx, key, l, rev, fn)
		}
		if !errors.Is(err, kv.ErrConflict) && !errors.Is(err, kv.ErrExists) {
			return l, err
		}
		if err := sleep(ctx, pauses.NextBackOff()); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("lane: change %s: %w: lost %d times", key, kv.ErrConflict, changeTries)
}

// Known returns what the lane, as it was read, and its SeenRefs know of heads.
func (k *Dispatcher) Known(ctx context.Context, key Key, l *storev1.Lane, repository string) (Known, error) {
	known := Known{Repository: repository, Lane: l}
	if k.Seen == nil {
		return known, nil
	}
	s, _, err := k.Seen.Get(ctx, key.String())
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return Known{}, fmt.Errorf("lane: read the refs that %s saw: %w", key, err)
	}
	known.Seen = s
	return known, nil
}

// fold moves heads of a crowded lane to SeenRefs, before anything is decided about the lane. It
// changes l and returns its revision.
func (k *Dispatcher) fold(ctx context.Context, key Key, l *storev1.Lane, rev uint64) (uint64, error) {
	_, _, err := k.Seen.Update(ctx, key.String(), func(s *storev1.SeenRefs) (*storev1.SeenRefs, error) {
		s, changed := Fold(s, l)
		if !changed {
			return nil, kv.ErrSkip
		}
		return s, nil
	})
	if err != nil {
		return 0, fmt.Errorf("lane: note the refs that %s saw: %w", key, err)
	}
	if !Folded(l) {
		return rev, nil
	}
	if rev, err = k.Lanes.CompareAndSet(ctx, key.String(), l, rev); err != nil {
		return 0, fmt.Errorf("lane: write %s: %w", key, err)
	}
	return rev, nil
}

// Polled notes what a poll of the repository found. known is what was known when the poll began, l
// is the lane after the poll's decisions. When somebody else noted something meanwhile, Polled
// notes nothing and returns false: the next poll does it.
func (k *Dispatcher) Polled(ctx context.Context, key Key, known Known, l *storev1.Lane, branches, tags Found) (noted bool, err error) {
	_, _, err = k.Seen.Update(ctx, key.String(), func(s *storev1.SeenRefs) (*storev1.SeenRefs, error) {
		if noted = s.GetSeq() == known.Seen.GetSeq() && s.GetSeq() <= l.GetHeadSeq(); !noted {
			return nil, kv.ErrSkip
		}
		next := Polled(s, l, branches, tags)
		if proto.Equal(next, s) {
			return nil, kv.ErrSkip
		}
		return next, nil
	})
	if err != nil {
		return false, fmt.Errorf("lane: note the refs that %s saw: %w", key, err)
	}
	return noted, nil
}

func (k *Dispatcher) changeAt(ctx context.Context, key Key, l *storev1.Lane, rev uint64, fn func(*storev1.Lane) error) (*storev1.Lane, error) {
	if err := fn(l); err != nil {
		if errors.Is(err, ErrSkip) {
			err = nil
		}
		return l, err
	}
	// The watch is there before the lane has work: whatever dies from here on, somebody looks.
	if HasWork(l) && !l.GetArmed() {
		if err := k.Alarm.Arm(ctx, key); err != nil {
			return nil, fmt.Errorf("lane: arm %s: %w", key, err)
		}
		l.Armed = true
	}
	k.written.drop(key, l)
	var err error
	if rev == 0 {
		_, err = k.Lanes.Create(ctx, key.String(), l)
	} else {
		_, err = k.Lanes.CompareAndSet(ctx, key.String(), l, rev)
	}
	if err != nil {
		return nil, fmt.Errorf("lane: write %s: %w", key, err)
	}
	k.written.forget(key)
	return l, nil
}

// Dispatch carries out what follows from the lane's decisions: deployment records are written and
// workers woken. It may be repeated at any time by anybody.
func (k *Dispatcher) Dispatch(ctx context.Context, key Key, l *storev1.Lane) error {
	if server := Decider(l); server != "" {
		if err := k.Waker.WakeDecider(ctx, server, key); err != nil {
			return fmt.Errorf("lane: wake %s to decide about %s: %w", server, key, err)
		}
	}
	return k.Start(ctx, key, l)
}

// Start does the same where the caller decides about the candidates itself.
func (k *Dispatcher) Start(ctx context.Context, key Key, l *storev1.Lane) error {
	for _, server := range WakeTargets(l) {
		if err := k.Waker.Wake(ctx, server, key); err != nil {
			return fmt.Errorf("lane: wake %s for %s: %w", server, key, err)
		}
	}
	return k.Flush(ctx, key, l)
}

// Flush writes the changes in the lane's outbox to the deployment records and then clears them, or
// leaves that to the lane's next decision. A change that is written twice changes nothing the second time.
func (k *Dispatcher) Flush(ctx context.Context, key Key, l *storev1.Lane) error {
	out := l.GetOutbox()
	if len(out) == 0 {
		return nil
	}
	stays := mayStay(l)
	if n, _ := k.written.find(key, l); stays && n == len(out) {
		return nil
	}
	var revision uint64
	for i := 0; i < len(out); {
		n := i + 1
		if d := out[i].GetDecided(); d != nil {
			if err := k.tell(ctx, key, d); err != nil {
				return err
			}
			i = n
			continue
		}
		for n < len(out) && out[n].GetNumber() == out[i].GetNumber() {
			n++
		}
		rev, err := k.write(ctx, key, l.GetGeneration(), out[i:n])
		if err != nil {
			return err
		}
		revision, i = max(revision, rev), n
	}
	if stays && k.written.note(key, l, revision) {
		return nil
	}
	last := out[len(out)-1].GetSeq()
	_, err := k.Change(ctx, key, func(l *storev1.Lane) error {
		i := 0
		for i < len(l.GetOutbox()) && l.GetOutbox()[i].GetSeq() <= last {
			i++
		}
		if i == 0 {
			return ErrSkip
		}
		l.Outbox, l.RecordsRevision = l.Outbox[i:], max(l.GetRecordsRevision(), revision)
		return nil
	})
	return err
}

func (k *Dispatcher) tell(ctx context.Context, key Key, d *storev1.Decided) error {
	if k.Teller == nil {
		return nil
	}
	if err := k.Teller.Decided(ctx, key, d); err != nil {
		return fmt.Errorf("lane: tell what was decided of %s: %w", key, err)
	}
	return nil
}

// Locate finds the place of a push in the history of its branch or tag, and completes what is known of
// it. actual asks Bitbucket where the branch or tag is; it is called only where the lane cannot tell: a
// push that came before, of a branch that is again where that push began. Without its answer the push is
// taken for new, and the worker that fetches looks whether anything moved.
func (k *Dispatcher) Locate(ctx context.Context, key Key, l *storev1.Lane, a *Request, actual func(context.Context, Ref) (string, error)) (Place, error) {
	if HeadOf(l, a.Repository, a.ref()) == nil {
		known, err := k.Known(ctx, key, l, a.Repository)
		if err != nil {
			return 0, err
		}
		if head, seen := known.Head(a.ref()); seen {
			a.Head = &head
		}
	}
	place, _ := PlaceOf(l, *a)
	if place != Doubtful || actual == nil {
		return place, nil
	}
	head, err := actual(ctx, a.ref())
	if err != nil {
		return place, ctx.Err()
	}
	a.Actual = &head
	place, _ = PlaceOf(l, *a)
	return place, nil
}

// write makes changes of one record, and returns a revision that has them.
func (k *Dispatcher) write(ctx context.Context, key Key, generation int64, cs []*storev1.RecordChange) (uint64, error) {
	var ended string
	_, rev, err := k.Records.Update(ctx, key.Record(cs[0].GetNumber()), func(rec *storev1.Deployment) (*storev1.Deployment, error) {
		changed := false
		was := rec.GetDeployment().GetState()
		for _, c := range cs {
			var ok bool
			if rec, ok = Apply(rec, key.Workspace, key.App, generation, c); ok {
				changed = true
			}
		}
		ended = ""
		if !changed {
			return nil, kv.ErrSkip
		}
		if now := rec.GetDeployment().GetState(); now != was && Terminal(now) {
			ended = now.String()
		}
		return rec, nil
	})
	if err == nil && ended != "" && k.Ended != nil {
		k.Ended(ended)
	}
	if err != nil {
		return 0, fmt.Errorf("lane: write deployment %s/%d: %w", key, cs[0].GetNumber(), err)
	}
	for _, c := range cs {
		if e := c.GetEnded(); len(e.GetAskers()) > 0 && k.Teller != nil {
			if err := k.Teller.Ended(ctx, key, c.GetNumber(), e); err != nil {
				return 0, fmt.Errorf("lane: tell how deployment %s/%d ended: %w", key, c.GetNumber(), err)
			}
		}
	}
	return rev, nil
}

// Disarm ends the watch over a lane that has no work, and tells whether it did. The caller then
// removes the due key at the revision it had before this call.
func (k *Dispatcher) Disarm(ctx context.Context, key Key) (bool, error) {
	l, err := k.Change(ctx, key, func(l *storev1.Lane) error {
		if HasWork(l) || !l.GetArmed() {
			return ErrSkip
		}
		l.Armed = false
		return nil
	})
	if err != nil {
		return false, err
	}
	return !l.GetArmed(), nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
