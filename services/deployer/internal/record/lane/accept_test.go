package lane_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

func TestAccept_latestWinsAndEventsCountOnce(t *testing.T) {
	b := newBench(t)
	if n := b.push("e1", "a"); n != 1 {
		t.Fatal(n)
	}
	if v := b.claim(10); v != lane.Start {
		t.Fatal(v)
	}
	for i := range 5 {
		if n := b.push(fmt.Sprintf("e%d", i+2), "b"); n != int32(i+2) {
			t.Fatal(n)
		}
	}
	if n := b.push("e3", "b"); n != 3 || b.l.GetLastNumber() != 6 {
		t.Fatalf("the same event again: %d", n)
	}
	b.want(1, deployerv1.Deployment_PROCESSING)
	for n := int32(2); n <= 5; n++ {
		b.want(n, deployerv1.Deployment_SUPERSEDED)
		if by := b.records[n].GetDeployment().GetSupersededBy(); by != n+1 {
			t.Errorf("%d superseded by %d", n, by)
		}
	}
	b.want(6, deployerv1.Deployment_PENDING)
}

func TestAccept_forgottenEventsAreNotNew(t *testing.T) {
	b := newBench(t)
	b.push("first", "a")
	for i := range 600 {
		b.now = b.now.Add(time.Minute)
		b.push(fmt.Sprintf("e%d", i), "b")
	}
	before := b.l.GetLastNumber()
	old := b.ask("first", "a", deployerv1.Deployment_PUSH)
	old.ReceiveTime = start
	if d, err := lane.Accept(b.l, old); !errors.Is(err, lane.ErrSkip) || d.Number != 0 {
		t.Fatalf("%+v %v", d, err)
	}
	old.Replay = true
	if d, err := lane.Accept(b.l, old); err != nil || !d.New || b.l.GetLastNumber() != before+1 {
		t.Fatalf("replay: %+v %v", d, err)
	}
	// One that was held up for a while is new.
	late := b.ask("late", "c", deployerv1.Deployment_PUSH)
	late.ReceiveTime = b.l.GetForgottenTime().AsTime().Add(-time.Minute)
	if d, err := lane.Accept(b.l, late); err != nil || !d.New {
		t.Fatalf("late: %+v %v", d, err)
	}
}

func TestAccept_lateDeliveryOfAReconciledHead(t *testing.T) {
	b := newBench(t)
	d, err := lane.Accept(b.l, b.ask("reconciled:1", "a", deployerv1.Deployment_RECONCILED))
	b.must(err)
	late, err := lane.Accept(b.l, b.ask("hook.1.0", "a", deployerv1.Deployment_PUSH))
	b.must(err)
	if late.Number != d.Number || !late.Reconciled || late.New {
		t.Fatalf("%+v", late)
	}
	// A push of the same commit after that is a push of its own: A, B, A.
	if n := b.push("hook.2.0", "b"); n != 2 {
		t.Fatal(n)
	}
	if n := b.push("hook.3.0", "a"); n != 3 {
		t.Fatal(n)
	}
}

func TestAccept_backlogIsRefusedUntilWritten(t *testing.T) {
	b := newBench(t)
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		_, err = lane.Accept(b.l, b.ask(fmt.Sprint(i), "a", deployerv1.Deployment_PUSH))
	}
	if !errors.Is(err, lane.ErrBacklog) {
		t.Fatal(err)
	}
	b.flush()
	if _, err := lane.Accept(b.l, b.ask("after", "a", deployerv1.Deployment_PUSH)); err != nil {
		t.Fatal(err)
	}
}
