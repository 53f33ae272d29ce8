package lane_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// branch is a branch at Bitbucket, with the deliveries of its pushes.
type branch struct {
	*bench
	head   string
	asked  bool // Bitbucket answers when it is asked where the branch is
	events int
	wakes  uint64
}

func newBranch(t *testing.T, head string) *branch {
	b := &branch{bench: newBench(t), head: head, asked: true, wakes: 1000}
	b.retention = 20
	lane.Baseline(b.l, repository, "main", head, b.now)
	return b
}

// move pushes at Bitbucket, and returns what its delivery says.
func (b *branch) move(to string) lane.Step {
	s := lane.Step{Old: b.head, New: to}
	b.head = to
	return s
}

// deliver brings a push, each time under another id, and returns what was decided.
func (b *branch) deliver(s lane.Step) lane.Decision {
	b.t.Helper()
	b.events++
	a := b.ask(fmt.Sprint("hook.", b.events), s.New, deployerv1.Deployment_PUSH)
	a.Step = &s
	if place, _ := lane.PlaceOf(b.l, a); place == lane.Doubtful && b.asked {
		a.Actual = &b.head
	}
	if s.New == "" {
		if err := lane.RefDeleted(b.l, a); err != nil {
			b.t.Fatal(err)
		}
		return lane.Decision{}
	}
	d, err := lane.Accept(b.l, a)
	if err != nil {
		b.t.Fatal(err)
	}
	b.flush()
	return d
}

// work runs all that waits, as a worker does.
func (b *branch) work() {
	b.t.Helper()
	for b.wakes++; b.claim(b.wakes) == lane.Start; b.wakes++ {
		l := b.l
		live, err := lane.FixCommit(l, l.GetEpoch(), repository, &deployerv1.DeploymentCommit{Hash: b.head}, b.head, b.now)
		switch {
		case errors.Is(err, lane.ErrRepeated):
			err = lane.Repeated(l, l.GetEpoch(), repository, lane.Result{Now: b.now})
		case err == nil && live != 0:
			err = lane.Supersede(l, l.GetEpoch(), live, lane.Result{Now: b.now})
		case err == nil:
			b.complete()
		}
		b.must(err)
	}
}

func (b *branch) pushed(to string) lane.Step {
	b.t.Helper()
	s := b.move(to)
	b.deliver(s)
	b.work()
	return s
}

// rollBack makes a kept release live again.
func (b *branch) rollBack(to string) {
	b.t.Helper()
	for _, kept := range b.l.GetKept() {
		if kept.GetHash() == to {
			b.events++
			a := b.ask(fmt.Sprint("rollback ", b.events), to, deployerv1.Deployment_ROLLBACK)
			a.Directory, a.SourceNumber = kept.GetDirectory(), kept.GetNumber()
			if _, err := lane.Accept(b.l, a); err != nil {
				b.t.Fatal(err)
			}
			b.flush()
			b.wakes++
			if v := b.claim(b.wakes); v != lane.Start {
				b.t.Fatal(v)
			}
			b.must(lane.TakeRelease(b.l, b.l.GetEpoch()))
			b.must(lane.Complete(b.l, b.l.GetEpoch(), lane.Result{Now: b.now, Directory: kept.GetDirectory(), Retention: 20}))
			return
		}
	}
	b.t.Fatalf("the release of %s is not kept", to)
}

func (b *branch) wantLive(hash string) {
	b.t.Helper()
	if got := b.l.GetLive().GetHash(); got != hash {
		b.t.Errorf("live is %q, want %q", got, hash)
	}
}

func TestPlace_aRollbackOutlivesDeliveriesThatComeAgain(t *testing.T) {
	for _, asked := range []bool{true, false} {
		b := newBranch(t, "z")
		b.asked = asked
		var all []lane.Step
		for _, to := range []string{"a", "b", "a", "c", "", "c", "d"} { // forced back, deleted and made again
			all = append(all, b.pushed(to))
		}
		late := b.move("e") // its delivery is late
		all = append(all, b.pushed("f"))
		b.wantLive("f")
		b.rollBack("a")
		last := b.l.GetLastNumber()
		for round := range 4 {
			for _, s := range append(all, late) {
				if d := b.deliver(s); asked && (d.New || s.New != "" && !d.Past) {
					t.Errorf("round %d, %v: %+v", round, s, d)
				}
				b.work()
				b.wantLive("a")
			}
		}
		if asked && b.l.GetLastNumber() != last {
			t.Errorf("%d deployments more", b.l.GetLastNumber()-last)
		}
		if d := b.deliver(all[1]); asked && d.Number != 2 { // a to b
			t.Errorf("the push is answered with #%d", d.Number)
		}
		if h := lane.HeadOf(b.l, repository, lane.Branch("main")); h.GetHash() != "f" {
			t.Errorf("the head is %q", h.GetHash())
		}
		// New pushes deploy: a new commit, one that was there before, and that again.
		for _, to := range []string{"g", "f", "g", "a", "f"} {
			b.pushed(to)
			b.wantLive(to)
		}
	}
}

