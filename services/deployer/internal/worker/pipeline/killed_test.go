package pipeline_test

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/engine/hosting"
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/worker/sites"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
)

// visitors asks what is served of app 0, as its disk says, and wants a commit's release.
func (m *model) visitors(t *testing.T, when string, number int32, commit string) {
	t.Helper()
	releases, err := release.Open(t.Context(), m.dir, "default")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = releases.Close() }()
	k := m.key(0)
	var site hosting.Site
	if site, err = sites.New(releases, "default", logs.Discard()).Site(t.Context(), k.Workspace, k.App, 0); err != nil {
		t.Fatalf("%s: visitors get %v", when, err)
	}
	defer func() { _ = site.Release.Close() }()
	b, err := fs.ReadFile(site.Release.FS(), "commit")
	if err != nil || string(b) != commit || site.Number != number {
		t.Errorf("%s: visitors get %q of release %d (%v), want %q of %d", when, b, site.Number, err, commit, number)
	}
}

// recorded brings what is served up to date with the records, as the workers that watch them do.
func (m *model) recorded(t *testing.T) {
	t.Helper()
	releases, err := release.Open(t.Context(), m.dir, "default")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = releases.Close() }()
	k := m.key(0)
	a, err := modelAppsReader{m}.App(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	l, rev, err := m.lanes.Get(t.Context(), k.String())
	if err != nil {
		t.Fatal(err)
	}
	site := sites.Describe(a, l, "default")
	site.Lane = rev
	if err := releases.SetSite(t.Context(), k.Workspace, k.App, site, release.Runs{Newest: l.GetEpoch(), Running: l.GetRunning().GetEpoch()}); err != nil {
		t.Fatal(err)
	}
}

