package lane

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/services/deployer/internal/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// maxHeads bounds the branches whose heads a lane remembers.
const maxHeads = 64

// HeadOf returns the head of a branch that the lane saw last, nil when it saw none in this
// repository. A head without a hash says that the branch does not exist.
func HeadOf(l *storev1.Lane, repository, branch string) *storev1.Head {
	return headOf(l, repository, branch)
}

func headOf(l *storev1.Lane, repository, branch string) *storev1.Head {
	h := l.GetHeads()[branch]
	if h == nil || h.GetRepository() != repository {
		return nil
	}
	return h
}

// SetHead remembers a head, forgetting the oldest beyond a bound.
func SetHead(l *storev1.Lane, branch string, h *storev1.Head) {
	if l.Heads == nil {
		l.Heads = map[string]*storev1.Head{}
	}
	l.Heads[branch] = h
	for len(l.Heads) > maxHeads {
		oldest := ""
		for b, x := range l.Heads {
			if rules.IsGlob(b) {
				continue
			}
			if oldest == "" || x.GetTime().AsTime().Before(l.Heads[oldest].GetTime().AsTime()) {
				oldest = b
			}
		}
		delete(l.Heads, oldest)
	}
}

// Baseline records the head of a branch without deploying it: auto-deploy was switched on or the
// branch changed. An empty hash says that the branch does not exist yet.
func Baseline(l *storev1.Lane, repository, branch, hash string, now time.Time) {
	SetHead(l, branch, &storev1.Head{Hash: hash, Source: storev1.Head_BASELINE, Time: timestamppb.New(now), Repository: repository})
}

// ForgetHead makes the next look at the branch the baseline: its head could not be asked for.
func ForgetHead(l *storev1.Lane, branch string) { delete(l.Heads, branch) }

// BranchDeleted notes that a push deleted the branch. The same event twice changes nothing:
// ErrSkip.
func BranchDeleted(l *storev1.Lane, a Ask) error {
	if l.GetRetired() || l.GetGeneration() == 0 {
		return ErrRetired
	}
	id := eventID(a.Event)
	if _, seen := find(l, id); seen || tooOld(l, a) {
		return ErrSkip
	}
	remember(l, id, 0, a.ReceiveTime)
	SetHead(l, a.Branch, &storev1.Head{Source: storev1.Head_EVENT, Time: timestamppb.New(a.Now), Repository: a.Repository})
	return nil
}

// Gone notes that a look found the branch missing; ErrSkip when that was known.
func Gone(l *storev1.Lane, repository, branch string, now time.Time) error {
	if h := headOf(l, repository, branch); h != nil && h.GetHash() == "" {
		return ErrSkip
	}
	SetHead(l, branch, &storev1.Head{Source: storev1.Head_FETCH, Time: timestamppb.New(now), Repository: repository})
	return nil
}

// A pattern of branches has an entry among the heads, under its own name, once the heads of its
// branches were recorded: a branch that matches it and is not known is a new one from then on.

// PatternSeen tells whether the heads of a pattern's branches were recorded.
func PatternSeen(l *storev1.Lane, repository, pattern string) bool {
	return headOf(l, repository, pattern) != nil
}

// BaselinePattern records the heads of all branches that match a pattern, without deploying any.
func BaselinePattern(l *storev1.Lane, repository, pattern string, heads map[string]string, now time.Time) {
	for name := range l.GetHeads() {
		if rules.IsGlob(name) {
			delete(l.Heads, name)
		}
	}
	for branch, hash := range heads {
		if h := headOf(l, repository, branch); h.GetHash() != hash {
			Baseline(l, repository, branch, hash, now)
		}
	}
	Baseline(l, repository, pattern, "", now)
}

// Moved are the branches of a pattern whose heads differ from those seen last, by name; such that
// are gone are among them. Of a pattern with more branches than a lane remembers, a branch that is
// not known may be a forgotten one: it is left to its deliveries.
func Moved(l *storev1.Lane, repository, pattern string, heads map[string]string) []string {
	full := len(l.GetHeads()) >= maxHeads
	var out []string
	for branch, hash := range heads {
		h := headOf(l, repository, branch)
		if h == nil && full || h.GetHash() == hash {
			continue
		}
		out = append(out, branch)
	}
	for branch, h := range l.GetHeads() {
		if _, there := heads[branch]; !there && !rules.IsGlob(branch) && h.GetRepository() == repository && h.GetHash() != "" && rules.MatchBranch(pattern, branch) {
			out = append(out, branch)
		}
	}
	slices.Sort(out)
	return out
}