func TestPlace_whatNobodyDecidedIsNew(t *testing.T) {
	b := newBranch(t, "a")
	// What was there when watching began may have been pushed just then.
	if d := b.deliver(lane.Step{Old: "0", New: "a"}); !d.New {
		t.Errorf("%+v", d)
	}
	b.work()
	b.wantLive("a")
	// Deliveries out of order, and one that is lost.
	first, second := b.move("b"), b.move("c")
	b.deliver(second)
	b.work()
	b.wantLive("c")
	if d := b.deliver(first); !d.Past {
		t.Errorf("%+v", d)
	}
	b.move("d") // lost
	b.pushed("e")
	b.wantLive("e")
	// One that a deployment fetched before its delivery came.
	if _, err := lane.Accept(b.l, b.ask("button", "", deployerv1.Deployment_MANUAL)); err != nil {
		t.Fatal(err)
	}
	s := b.move("f")
	b.work()
	b.wantLive("f")
	n := b.l.GetLastNumber()
	if d := b.deliver(s); !d.Past || d.Number != n {
		t.Errorf("%+v, want #%d", d, n)
	}
	// A person's replay counts, whatever its place, and says nothing of the head.
	b.rollBack("a")
	a := b.ask("replay", "e", deployerv1.Deployment_PUSH)
	a.Step, a.Replay = &lane.Step{Old: "d", New: "e"}, true
	if d, err := lane.Accept(b.l, a); err != nil || !d.New {
		t.Errorf("%+v %v", d, err)
	}
	if h := lane.HeadOf(b.l, repository, lane.Branch("main")); h.GetHash() != "f" {
		t.Errorf("the head is %q", h.GetHash())
	}
	b.work()
	b.wantLive("f")
}

// TestAccept_aReplayDeploysNothingTwice: what waits, runs or is live already is the answer to a replay of
// its commit; of another commit, or where another one is to go live, the replay counts.
// A poll and a delivery of the same push both wait for their decision. Whichever is decided first deploys,
// the other one changes nothing; what a poll saw before later pushes were decided deploys nothing either.
func TestPlace_whatAPollFoundAndADeliveryBroughtDeploysOnce(t *testing.T) {
	for name, decided := range map[string][]string{
		"the delivery first": {"delivery b", "found b"},
		"the poll first":     {"found b", "delivery b"},
		"a newer delivery":   {"delivery b", "delivery c", "found b"},
		"deleted meanwhile":  {"delivery b", "deleted", "found b"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBranch(t, "z")
			b.pushed("a")
			want := map[string]int32{"a": b.l.GetLastNumber()}
			steps := map[string]lane.Step{}
			for _, x := range decided {
				kind, hash, _ := strings.Cut(x, " ")
				if _, moved := steps[hash]; kind != "found" && !moved {
					steps[hash] = b.move(hash)
				}
				if kind != "found" {
					d := b.deliver(steps[hash])
					if hash != "" && want[hash] == 0 {
						want[hash] = d.Number
					}
					continue
				}
				a := b.ask("reconciled", hash, deployerv1.Deployment_RECONCILED)
				a.Found, a.Old = true, "a"
				if want[hash] == 0 {
					steps[hash] = b.move(hash)
				}
				a = lane.FromCandidate(a.Candidate())
				a.Now = b.now
				d, err := lane.Accept(b.l, a)
				if err != nil || d.New == (want[hash] != 0) {
					t.Errorf("%s: %+v %v", x, d, err)
				}
				if want[hash] == 0 {
					want[hash] = d.Number
				}
				b.flush()
			}
			last := b.l.GetWaiting().GetHash()
			if n := b.l.GetLastNumber(); int(n) != len(want) || last != map[bool]string{true: "c", false: "b"}[want["c"] != 0] {
				t.Errorf("%d deployments, %q waits; want %v", n, last, want)
			}
		})
	}
}

func TestAccept_aReplayDeploysNothingTwice(t *testing.T) {
	b := newBranch(t, "start")
	replay := func(id, hash, branch string) lane.Decision {
		t.Helper()
		a := b.ask(id, hash, deployerv1.Deployment_PUSH)
		a.Branch, a.Replay, a.Askers = branch, true, []*storev1.Asker{{Webhook: "w", Delivery: 7}}
		d, err := lane.Accept(b.l, a)
		if !errors.Is(err, lane.ErrSkip) {
			b.must(err)
		}
		return d
	}
	b.pushed("a")
	n := b.l.GetLastNumber()
	if d := replay("r1", "a", "main"); d.New || !d.Past || d.Number != n {
		t.Errorf("of what is live: %+v, want #%d", d, n)
	}
	if d := replay("r1", "a", "main"); d.New || d.Number != n {
		t.Errorf("the same event again: %+v", d)
	}
	if d := replay("r2", "a", "other"); !d.New {
		t.Errorf("of another branch at the same commit: %+v", d)
	}
	n = b.l.GetLastNumber()
	if d := replay("r3", "a", "other"); d.New || d.Number != n || len(b.l.GetWaiting().GetAskers()) != 2 {
		t.Errorf("of what waits: %+v, want #%d, %v", d, n, b.l.GetWaiting())
	}
	if d := replay("r4", "a", "main"); !d.New {
		t.Errorf("of what is live and will not be: %+v", d)
	}
}

