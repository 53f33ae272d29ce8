package lane

import (
	"slices"

	"google.golang.org/protobuf/proto"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// maxPassed is how many branches are remembered that were there when watching began anew.
const maxPassed = 10

// ForgetBranches forgets what was seen of branches, because auto-deploy was switched on or other
// branches are watched: all that the next poll finds is the baseline and deploys nothing.
func ForgetBranches(l *storev1.Lane) {
	l.BranchBaseline++
	l.Sighted = nil
	forget(l, false)
}

// PassBranches is [ForgetBranches] where the same branches are watched as before: people are still told where
// those were that moved last.
func PassBranches(l *storev1.Lane, moved []*storev1.Sighted) {
	ForgetBranches(l)
	for _, s := range moved[:min(len(moved), maxPassed)] {
		s.Passed = true
		l.Sighted = append(l.Sighted, s)
	}
}

// Sight replaces what is known of branches and was not decided about. Of those that the lane has noted
// something about since was, nothing is kept. ErrSkip where all is as it was.
func Sight(was, l *storev1.Lane, sighted []*storev1.Sighted) error {
	var keep []*storev1.Sighted
	for _, s := range sighted {
		if r := Branch(s.GetBranch()); Untouched(was, l, r) && !UndecidedOf(l, r) {
			keep = append(keep, s)
		}
	}
	if SameSighted(l.GetSighted(), keep) {
		return ErrSkip
	}
	l.Sighted = keep
	return nil
}

// SameSighted tells whether two lists say the same.
func SameSighted(a, b []*storev1.Sighted) bool {
	return slices.EqualFunc(a, b, func(a, b *storev1.Sighted) bool { return proto.Equal(a, b) })
}

func unsight(l *storev1.Lane, r Ref) {
	if !r.IsTag() {
		l.Sighted = slices.DeleteFunc(l.GetSighted(), func(s *storev1.Sighted) bool { return s.GetBranch() == r.Name() })
	}
}
