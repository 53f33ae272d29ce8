package deployer_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

const (
	shortInterval = 250 * time.Millisecond
	longInterval  = 4 * shortInterval // as 2 minutes are to 30 seconds
)

// polled waits until the repository's polls stand in a way, and returns how.
func (b *bench) polled(st *store.Store, what string, fn func(*storev1.Reconciliation) bool) *storev1.Reconciliation {
	b.t.Helper()
	var state *storev1.Reconciliation
	testkit.Eventually(b.t, timeout, func() (err error) {
		if state, _, err = st.Reconcile.Get(b.t.Context(), workspace+"."+repoID); err != nil {
			return err
		}
		if !fn(state) {
			return fmt.Errorf("not %s: %v", what, state)
		}
		return nil
	})
	return state
}

// pause is the time between a repository's last poll and the next.
func pause(s *storev1.Reconciliation) time.Duration {
	return s.GetNextTime().AsTime().Sub(s.GetLastTime().AsTime())
}

func (b *bench) verified() {
	b.world.do(func() {
		hook := proto.CloneOf(b.world.hooks[repoID])
		hook.State, hook.LastVerifiedTime = webhookv1.Webhook_ACTIVE, timestamppb.Now()
		b.world.hooks[repoID] = hook
	})
}

// A delivery is lost while its webhook is known to work, so that polls are far apart: the next of them
// finds the push, and all that was pushed since. From then on the webhook is not relied on, and what is
// lost next is found as usual.
func TestReconcile_findsALostDeliveryAlsoAtTheLongInterval(t *testing.T) {
	for name, meanwhile := range map[string]func(b *bench){
		"all the while":     func(*bench) {},
		"across a restart":  func(b *bench) { b.stopOne(); b.start() },
		"another one polls": func(b *bench) { b.start() },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, quick, func(c *deployer.Config) { c.ReconcileInterval = shortInterval })
			st := b.stores()
			b.repo.Commit("main", "zero", map[string]string{"index.html": "zero"})
			b.create("web", web(true))
			b.verified()
			far := b.polled(st, "polled at the long interval", func(s *storev1.Reconciliation) bool { return pause(s) > longInterval/2 })
			b.repo.Commit("main", "lost", map[string]string{"index.html": "lost"})
			last := b.repo.Commit("main", "lost too", map[string]string{"index.html": "lost too"})
			meanwhile(b)
			found := b.polled(st, "found", func(s *storev1.Reconciliation) bool { return s.GetMissedTime() != nil })
			if at, next := found.GetMissedTime().AsTime(), far.GetNextTime().AsTime(); name == "all the while" && at.Before(next) {
				t.Errorf("found at %v, before the poll at %v", at, next)
			}
			if d := b.await("web", 1, deployerv1.Deployment_COMPLETED); d.GetTrigger() != deployerv1.Deployment_RECONCILED || d.GetCommit().GetHash() != last || b.live("web") != "lost too" {
				t.Errorf("live %q: %v", b.live("web"), d)
			}
			b.polled(st, "polled at the usual interval", func(s *storev1.Reconciliation) bool { return pause(s) < longInterval/2 })
			again := b.repo.Commit("main", "lost again", map[string]string{"index.html": "lost again"})
			if d := b.await("web", 2, deployerv1.Deployment_COMPLETED); d.GetCommit().GetHash() != again {
				t.Errorf("%v", d)
			}
			if n := b.latest("web"); n != 2 {
				t.Errorf("%d deployments of two finds", n)
			}
		})
	}
}

// Two workers of one directory deploy an app's pushes by turns, and both serve it: no visitor of either is
// ever told that there is nothing, or gets an older release than one before.
func TestSites_twoWorkersOfOneDirectory(t *testing.T) {
	b := newBench(t, apiAlone)
	work := func() *house {
		return (&house{bench: b}).beside("default", func(c *deployer.Config) { c.Worker, c.DataDir = true, b.cfg.DataDir })
	}
	workers := []*house{work(), work()}
	a := web(true)
	a.Serve = &deployerv1.ServeOptions{Directory: "."}
	b.create("web", a)
	b.push("0")
	b.await("web", 1, deployerv1.Deployment_COMPLETED)
	for _, w := range workers {
		w.want("web", 200, "0")
	}
	const pushes = 12
	ran := map[string]bool{}
	newest := 0
	for i := range pushes {
		b.push(fmt.Sprint(i + 1))
		testkit.Eventually(t, timeout, func() error {
			for _, w := range workers {
				status, text, _ := b.visit("GET", w.address, "web.acme-inc.localhost", "/")
				version := 0
				if _, err := fmt.Sscan(text, &version); status != 200 || err != nil || version < newest {
					t.Fatalf("after push %d a visitor gets %d %q, after version %d", i+1, status, text, newest)
				}
				newest = version
			}
			d, err := b.deployment("web", int32(i+2))
			if err == nil && (d.GetState() != deployerv1.Deployment_COMPLETED || newest != i+1) {
				err = errors.New(d.GetState().String())
			}
			return err
		})
		l, _, err := b.stores().Lanes.Get(t.Context(), workspace+".web")
		if err != nil {
			t.Fatal(err)
		}
		ran[l.GetLive().GetDirectory()] = true
	}
	if len(ran) != pushes {
		t.Errorf("%d releases of %d pushes", len(ran), pushes)
	}
}
