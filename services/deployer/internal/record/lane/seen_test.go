package lane_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

func hash(n int) string { return fmt.Sprintf("%040x", n+1) }

// seenStore holds one lane's SeenRefs; it may fail.
type seenStore struct {
	s    *storev1.SeenRefs
	fail error
}

func (f *seenStore) Get(context.Context, string) (*storev1.SeenRefs, uint64, error) {
	if f.fail != nil {
		return nil, 0, f.fail
	}
	if f.s == nil {
		return nil, 0, kv.ErrNotFound
	}
	return proto.CloneOf(f.s), 1, nil
}

func (f *seenStore) Update(_ context.Context, _ string, fn func(*storev1.SeenRefs) (*storev1.SeenRefs, error)) (*storev1.SeenRefs, uint64, error) {
	if f.fail != nil {
		return nil, 0, f.fail
	}
	next, err := fn(proto.CloneOf(f.s))
	if errors.Is(err, kv.ErrSkip) {
		return f.s, 1, nil
	}
	if err != nil {
		return nil, 0, err
	}
	f.s = proto.CloneOf(next)
	return next, 1, nil
}

// laneStore holds one lane.
type laneStore struct {
	l   *storev1.Lane
	rev uint64
}

func (f *laneStore) Get(context.Context, string) (*storev1.Lane, uint64, error) {
	return proto.CloneOf(f.l), f.rev, nil
}

func (f *laneStore) Create(context.Context, string, *storev1.Lane, ...kv.CreateOption) (uint64, error) {
	return 0, kv.ErrExists
}

func (f *laneStore) CompareAndSet(_ context.Context, _ string, l *storev1.Lane, rev uint64) (uint64, error) {
	if rev != f.rev {
		return 0, kv.ErrConflict
	}
	f.l, f.rev = proto.CloneOf(l), rev+1
	return f.rev, nil
}

var k = lane.Key{Workspace: "acme-inc", App: "web"}

// refs is a repository and a lane that is to know all of it: what is noted, by a naive map.
type refs struct {
	t          *testing.T
	lanes      *laneStore
	seen       *seenStore
	dispatcher *lane.Dispatcher
	there      map[lane.Ref]string // the repository
	noted      map[lane.Ref]string // what the lane was told or found; "" is gone
	count      int
}

func newRefs(t *testing.T) *refs {
	r := &refs{t: t, lanes: &laneStore{l: &storev1.Lane{}, rev: 1}, seen: &seenStore{}, there: map[lane.Ref]string{}, noted: map[lane.Ref]string{}}
	lane.Begin(r.lanes.l)
	r.dispatcher = &lane.Dispatcher{Lanes: r.lanes, Seen: r.seen}
	return r
}

func (r *refs) change(fn func(*storev1.Lane) error) {
	r.t.Helper()
	if _, err := r.dispatcher.Change(r.t.Context(), k, fn); err != nil {
		r.t.Fatal(err)
	}
}

func askOf(ref lane.Ref, event, commit string) lane.Request {
	a := lane.Request{Event: event, ReceiveTime: start, Trigger: deployerv1.Deployment_PUSH, Repository: repository, Branch: ref.Branch(), Tag: ref.Tag(), Server: "default", Now: start}
	if commit != "" {
		a.Commit = &deployerv1.DeploymentCommit{Hash: commit}
	}
	return a
}

// pushed is a delivery that is turned away, or says that the ref is gone: neither makes work.
func (r *refs) pushed(ref lane.Ref, commit string) {
	r.t.Helper()
	r.count++
	ask := askOf(ref, fmt.Sprint("e", r.count), commit)
	r.change(func(l *storev1.Lane) error {
		if commit == "" {
			return lane.RefDeleted(l, ask)
		}
		return lane.TurnAway(l, ask)
	})
	r.noted[ref] = commit
}

var tagPatterns = []string{"v*", "rc-*"}

