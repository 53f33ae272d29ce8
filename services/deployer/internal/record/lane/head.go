package lane

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

const (
	// maxHeads is how many heads a lane keeps that SeenRefs has, too. Those that reconciliation found
	// are kept beside them, up to maxReconciled: their deliveries may still come.
	maxHeads      = 32
	maxReconciled = 256 // reconciled heads that are remembered, for a late delivery
	// maxUnfolded is how many heads a lane may hold that SeenRefs lacks.
	maxUnfolded = 64
)

// Ref names a branch or a tag: the key of a lane's heads.
type Ref string

// tagPrefix begins what no branch is called: git allows no colon in names.
const tagPrefix = "tag:"

// Branch is the ref of a branch.
func Branch(name string) Ref { return Ref(name) }

// Tag is the ref of a tag.
func Tag(name string) Ref { return Ref(tagPrefix + name) }

// IsTag tells a tag from a branch.
func (r Ref) IsTag() bool { return strings.HasPrefix(string(r), tagPrefix) }

// Name is the branch's or the tag's name.
func (r Ref) Name() string { return strings.TrimPrefix(string(r), tagPrefix) }

// Branch is the name of a branch, empty for a tag.
func (r Ref) Branch() string {
	if r.IsTag() {
		return ""
	}
	return string(r)
}

// Tag is the name of a tag, empty for a branch.
func (r Ref) Tag() string {
	if r.IsTag() {
		return r.Name()
	}
	return ""
}

// HeadOf returns the head of a branch or tag that the lane saw last. It is nil when the lane saw
// none in this repository, or moved it to SeenRefs ([Known] reads both). A head with an empty hash
// says that the branch or tag does not exist.
func HeadOf(l *storev1.Lane, repository string, r Ref) *storev1.Head {
	h := l.GetHeads()[string(r)]
	if h == nil || h.GetRepository() != repository || h.GetSource() == storev1.Head_FORGOTTEN {
		return nil
	}
	return h
}

// SetHead remembers a head; one that has not moved keeps its time. Beyond a bound the oldest of those go that SeenRefs has, too.
func SetHead(l *storev1.Lane, r Ref, h *storev1.Head) {
	if was := HeadOf(l, h.GetRepository(), r); was != nil {
		noteCommit(l, h.GetRepository(), r, was.GetHash(), was.GetNumber())
		if was.GetHash() == h.GetHash() && was.GetTime() != nil {
			h.Time = was.GetTime()
		}
	}
	noteCommit(l, h.GetRepository(), r, h.GetHash(), h.GetNumber())
	unsight(l, r)
	if l.Heads == nil {
		l.Heads = map[string]*storev1.Head{}
	}
	l.HeadSeq++
	h.Seq = l.GetHeadSeq()
	l.Heads[string(r)] = h
	thin(l)
}

// HoldsAllHeads tells whether every head that the lane ever noted since its baseline is still in it.
func HoldsAllHeads(l *storev1.Lane) bool { return len(l.GetHeads()) < maxHeads }

func thin(l *storev1.Lane) {
	var usual, reconciled []string
	for r, h := range l.GetHeads() {
		switch {
		case h.GetSeq() > l.GetFoldedSeq():
		case h.GetSource() == storev1.Head_RECONCILED:
			reconciled = append(reconciled, r)
		default:
			usual = append(usual, r)
		}
	}
	for i, refs := range [][]string{usual, reconciled} {
		slices.SortFunc(refs, func(a, b string) int { return cmp.Compare(l.Heads[b].GetSeq(), l.Heads[a].GetSeq()) })
		for _, r := range refs[min(len(refs), []int{maxHeads, maxReconciled}[i]):] {
			delete(l.Heads, r)
		}
	}
}

// Baseline records the head of a branch without deploying it: auto-deploy was switched on or the
// branch changed. An empty hash says that the branch does not exist yet.
func Baseline(l *storev1.Lane, repository, branch, hash string, now time.Time) {
	l.Owed = nil
	SetHead(l, Branch(branch), &storev1.Head{Hash: hash, Source: storev1.Head_BASELINE, Time: timestamppb.New(now), Repository: repository})
}

// ForgetHead makes the next poll of the branch the baseline: its head could not be asked for.
func ForgetHead(l *storev1.Lane, repository, branch string, now time.Time) {
	l.Owed = nil
	SetHead(l, Branch(branch), &storev1.Head{Source: storev1.Head_FORGOTTEN, Time: timestamppb.New(now), Repository: repository})
}

// ForgetTags is [ForgetBranches] for tags.
func ForgetTags(l *storev1.Lane) {
	l.TagBaseline++
	forget(l, true)
}

func forget(l *storev1.Lane, tags bool) {
	if l.GetOwed() != nil && OwedRef(l.GetOwed()).IsTag() == tags {
		l.Owed = nil
	}
	l.HeadSeq++ // what is put into SeenRefs of the lane as it was before is older
	for r := range l.GetHeads() {
		if Ref(r).IsTag() == tags {
			delete(l.Heads, r)
		}
	}
}

// RefDeleted notes that a push deleted the branch or tag. A deletion that newer pushes have
// overtaken changes nothing; when that is not certain, the next poll decides. ErrSkip for the same
// event twice.
func RefDeleted(l *storev1.Lane, a Request) error {
	if l.GetRetired() || l.GetGeneration() == 0 {
		return ErrRetired
	}
	id := eventID(a.Event)
	if _, seen := find(l, id); seen || tooOld(l, a) {
		return ErrSkip
	}
	remember(l, id, 0, a.ReceiveTime)
	if place, _ := PlaceOf(l, a); place != Next {
		return nil
	}
	noteStep(l, a, 0)
	forgive(l, a.ref())
	SetHead(l, a.ref(), &storev1.Head{Source: storev1.Head_EVENT, Time: timestamppb.New(a.Now), Repository: a.Repository})
	return nil
}

// Gone notes that a poll found the branch or tag missing; ErrSkip when that was known.
func Gone(l *storev1.Lane, repository string, r Ref, now time.Time) error {
	if h := HeadOf(l, repository, r); h != nil && h.GetHash() == "" {
		return ErrSkip
	}
	forgive(l, r)
	SetHead(l, r, &storev1.Head{Source: storev1.Head_FETCH, Time: timestamppb.New(now), Repository: repository})
	return nil
}

// Untouched tells whether nothing was noted of a branch or tag between two states of the lane. When
// neither state holds its head, the head may have gone to SeenRefs meanwhile, so that counts as
// touched.
func Untouched(before, now *storev1.Lane, r Ref) bool {
	if before.GetGeneration() != now.GetGeneration() || before.GetBranchBaseline() != now.GetBranchBaseline() || before.GetTagBaseline() != now.GetTagBaseline() {
		return false
	}
	was, is := before.GetHeads()[string(r)], now.GetHeads()[string(r)]
	if was == nil && is == nil {
		return before.GetFoldedSeq() == now.GetFoldedSeq()
	}
	return was.GetSeq() == is.GetSeq() && (was == nil) == (is == nil)
}
