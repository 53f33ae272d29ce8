package apps

import (
	"cmp"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// WatchedHead is the branch that counts: the one that is watched, or of those that match a pattern the one
// that moved last. The head is nil when it was not seen, and the ref empty where none was that matches.
func WatchedHead(a *storev1.App, l *storev1.Lane) (lane.Ref, *storev1.Head) {
	if !rules.IsGlob(a.GetBranch()) {
		ref := lane.Branch(a.GetBranch())
		return ref, lane.HeadOf(l, a.GetRepository(), ref)
	}
	if m := matching(a, l); len(m) > 0 {
		return m[0].ref, m[0].head
	}
	return "", nil
}

// ShownHead is where a branch was seen, for people; nil when it was not.
func ShownHead(a *storev1.App, l *storev1.Lane, r lane.Ref) *storev1.Head {
	if h := lane.HeadOf(l, a.GetRepository(), r); h != nil || r.IsTag() || !rules.IsGlob(a.GetBranch()) {
		return h
	}
	for _, b := range matching(a, l) {
		if b.ref == r {
			return b.head
		}
	}
	return nil
}

type branch struct {
	ref  lane.Ref
	head *storev1.Head
}

// matching are the branches that match an app's pattern, as far as the lane holds them, the one that moved last
// first. Those that do not exist any more are not among them.
func matching(a *storev1.App, l *storev1.Lane) []branch {
	var out []branch
	add := func(r lane.Ref, h *storev1.Head) {
		if !r.IsTag() && h.GetHash() != "" && rules.MatchBranch(a.GetBranch(), r.Name()) {
			out = append(out, branch{r, h})
		}
	}
	for name := range l.GetHeads() {
		add(lane.Ref(name), lane.HeadOf(l, a.GetRepository(), lane.Ref(name)))
	}
	for _, s := range l.GetSighted() {
		if _, noted := l.GetHeads()[s.GetBranch()]; s.GetPassed() && !noted {
			add(lane.Branch(s.GetBranch()), &storev1.Head{Hash: s.GetHash(), Time: s.GetTime(), Source: storev1.Head_BASELINE, Repository: a.GetRepository()})
		}
	}
	slices.SortFunc(out, func(a, b branch) int {
		return cmp.Or(b.head.GetTime().AsTime().Compare(a.head.GetTime().AsTime()), cmp.Compare(b.head.GetSeq(), a.head.GetSeq()))
	})
	return out
}

// Aside are the branches that match an app's pattern and moved after what is live was pushed, without being live
// themselves: the one that moved last first. All tells whether the lane holds every one that did.
func Aside(a *storev1.App, l *storev1.Lane) (refs []lane.Ref, all bool) {
	lv, m := l.GetLive(), matching(a, l)
	after := lv.GetTime().AsTime()
	for _, b := range m {
		if string(b.ref) == lv.GetRef() && b.head.GetHash() == lv.GetHash() {
			after = b.head.GetTime().AsTime()
		}
	}
	for _, b := range m {
		overtaken := b.head.GetNumber() > 0 && b.head.GetNumber() < lv.GetNumber() && !lv.GetChosen()
		if b.head.GetHash() != lv.GetHash() && !overtaken && (lv == nil || b.head.GetTime().AsTime().After(after)) {
			refs = append(refs, b.ref)
		}
	}
	return refs, lane.HoldsAllHeads(l)
}

// Moved are the branches that match an app's pattern, the one that moved last first, to be shown after they
// began to count as seen.
func Moved(a *storev1.App, l *storev1.Lane) []*storev1.Sighted {
	var out []*storev1.Sighted
	for _, b := range matching(a, l) {
		out = append(out, &storev1.Sighted{Branch: b.ref.Name(), Hash: b.head.GetHash(), Time: b.head.GetTime()})
	}
	return out
}

// Gone tells whether a branch that matches an app's pattern is known not to exist any more.
func Gone(a *storev1.App, l *storev1.Lane) bool {
	for name := range l.GetHeads() {
		h := lane.HeadOf(l, a.GetRepository(), lane.Ref(name))
		if r := lane.Ref(name); !r.IsTag() && h != nil && h.GetHash() == "" && rules.MatchBranch(a.GetBranch(), r.Name()) {
			return true
		}
	}
	return false
}

// Told is a push about which nothing was decided yet.
type Told struct {
	Ref  lane.Ref
	Hash string
	Time *timestamppb.Timestamp
	// Deciding: a worker decides about it. Without it, a poll has found the push and its delivery may still come.
	Deciding bool
}

// NewestTold is the newest push of a branch about which nothing was decided yet, or of all branches that the
// app watches where none is named; nil where there is none. What is live already is no such push.
func NewestTold(a *storev1.App, l *storev1.Lane, of lane.Ref) *Told {
	var newest *Told
	add := func(t Told) {
		switch {
		case t.Ref.IsTag(), t.Hash == "", t.Hash == l.GetLive().GetHash(), !rules.MatchBranch(a.GetBranch(), t.Ref.Name()), of != "" && t.Ref != of:
		case newest == nil || !t.Time.AsTime().Before(newest.Time.AsTime()):
			newest = &t
		}
	}
	for _, s := range l.GetSighted() {
		if !s.GetPassed() {
			add(Told{Ref: lane.Branch(s.GetBranch()), Hash: s.GetHash(), Time: s.GetTime()})
		}
	}
	for _, c := range l.GetCandidates() {
		if c.GetRepository() == a.GetRepository() && c.GetTag() == "" && !c.GetReplay() && !c.GetDeleted() && c.GetOvertakenBy() == 0 {
			add(Told{Ref: lane.Branch(c.GetBranch()), Hash: c.GetCommit().GetHash(), Time: c.GetReceiveTime(), Deciding: true})
		}
	}
	return newest
}