func (r *refs) found() (branches, tags lane.Found) {
	branches, tags = lane.Found{Patterns: []string{"feature/*"}, Heads: map[string]string{}}, lane.Found{Patterns: tagPatterns, Heads: map[string]string{}}
	for ref, h := range r.there {
		if ref.IsTag() {
			tags.Heads[ref.Name()] = h
		} else {
			branches.Heads[ref.Name()] = h
		}
	}
	return branches, tags
}

// poll notes what is there, as the reconciler does; meanwhile is called while Bitbucket is asked.
func (r *refs) poll(meanwhile func()) {
	r.t.Helper()
	l, _, err := r.dispatcher.Get(r.t.Context(), k)
	if err != nil {
		r.t.Fatal(err)
	}
	known, err := r.dispatcher.Known(r.t.Context(), k, l, repository)
	if err != nil {
		r.t.Fatal(err)
	}
	branches, tags := r.found()
	complete := map[bool]bool{false: known.Complete(false, branches.Patterns), true: known.Complete(true, tags.Patterns)}
	found := maps.Clone(r.there)
	meanwhile()
	now, _, err := r.dispatcher.Get(r.t.Context(), k)
	if err != nil {
		r.t.Fatal(err)
	}
	noted, err := r.dispatcher.Polled(r.t.Context(), k, known, now, branches, tags)
	if err != nil {
		r.t.Fatal(err)
	}
	if !noted {
		return
	}
	for ref, h := range found { // the baseline
		if _, told := r.noted[ref]; !told && !complete[ref.IsTag()] {
			r.noted[ref] = h
		}
	}
}

func (r *refs) check(step int) {
	r.t.Helper()
	l, _, _ := r.lanes.Get(r.t.Context(), "")
	known, err := r.dispatcher.Known(r.t.Context(), k, l, repository)
	if err != nil {
		r.t.Fatal(err)
	}
	for ref, h := range r.noted {
		// That something is gone may be forgotten, once everything that is there is known: then it is gone.
		got, is := known.Head(ref)
		if h == "" && !is && known.Complete(ref.IsTag(), map[bool][]string{false: {"feature/*"}, true: tagPatterns}[ref.IsTag()]) {
			continue
		}
		if _, there := r.there[ref]; !there && !is && h != "" {
			continue // a poll found that it is gone
		}
		if !is || got != h {
			r.t.Fatalf("step %d: %s is known as %q (%v), want %q; lane %v", step, ref, got, is, h, l.GetHeads()[string(ref)])
		}
	}
	if n := len(l.GetHeads()); n > 110 {
		r.t.Fatalf("step %d: the lane holds %d heads", step, n)
	}
}

// TestKnown_forgetsNothing drives a lane and its SeenRefs with pushes that are delivered, or not, polls, and changes of what is watched, beside a map that holds everything.
func TestKnown_forgetsNothing(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	r := newRefs(t)
	some := func() lane.Ref {
		if rnd.IntN(2) == 0 {
			return lane.Tag(fmt.Sprintf("v%d", rnd.IntN(150)))
		}
		return lane.Branch(fmt.Sprintf("feature/%d", rnd.IntN(150)))
	}
	delivered := func() {
		ref := some()
		if _, there := r.there[ref]; there && rnd.IntN(5) == 0 {
			delete(r.there, ref)
			r.pushed(ref, "")
			return
		}
		r.there[ref] = hash(rnd.IntN(1 << 30))
		r.pushed(ref, r.there[ref])
	}
	for step := range 1000 {
		switch rnd.IntN(40) {
		case 0, 1:
			r.poll(func() {
				for range rnd.IntN(3) * rnd.IntN(100) {
					delivered()
				}
			})
		case 2: // not delivered
			r.there[some()] = hash(rnd.IntN(1 << 30))
		case 3:
			if rnd.IntN(20) == 0 {
				r.change(func(l *storev1.Lane) error { lane.ForgetBranches(l); return nil })
				maps.DeleteFunc(r.noted, func(ref lane.Ref, _ string) bool { return !ref.IsTag() })
			}
		case 4:
			if rnd.IntN(20) == 0 {
				r.change(func(l *storev1.Lane) error { lane.ForgetTags(l); return nil })
				maps.DeleteFunc(r.noted, func(ref lane.Ref, _ string) bool { return ref.IsTag() })
			}
		case 5: // an older state of the lane is put into SeenRefs late
			old, late := proto.CloneOf(r.lanes.l), rnd.IntN(100)
			for range late {
				delivered()
			}
			_, _, err := r.seen.Update(t.Context(), "", func(s *storev1.SeenRefs) (*storev1.SeenRefs, error) {
				if s, ok := lane.Fold(s, old); ok {
					return s, nil
				}
				return nil, kv.ErrSkip
			})
			if err != nil {
				t.Fatal(err)
			}
		default:
			delivered()
		}
		r.check(step)
	}
	if size := proto.Size(r.lanes.l); size > 40<<10 {
		t.Errorf("the lane has %d bytes", size)
	}
	t.Logf("lane %d bytes with %d heads, SeenRefs %d bytes", proto.Size(r.lanes.l), len(r.lanes.l.GetHeads()), proto.Size(r.seen.s))
}