// TestPlace_tags: each tag has a history of its own.
func TestPlace_tags(t *testing.T) {
	b := newBench(t)
	n := 0
	tag := func(name, old, hash string, actual *string) lane.Decision {
		t.Helper()
		n++
		a := b.ask(fmt.Sprint("tag.", n), hash, deployerv1.Deployment_PUSH)
		a.Branch, a.Tag, a.Step, a.Actual = "", name, &lane.Step{Old: old, New: hash}, actual
		d, err := lane.Accept(b.l, a)
		b.must(err)
		return d
	}
	for i, step := range []struct {
		name, old, hash string
		past            bool
		number          int32
	}{
		{"v1", "", "a", false, 1}, {"v2", "", "a", false, 2}, {"v1", "a", "b", false, 3}, {"v1", "", "a", true, 1},
		{"v1", "a", "b", true, 3}, {"v2", "", "a", true, 2}, {"v2", "a", "b", false, 4},
	} {
		if d := tag(step.name, step.old, step.hash, nil); d.Past != step.past || d.Number != step.number {
			t.Errorf("step %d: %+v", i, d)
		}
	}
}

// TestPlace_model: pushes, their deliveries in any order, twice and more, and rollbacks. What a person
// rolled back to stays until somebody pushes; without that, the head is live in the end.
func TestPlace_model(t *testing.T) {
	for range 300 {
		seed := rand.Uint64()
		r := rand.New(rand.NewPCG(seed, 0)) // no secret
		b := newBranch(t, "c0")
		b.pushed("c1")
		var delivered, waiting []lane.Step
		rolled, ever, back := "", false, r.IntN(2) == 0
		for range 60 {
			switch b.asked = r.IntN(4) > 0; r.IntN(6) {
			case 0, 1:
				to := fmt.Sprint("c", r.IntN(12))
				if to == b.head {
					continue
				}
				waiting, rolled = append(waiting, b.move(to)), ""
			case 2, 3:
				if len(waiting) > 0 {
					i := r.IntN(min(2, len(waiting))) // hardly out of order
					delivered = append(delivered, waiting[i])
					b.deliver(waiting[i])
					waiting = append(waiting[:i], waiting[i+1:]...)
				}
			case 4:
				if len(delivered) > 0 {
					b.deliver(delivered[r.IntN(len(delivered))])
				}
			case 5:
				b.work()
				if back && len(waiting) == 0 && len(b.l.GetKept()) > 0 && r.IntN(3) == 0 {
					ever = true
					rolled = b.l.GetKept()[r.IntN(len(b.l.GetKept()))].GetHash()
					b.rollBack(rolled)
				}
			}
			if rolled != "" {
				b.work()
				if got := b.l.GetLive().GetHash(); got != rolled {
					t.Fatalf("seed %d: rolled back to %s, live is %s", seed, rolled, got)
				}
			}
		}
		for _, s := range waiting {
			b.deliver(s)
		}
		b.work()
		if h := lane.HeadOf(b.l, repository, lane.Branch("main")); h.GetHash() != b.head { // reconciliation finds it
			if _, err := lane.Accept(b.l, b.ask("reconciled", b.head, deployerv1.Deployment_RECONCILED)); err != nil {
				t.Fatal(err)
			}
			b.work()
		}
		if !ever && b.l.GetLive().GetHash() != b.head {
			t.Fatalf("seed %d: the branch is at %s, live is %v", seed, b.head, b.l.GetLive())
		}
	}
}

// TestMove_theRecordSaysWhereItRuns: one that waited for a dead server runs on another.
func TestMove_theRecordSaysWhereItRuns(t *testing.T) {
	b := newBench(t)
	a := b.ask("e1", "a", deployerv1.Deployment_PUSH)
	a.Server = "eu"
	if _, err := lane.Accept(b.l, a); err != nil {
		t.Fatal(err)
	}
	b.flush()
	if s := b.records[1].GetDeployment().GetServer(); s != "eu" {
		t.Fatalf("it waits for %q", s)
	}
	b.must(lane.Move(b.l, "default"))
	if s := b.records[1].GetDeployment().GetServer(); s != "default" {
		t.Errorf("moved, it waits for %q", s)
	}
	// A record that missed the move, of a lane from before it was kept, learns it at the start.
	b.records[1].Deployment.Server = "eu"
	if v := b.claim(1); v != lane.Start {
		t.Fatal(v)
	}
	if s := b.records[1].GetDeployment().GetServer(); s != "default" {
		t.Errorf("it runs on default, its record says %q", s)
	}
}
