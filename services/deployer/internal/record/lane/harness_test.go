package lane_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const repository = "85d08b4e-571d-44e9-a507-fa476535aa98"

// bench drives one lane and the records that follow from it, without any store.
type bench struct {
	t       *testing.T
	l       *storev1.Lane
	records map[int32]*storev1.Deployment
	now     time.Time

	retention int32
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, retention: 2, l: &storev1.Lane{}, records: map[int32]*storev1.Deployment{}, now: start}
	lane.Begin(b.l)
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	b.flush()
}

func (b *bench) flush() {
	for _, c := range b.l.GetOutbox() {
		for range 2 { // written twice changes nothing
			if rec, ok := lane.Apply(b.records[c.GetNumber()], "acme-inc", "web", b.l.GetGeneration(), c); ok {
				b.records[c.GetNumber()] = rec
			}
		}
	}
	b.l.Outbox = nil
}

func (b *bench) ask(event, hash string, trigger deployerv1.Deployment_Trigger) lane.Request {
	a := lane.Request{Event: event, ReceiveTime: b.now, Trigger: trigger, Repository: repository, Branch: "main", Server: "default", Now: b.now}
	if hash != "" {
		a.Commit = &deployerv1.DeploymentCommit{Hash: hash, Message: "m " + hash}
	}
	return a
}

func (b *bench) push(event, hash string) int32 {
	b.t.Helper()
	d, err := lane.Accept(b.l, b.ask(event, hash, deployerv1.Deployment_PUSH))
	if err != nil && !errors.Is(err, lane.ErrSkip) {
		b.t.Fatal(err)
	}
	b.flush()
	return d.Number
}

func (b *bench) claim(wake uint64) lane.Verdict {
	v := lane.Claim(b.l, lane.Claimant{Wake: wake, Server: "default", Worker: "w", Now: b.now})
	b.flush()
	return v
}

func (b *bench) fix(hash string) int32 {
	b.t.Helper()
	live, err := lane.FixCommit(b.l, b.l.GetEpoch(), repository, &deployerv1.DeploymentCommit{Hash: hash}, hash, b.now)
	b.must(err)
	return live
}

func (b *bench) complete() {
	b.t.Helper()
	r := b.l.GetRunning()
	b.must(lane.Complete(b.l, b.l.GetEpoch(), lane.Result{Now: b.now, Directory: fmt.Sprint(r.GetJob().GetNumber()), Retention: b.retention}))
}

func (b *bench) deploy(event, hash string) int32 {
	b.t.Helper()
	n := b.push(event, hash)
	if v := b.claim(uint64(n)); v != lane.Start {
		b.t.Fatalf("claim of %d: %v", n, v)
	}
	b.fix(hash)
	b.complete()
	return n
}

func (b *bench) state(n int32) deployerv1.Deployment_State {
	return b.records[n].GetDeployment().GetState()
}

func (b *bench) want(n int32, s deployerv1.Deployment_State) {
	b.t.Helper()
	if got := b.state(n); got != s {
		b.t.Errorf("deployment %d is %v, want %v", n, got, s)
	}
}