// TestHandle_diedBetweenAnnouncementAndSwitch: what visitors get is the release that is live, whole, before
// and after the worker's death, until another worker has finished the deployment.
func TestHandle_diedBetweenAnnouncementAndSwitch(t *testing.T) {
	m := newModel(t, 1)
	m.calm = true
	p := m.deployer(nil)
	one, two := strings.Repeat("a", 40), strings.Repeat("b", 40)
	first := pushTo(t, m, p, "e1", one)
	if err := p.handle(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	m.work.ack(first.seq)
	m.visitors(t, "the first is live", 1, one)
	m.recorded(t)

	second := pushTo(t, m, p, "e2", two)
	dying := m.deployer(func() { panic(crash{}) })
	if _, died := m.survive(func() error { return dying.handle(t.Context(), second) }); !died {
		t.Fatal("did not die")
	}
	m.visitors(t, "the worker died", 1, one)
	m.recorded(t)
	m.visitors(t, "the records were read", 1, one)

	if err := p.handle(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	m.visitors(t, "another worker took over", 2, two)
	m.recorded(t)
	m.visitors(t, "and its records were read", 2, two)
}

// TestHandle_diedAfterTheSwitch_visitorsKeepTheRelease although no record tells of it yet.
func TestHandle_diedAfterTheSwitch_visitorsKeepTheRelease(t *testing.T) {
	m := newModel(t, 1)
	m.calm = true
	p := m.deployer(nil)
	one := strings.Repeat("a", 40)
	wake := pushTo(t, m, p, "e1", one)
	dying := m.deployer(nil)
	dying.dispatcher.Lanes = dieOnEnd{faultyLanes{m}}
	if _, died := m.survive(func() error { return dying.handle(t.Context(), wake) }); !died {
		t.Fatal("did not die")
	}
	m.visitors(t, "the worker died", 1, one)
	m.recorded(t)
	m.visitors(t, "the records were read", 1, one)
	if err := p.handle(t.Context(), wake); err != nil {
		t.Fatal(err)
	}
	m.recorded(t)
	m.visitors(t, "another worker took over", 1, one)
}

// TestCandidate_killedBetweenAnyTwoWrites: two pushes go through candidates, one deploys and one is turned
// away, and a deployer dies before each write in turn. Nothing is lost, nothing comes twice, and what was
// turned away is not live, although it is the branch's head.
func TestCandidate_killedBetweenAnyTwoWrites(t *testing.T) {
	writes := decideOnce(t, 0)
	if writes < 20 {
		t.Fatalf("only %d writes", writes)
	}
	for at := range writes {
		t.Run(fmt.Sprint("before write ", at+1), func(t *testing.T) {
			t.Parallel()
			decideOnce(t, at+1)
		})
	}
}

// decideOnce has the two pushes decided about and deployed, while the deployer dies before one write and
// another takes its place. It returns how many writes there were.
func decideOnce(t *testing.T, dieAt int64) int64 {
	t.Helper()
	m := newModel(t, 1)
	m.calm, m.candidates, m.dieAt = true, true, dieAt
	k, one, two := m.key(0), strings.Repeat("a", 40), strings.Repeat("b", 40)
	m.changes.Store(one, "site/index.html")
	m.changes.Store(two, "docs/index.html")
	m.heads[k.App] = two
	for i, hash := range []string{one, two} {
		m.pushes.publish("", &eventsv1.PushEvent{
			Id: fmt.Sprintf("hook.%d.0", i), Workspace: modelWorkspace, Repository: modelRepository, Webhook: "hook", Delivery: int32(i), RefType: eventsv1.PushEvent_BRANCH,
			Ref: k.App, Action: eventsv1.PushEvent_UPDATED, New: &eventsv1.Commit{Hash: hash}, ReceiveTime: timestamppb.Now(),
		})
	}
	m.carryOut()
	if died := m.crashes.Load() == 1; died != (dieAt > 0) {
		t.Fatalf("died: %v", died)
	}
	l, _, err := m.lanes.Get(t.Context(), k.String())
	if err != nil {
		t.Fatal(err)
	}
	if l.GetLastNumber() != 1 || l.GetLive().GetHash() != one || currentCommit(t, m) != one {
		t.Errorf("%d deployments, live is %v, current holds %s", l.GetLastNumber(), l.GetLive(), currentCommit(t, m))
	}
	if d := m.state(t, 1); d.GetState() != deployerv1.Deployment_COMPLETED || d.GetCommit().GetHash() != one {
		t.Errorf("deployment 1: %v", d)
	}
	for i, want := range []int32{1, 0} {
		if got := m.outcomes[fmt.Sprintf("hook.%d.0", i)]; len(got) != 1 || !got[want] {
			t.Errorf("delivery %d was told of deployments %v, want %d", i, got, want)
		}
	}
	m.visitors(t, "in the end", 1, one)
	return m.steps.Load()
}

// carryOut does all the work there is, one step after the other. Who dies is replaced; its messages come
// again, and the wake-ups of deciders do not.
func (m *model) carryOut() {
	m.t.Helper()
	ctx, p := m.t.Context(), m.deployer(nil)
	take := func(q *queue, handle func(context.Context, *message) error) bool {
		msg := q.take()
		if msg == nil {
			return false
		}
		err, died := m.survive(func() error { return handle(ctx, msg) })
		if died {
			p = m.deployer(nil)
		}
		if died || err != nil {
			q.extend(msg.seq, 0)
		} else {
			q.ack(msg.seq)
		}
		return true
	}
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		worked := take(m.pushes, func(ctx context.Context, msg *message) error { return p.route(ctx, msg) }) ||
			take(m.decide, func(ctx context.Context, msg *message) error {
				for ; msg != nil; msg = m.decide.take() { // a process remembers all that it was woken for
					m.decide.ack(msg.seq)
				}
				return p.decider.Decide(ctx, m.key(0))
			}) ||
			take(m.work, func(ctx context.Context, msg *message) error { return p.handle(ctx, msg) })
		if worked {
			continue
		}
		if m.idle() {
			return
		}
		m.due.Range(func(key, at any) bool {
			k, _ := key.(lane.Key)
			err, died := m.survive(func() error {
				next, err := p.janitor.Handle(ctx, k.Workspace, k.App, 1)
				if err == nil && next.IsZero() {
					m.due.CompareAndDelete(k, at)
				}
				return err
			})
			if died {
				p = m.deployer(nil)
			}
			if err != nil {
				m.t.Fatal(err)
			}
			return true
		})
		pause(time.Millisecond)
	}
	m.t.Fatal("there is still work, and nobody does it")
}