func TestKnown_whatIsNewAndWhatWasThere(t *testing.T) {
	r := newRefs(t)
	for i := range 500 {
		r.there[lane.Tag(fmt.Sprint("v", i))] = hash(i)
	}
	state := func() lane.Known {
		t.Helper()
		l, _, _ := r.lanes.Get(t.Context(), "")
		known, err := r.dispatcher.Known(t.Context(), k, l, repository)
		if err != nil {
			t.Fatal(err)
		}
		return known
	}
	if state().Complete(true, tagPatterns) {
		t.Error("complete before any poll")
	}
	r.poll(func() {})
	if s := state(); !s.Complete(true, tagPatterns) || s.Complete(true, []string{"v*"}) || s.Complete(false, nil) || !s.Complete(false, []string{"feature/*"}) {
		t.Error("after a poll it is complete for its patterns")
	}
	if size := proto.Size(r.seen.s); size > 500*28+100 {
		t.Errorf("500 tags take %d bytes", size)
	}
	r.there[lane.Tag("v1")], r.there[lane.Tag("v500")] = hash(1000), hash(1001)
	r.poll(func() {}) // nobody decided about them: they stay missing
	if got, is := state().Head(lane.Tag("v1")); got != hash(1) || !is {
		t.Errorf("moved: %q %v", got, is)
	}
	if got, is := state().Head(lane.Tag("v500")); is {
		t.Errorf("new: %q", got)
	}
	// A branch and a tag of one name are two.
	r.pushed(lane.Branch("v1"), hash(7))
	if got, _ := state().Head(lane.Tag("v1")); got != hash(1) {
		t.Errorf("the tag is at %q", got)
	}
	// Another baseline, and what was there before it says nothing; a new app's neither.
	r.change(func(l *storev1.Lane) error { lane.ForgetTags(l); return nil })
	if s := state(); s.Complete(true, tagPatterns) || !s.Complete(false, []string{"feature/*"}) {
		t.Error("forgotten tags are known")
	}
	if _, is := state().Head(lane.Tag("v2")); is {
		t.Error("a forgotten tag is known")
	}
	r.poll(func() {})
	l := proto.CloneOf(r.lanes.l)
	if err := lane.Retire(l, l.GetGeneration(), 0); err != nil {
		t.Fatal(err)
	}
	lane.Begin(l)
	if (lane.Known{Repository: repository, Lane: l, Seen: r.seen.s}).Complete(true, tagPatterns) {
		t.Error("a new app knows the old one's tags")
	}
	// Forgotten means not known, also where SeenRefs has it.
	l = proto.CloneOf(r.lanes.l)
	lane.Baseline(l, repository, "main", hash(3), start)
	s, _ := lane.Fold(r.seen.s, l)
	lane.ForgetHead(l, repository, "main", start)
	if _, is := (lane.Known{Repository: repository, Lane: l, Seen: s}).Head(lane.Branch("main")); is {
		t.Error("a forgotten head is known")
	}
	if s, _ = lane.Fold(s, l); len(s.GetBranches().GetRefs()) != len(r.seen.s.GetBranches().GetRefs()) {
		t.Error("a forgotten head stays in SeenRefs")
	}
}

