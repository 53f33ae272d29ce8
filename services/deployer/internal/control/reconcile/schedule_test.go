package reconcile

import (
	"errors"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

func TestDue_whenARepositoryIsPolled(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	idx := watchedBy("web")
	for name, c := range map[string]struct {
		state    *storev1.Reconciliation
		asked    bool
		answered time.Time
		want     time.Time
	}{
		"as usual":                    {state: &storev1.Reconciliation{LastTime: timestamp(at(time.Second)), NextTime: timestamp(at(31 * time.Second))}, want: at(31 * time.Second)},
		"a restart":                   {state: &storev1.Reconciliation{LastTime: timestamp(at(-time.Second)), NextTime: timestamp(at(29 * time.Second))}, want: start},
		"a restart after failures":    {state: &storev1.Reconciliation{LastTime: timestamp(at(-time.Second)), NextTime: timestamp(at(29 * time.Second)), Failures: 9}, want: start},
		"a restart while we wait":     {state: &storev1.Reconciliation{LastTime: timestamp(at(-time.Second)), NextTime: timestamp(at(29 * time.Second)), Missing: []*storev1.Missing{{}}}, want: start},
		"a restart, but asked not to": {state: &storev1.Reconciliation{LastTime: timestamp(at(-time.Second)), NextTime: timestamp(at(time.Minute)), Failures: 1, NotBefore: timestamp(at(time.Minute))}, want: at(time.Minute)},
		"another answers again":       {state: &storev1.Reconciliation{LastTime: timestamp(at(time.Second)), NextTime: timestamp(at(5 * time.Minute)), Failures: 3}, answered: at(2 * time.Second), want: at(time.Second)},
		"another answered before":     {state: &storev1.Reconciliation{LastTime: timestamp(at(3 * time.Second)), NextTime: timestamp(at(5 * time.Minute)), Failures: 3}, answered: at(2 * time.Second), want: at(5 * time.Minute)},
		"this one does not fail":      {state: &storev1.Reconciliation{LastTime: timestamp(at(time.Second)), NextTime: timestamp(at(5 * time.Minute))}, answered: at(2 * time.Second), want: at(5 * time.Minute)},
		"a deployment waits":          {state: &storev1.Reconciliation{LastTime: timestamp(at(time.Second)), NextTime: timestamp(at(5 * time.Minute))}, asked: true, want: at(16 * time.Second)},
	} {
		r := New(Config{Now: func() time.Time { return start }})
		r.asked["k"], r.answered = c.asked, c.answered
		if got := r.due("k", c.state, idx); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", name, got.Sub(start), c.want.Sub(start))
		}
	}
}

// TestFailed_theIntervalBoundsThePause, and only a time that Bitbucket names differs from it.
func TestFailed_theIntervalBoundsThePause(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	r := New(Config{Now: func() time.Time { return now }})
	state := &storev1.Reconciliation{}
	for range 50 {
		if next := r.failed(state, errors.New("away")); !next.IsZero() || state.GetNotBefore() != nil {
			t.Fatalf("next poll at %v", next)
		}
	}
	if state.GetFailures() != 50 || !state.GetFailingSince().AsTime().Equal(now) {
		t.Errorf("%v", state)
	}
	for _, wait := range []time.Duration{2 * time.Second, time.Hour} {
		if next := r.failed(state, &remote.Error{RetryAfter: wait}); !next.Equal(now.Add(wait)) || !state.GetNotBefore().AsTime().Equal(next) {
			t.Errorf("asked to wait for %v: %v", wait, next)
		}
	}
}

// TestTurned_oneThatAnswersAgainWakesTheOthers.
func TestTurned_oneThatAnswersAgainWakesTheOthers(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	r := New(Config{Now: func() time.Time { return now }})
	later := now.Add(time.Hour)
	turned := func(key string, failing bool) {
		t.Helper()
		if next := r.turned(key, later, failing); !next.Equal(later) {
			t.Errorf("%s: %v", key, next)
		}
		r.loop.Set(key, later) // as the loop does
	}
	at := func(key string) time.Time {
		t.Helper()
		at, there := r.loop.At(key)
		if !there {
			t.Errorf("%s is not polled", key)
		}
		return at
	}
	for _, k := range []string{"a", "b", "c", "well"} {
		r.changed(k, watchedBy("web"))
	}
	for _, k := range []string{"a", "b"} {
		turned(k, true)
	}
	turned("well", false)
	turned("c", false)
	if !at("a").Equal(later) || !r.answered.IsZero() {
		t.Fatal("one that was well all the time tells nothing")
	}
	turned("a", false)
	if !at("b").Equal(now) || !at("a").Equal(later) || !at("c").Equal(later) || !r.answered.Equal(now) {
		t.Errorf("b at %v, answered %v", at("b"), r.answered)
	}
}

func watchedBy(app string) *storev1.RepositoryIndex {
	return &storev1.RepositoryIndex{Watches: []*storev1.Watch{{App: app, Branch: "main", AutoDeploy: true}}}
}

// TestChanged_onlyWhatIsWatchedIsPolled, or waited for.
func TestChanged_onlyWhatIsWatchedIsPolled(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	r := New(Config{Now: func() time.Time { return now }})
	polled := func(want bool, when string) {
		t.Helper()
		if _, got := r.loop.At("k"); got != want {
			t.Errorf("%s: polled %v", when, got)
		}
	}
	unwatched := &storev1.RepositoryIndex{}
	r.changed("k", unwatched)
	polled(false, "no app")
	r.changed("k", &storev1.RepositoryIndex{Watches: []*storev1.Watch{{App: "web", Branch: "main"}}})
	polled(true, "auto-deploy off: people are told how the branch stands")
	r.changed("k", watchedBy("web"))
	polled(true, "auto-deploy")
	later := now.Add(time.Hour)
	r.loop.Set("k", later)
	r.changed("k", watchedBy("other"))
	if at, _ := r.loop.At("k"); !at.Equal(later) {
		t.Errorf("another app: at %v", at)
	}
	tags := watchedBy("web")
	tags.Watches[0].Tags = []string{"v*"}
	r.changed("k", tags)
	if at, _ := r.loop.At("k"); !at.Equal(now) {
		t.Errorf("patterns that were not watched before: at %v", at)
	}
	r.changed("k", unwatched)
	polled(false, "the app is gone")
	r.asked["k"] = true
	r.changed("k", unwatched)
	polled(true, "a deployment waits")
	delete(r.asked, "k")
	if next := r.turned("k", later, false); !next.IsZero() || len(r.watched) != 0 {
		t.Errorf("after the poll that it waited for: %v", next)
	}
	r.changed("k", watchedBy("web"))
	r.changed("k", nil)
	polled(false, "gone")
}
