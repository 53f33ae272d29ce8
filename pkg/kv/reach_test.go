package kv

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
)

// leader answers with the positions in turn, the last one for ever, and runs what happens meanwhile.
type leader struct {
	created   time.Time
	positions []uint64
	meanwhile func(question int)
	asked     int
}

func (l *leader) position(context.Context) (position, error) {
	n := min(l.asked, len(l.positions)-1)
	l.asked++
	if l.meanwhile != nil {
		l.meanwhile(l.asked)
	}
	return position{last: l.positions[n], messages: 1 << 20, created: l.created}, nil
}

// caughtUp is a reach whose first pass ended at revision at.
func caughtUp(l *leader, at uint64) *reach {
	r := newReach(l.position, new(atomic.Uint64), func() int { return 0 })
	r.began(position{last: at, created: l.created})
	r.complete()
	return r
}

func mustFresh(t *testing.T, r *reach, want string) {
	t.Helper()
	reason, err := r.fresh(t.Context())
	if err != nil || reason != want {
		t.Fatalf("fresh: %q, %v; want %q", reason, err, want)
	}
}

func TestReach_asksAgainWhenTheWatchSkippedWhatWasReplaced(t *testing.T) {
	l := &leader{positions: []uint64{15, 20}}
	r := caughtUp(l, 9)
	l.meanwhile = func(question int) {
		if question == 1 { // 10 to 14 were replaced before the watch came to them
			r.saw(15)
		} else {
			for rev := uint64(16); rev <= 20; rev++ {
				r.saw(rev)
			}
		}
	}
	mustFresh(t, r, "")
	if l.asked != 2 {
		t.Fatalf("asked %d times, want 2: after a skip, being at the revision proves nothing", l.asked)
	}
}

func TestReach_withoutASkipOneQuestionIsEnough(t *testing.T) {
	l := &leader{positions: []uint64{12}}
	r := caughtUp(l, 9)
	l.meanwhile = func(int) { r.saw(10); r.saw(11); r.saw(12); r.saw(13) }
	mustFresh(t, r, "")
	if l.asked != 1 {
		t.Fatalf("asked %d times", l.asked)
	}
	if reason, err := r.atLeast(t.Context(), 13); reason != "" || err != nil || l.asked != 1 {
		t.Fatalf("at least 13: %q, %v after %d questions; nothing was skipped since the answer", reason, err, l.asked)
	}
	l.meanwhile, l.positions = nil, []uint64{20}
	r.saw(20)
	if reason, err := r.atLeast(t.Context(), 14); reason != "" || err != nil || l.asked != 2 {
		t.Fatalf("at least 14: %q, %v after %d questions; 14 may have been skipped, so that the leader is asked", reason, err, l.asked)
	}
}

func TestReach_fallsBackAtOnceWhereOthersWaitedInVain(t *testing.T) {
	l := &leader{positions: []uint64{10}}
	r := caughtUp(l, 9)
	mustFresh(t, r, reasonBehind)
	if r.behind != 10 {
		t.Fatalf("behind %d", r.behind)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // who waited would notice
	if reason := r.await(ctx, 10); reason != reasonBehind {
		t.Fatalf("%q", reason)
	}
	r.saw(10)
	mustFresh(t, r, "")
}

func TestReach_isWatchedAgainWhenItDoesNotMove(t *testing.T) {
	l := &leader{positions: []uint64{10}}
	r := caughtUp(l, 9)
	mustFresh(t, r, reasonBehind)
	r.stuck = r.stuck.Add(-2 * rewatchAfter)
	mustFresh(t, r, reasonBehind)
	select {
	case <-r.again:
	default:
		t.Fatal("not watched again")
	}
}

func TestReach_noticesAnotherStream(t *testing.T) {
	for name, p := range map[string]position{
		"made again":     {last: 9, messages: 5, created: time.Unix(2, 0)},
		"back in time":   {last: 8, messages: 5, created: time.Unix(1, 0)},
		"fewer messages": {last: 9, messages: 4, created: time.Unix(1, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReach(func(context.Context) (position, error) { return p, nil }, new(atomic.Uint64), func() int { return 5 })
			r.began(position{last: 9, created: time.Unix(1, 0)})
			r.complete()
			mustFresh(t, r, reasonChanged)
		})
	}
}

func TestReach_whereNobodyElseWritesNobodyIsAsked(t *testing.T) {
	l := &leader{positions: []uint64{10}}
	r := caughtUp(l, 9)
	life, connected := uint64(0), true
	r.sole = func() (uint64, bool) { return life, connected }
	mustFresh(t, r, "")
	if l.asked != 0 {
		t.Fatalf("asked %d times; nothing was written since the first pass began", l.asked)
	}
	for rev := uint64(10); rev <= 12; rev++ {
		r.wrote.Store(rev)
		r.saw(rev)
		mustFresh(t, r, "")
	}
	if l.asked != 1 {
		t.Fatalf("asked %d times, want once: the first pass may have skipped something, and after it there is nothing but what this process wrote", l.asked)
	}
	r.wrote.Store(13)
	arrived := make(chan struct{})
	go func() {
		defer close(arrived)
		for waits := false; !waits; { // until the read waits for its own write
			r.mu.Lock()
			waits = r.waiting
			r.mu.Unlock()
		}
		r.saw(13)
	}()
	mustFresh(t, r, "")
	<-arrived
	if l.asked != 1 || r.solid != 13 {
		t.Fatalf("asked %d times, up to %d; the own write is waited for", l.asked, r.solid)
	}
	r.wrote.Store(20)
	l.positions = []uint64{20}
	r.saw(20)
	mustFresh(t, r, "")
	if l.asked != 2 {
		t.Fatalf("asked %d times; 14 to 19 may come yet", l.asked)
	}
	life = 1
	mustFresh(t, r, "")
	if l.asked != 3 {
		t.Fatalf("asked %d times; what a store has after a restart is asked of it", l.asked)
	}
	life, connected = 0, false
	mustFresh(t, r, "")
	if l.asked != 4 {
		t.Fatalf("asked %d times; a store that is away is not answered for", l.asked)
	}
}
