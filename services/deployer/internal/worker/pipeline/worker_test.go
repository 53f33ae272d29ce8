package pipeline_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/worker/pipeline"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
)

// pushTo moves the branch of app 0 and routes the event about it; it returns the wake-up.
func pushTo(t *testing.T, m *model, p *process, id, hash string) *message {
	t.Helper()
	k := m.key(0)
	m.mu.Lock()
	m.heads[k.App] = hash
	m.mu.Unlock()
	err := p.router.Route(t.Context(), &eventsv1.PushEvent{
		Id: id, Workspace: modelWorkspace, Repository: modelRepository, RefType: eventsv1.PushEvent_BRANCH, Ref: k.App,
		Action: eventsv1.PushEvent_UPDATED, New: &eventsv1.Commit{Hash: hash}, ReceiveTime: timestamppb.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return m.work.take()
}

func currentCommit(t *testing.T, m *model) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(m.dir, "apps", modelWorkspace, m.key(0).App, "current", "commit"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (m *model) state(t *testing.T, number int32) *deployerv1.Deployment {
	t.Helper()
	rec, _, err := m.records.Get(t.Context(), m.key(0).Record(number))
	if err != nil {
		t.Fatal(err)
	}
	return rec.GetDeployment()
}

// TestHandle_sleeperCannotSwitch stops a worker right before its switch, as SIGSTOP would, until
// its wake-up was given to another one and the app has moved on.
func TestHandle_sleeperCannotSwitch(t *testing.T) {
	m := newModel(t, 1)
	m.calm = true
	asleep, wakeUp := make(chan struct{}), make(chan struct{})
	sleeper := m.deployer(func() {
		close(asleep)
		<-wakeUp
	})
	other := m.deployer(nil)

	first := pushTo(t, m, other, "e1", strings.Repeat("a", 40))
	slept := make(chan error, 1)
	go func() { slept <- sleeper.handle(t.Context(), first) }()
	<-asleep
	if err := other.handle(t.Context(), first); err != nil {
		t.Fatalf("take over: %v", err)
	}
	second := pushTo(t, m, other, "e2", strings.Repeat("b", 40))
	if err := other.handle(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	close(wakeUp)
	if err := <-slept; err != nil && !errors.Is(err, stream.ErrLeave) {
		t.Fatalf("the sleeper: %v", err)
	}
	if got := currentCommit(t, m); got != strings.Repeat("b", 40) {
		t.Fatalf("current holds %s", got)
	}
	l, _, err := m.lanes.Get(t.Context(), m.key(0).String())
	if err != nil || l.GetLive().GetNumber() != 2 || l.GetRunning() != nil {
		t.Fatalf("%v %v", l, err)
	}
	if d := m.state(t, 1); d.GetState() != deployerv1.Deployment_COMPLETED || d.GetAttempt() != 2 {
		t.Fatalf("deployment 1: %v", d)
	}
	if m.stale.Load() != 1 {
		t.Fatalf("%d attempts fenced off", m.stale.Load())
	}
}

// TestHandle_diedAfterTheSwitch finishes the record of a release that went live without it.
func TestHandle_diedAfterTheSwitch(t *testing.T) {
	m := newModel(t, 1)
	m.calm = true
	p := m.deployer(nil)
	wake := pushTo(t, m, p, "e1", strings.Repeat("a", 40))
	dying := m.deployer(nil)
	dying.dispatcher.Lanes = dieOnEnd{faultyLanes{m}}
	if _, died := m.survive(func() error { return dying.handle(t.Context(), wake) }); !died {
		t.Fatal("did not die")
	}
	if got := currentCommit(t, m); got != strings.Repeat("a", 40) {
		t.Fatalf("current holds %s", got)
	}
	if d := m.state(t, 1); d.GetState() != deployerv1.Deployment_PROCESSING {
		t.Fatalf("%v", d)
	}
	if err := p.handle(t.Context(), wake); err != nil {
		t.Fatal(err)
	}
	l, _, err := m.lanes.Get(t.Context(), m.key(0).String())
	if err != nil || l.GetLive().GetDirectory() != "1" || l.GetLive().GetHash() != strings.Repeat("a", 40) {
		t.Fatalf("live %v %v", l.GetLive(), err)
	}
	d := m.state(t, 1)
	if d.GetState() != deployerv1.Deployment_COMPLETED || d.GetCommit().GetHash() != strings.Repeat("a", 40) || d.GetProgressPercent() != 100 {
		t.Fatalf("%v", d)
	}
}

// dieOnEnd dies instead of writing that a run has ended.
type dieOnEnd struct{ lane.Lanes }

func (d dieOnEnd) CompareAndSet(ctx context.Context, key string, l *storev1.Lane, rev uint64) (uint64, error) {
	if l.GetLive() != nil {
		panic(crash{})
	}
	return d.Lanes.CompareAndSet(ctx, key, l, rev)
}

// TestHandle_rechecksWhatPeopleSaved: auto-deploy switched off between push and start.
func TestHandle_rechecksWhatPeopleSaved(t *testing.T) {
	m := newModel(t, 1)
	m.calm = true
	p := m.deployer(nil)
	for _, c := range []struct {
		name   string
		app    *storev1.App
		reason string
	}{
		{"off", &storev1.App{Repository: modelRepository, Branch: m.key(0).App}, "AUTO_DEPLOY_OFF"},
		{"branch", &storev1.App{Repository: modelRepository, Branch: "other", AutoDeploy: true}, "BRANCH_NOT_WATCHED"},
		{"gone", nil, "APP_NOT_FOUND"},
	} {
		wake := pushTo(t, m, p, c.name, strings.Repeat("c", 40))
		q := m.deployerWith(nil, fixedApp{modelAppsReader{m}, c.app})
		if err := q.handle(t.Context(), wake); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		l, _, err := m.lanes.Get(t.Context(), m.key(0).String())
		if err != nil {
			t.Fatal(err)
		}
		d := m.state(t, l.GetLastNumber())
		if d.GetState() != deployerv1.Deployment_CANCELLED || d.GetError().GetReason() != c.reason {
			t.Errorf("%s: %v", c.name, d)
		}
		m.work.ack(wake.seq)
	}
}

type fixedApp struct {
	modelAppsReader
	app *storev1.App
}

func (f fixedApp) App(context.Context, lane.Key) (*storev1.App, error) {
	if f.app == nil {
		return nil, apierr.New(apierr.ReasonAppNotFound, "gone")
	}
	return f.app, nil
}

// TestHandle_stopsInTheMiddle gives the deployment back when the process stops.
func TestHandle_stopsInTheMiddle(t *testing.T) {
	m := newModel(t, 1)
	m.calm = true
	p := m.deployer(nil)
	wake := pushTo(t, m, p, "e1", strings.Repeat("a", 40))
	ctx, stop := context.WithCancel(t.Context())
	q := m.deployerWith(nil, stoppingApps{modelAppsReader{m}, stop})
	if err := q.handle(ctx, wake); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	if d := m.state(t, 1); d.GetState() != deployerv1.Deployment_PENDING || d.GetWaitingFor() != nil {
		t.Fatalf("%v", d)
	}
	if err := p.handle(t.Context(), wake); err != nil {
		t.Fatal(err)
	}
	if d := m.state(t, 1); d.GetState() != deployerv1.Deployment_COMPLETED {
		t.Fatalf("%v", d)
	}
}

// stoppingApps stops the process when the fetch is about to begin.
type stoppingApps struct {
	modelAppsReader
	stop func()
}

func (s stoppingApps) FullName(ctx context.Context, _, _ string) (string, error) {
	s.stop()
	return "", ctx.Err()
}

func TestDefaultBackoff_growsToItsLimit(t *testing.T) {
	for _, most := range []time.Duration{time.Second, 30 * time.Second} {
		pause := pipeline.DefaultBackoff(most)
		for n := range int32(60) {
			if d := pause(n, ""); d < min(5*time.Second, most)*3/4 || d > most {
				t.Fatalf("%d: %v", n, d)
			}
		}
		if d := pause(0, "BITBUCKET_RATE_LIMITED"); d < most*3/4 {
			t.Fatal(d)
		}
	}
}