func TestKnown_tooManyStartAnew(t *testing.T) {
	r := newRefs(t)
	tags := lane.Found{Patterns: tagPatterns, Heads: map[string]string{}}
	for i := range lane.MaxRefs {
		tags.Heads[fmt.Sprint("v", i)] = hash(i)
	}
	s := lane.Polled(nil, r.lanes.l, lane.Found{}, tags)
	if size := proto.Size(s); size > 430_000 || !slices.Equal(s.GetTags().GetPatterns(), tagPatterns) {
		t.Fatalf("%d bytes, %v", size, s.GetTags().GetPatterns())
	}
	lane.SetHead(r.lanes.l, lane.Tag("w"), &storev1.Head{Hash: hash(1), Repository: repository, Source: storev1.Head_EVENT})
	if s, _ = lane.Fold(s, r.lanes.l); len(s.GetTags().GetRefs()) != 28 || len(s.GetTags().GetPatterns()) != 0 {
		t.Fatalf("%d bytes of refs, %v", len(s.GetTags().GetRefs()), s.GetTags().GetPatterns())
	}
}

func TestAccept_aLateDeliveryOfATagIsTheReconciledDeployment(t *testing.T) {
	b := newBench(t)
	ask := askOf(lane.Tag("v1"), "look", hash(1))
	ask.Trigger = deployerv1.Deployment_RECONCILED
	d, err := lane.Accept(b.l, ask)
	b.must(err)
	if late, err := lane.Accept(b.l, askOf(lane.Tag("v1"), "delivery", hash(1))); err != nil || !late.Reconciled || late.Number != d.Number {
		t.Fatalf("%+v %v", late, err)
	}
	// A branch of that name at that commit is another thing, and so is the tag pushed again.
	if other, err := lane.Accept(b.l, askOf(lane.Branch("v1"), "branch", hash(1))); err != nil || !other.New {
		t.Fatalf("%+v %v", other, err)
	}
	if again, err := lane.Accept(b.l, askOf(lane.Tag("v1"), "again", hash(1))); err != nil || !again.New {
		t.Fatalf("%+v %v", again, err)
	}
}

func TestKeeper_reconciledHeadsOutliveOthers(t *testing.T) {
	r := newRefs(t)
	for i := range 100 {
		r.change(func(l *storev1.Lane) error {
			lane.SetHead(l, lane.Tag(fmt.Sprint("v", i)), &storev1.Head{Hash: hash(i), Source: storev1.Head_RECONCILED, Number: int32(i + 1), Time: timestamppb.New(start), Repository: repository})
			return nil
		})
	}
	for i := range 300 {
		r.pushed(lane.Branch(fmt.Sprint("feature/", i)), hash(i))
	}
	kept := 0
	for ref := range r.lanes.l.GetHeads() {
		if strings.HasPrefix(ref, "tag:") {
			kept++
		}
	}
	if kept != 100 || len(r.lanes.l.GetHeads()) > 100+32+65 {
		t.Errorf("%d of 100 are kept, of %d", kept, len(r.lanes.l.GetHeads()))
	}
	// While SeenRefs cannot be written nothing is decided that the lane could not hold.
	r.seen.fail = kv.ErrUnavailable
	begin := time.Now()
	var err error
	for i := 0; err == nil && i < 300; i++ {
		_, err = r.dispatcher.Change(t.Context(), k, func(l *storev1.Lane) error {
			return lane.TurnAway(l, askOf(lane.Branch(fmt.Sprint("x", i)), fmt.Sprint("x", i), hash(i)))
		})
	}
	if !errors.Is(err, kv.ErrUnavailable) || time.Since(begin) > 10*time.Second {
		t.Errorf("%v", err)
	}
}
