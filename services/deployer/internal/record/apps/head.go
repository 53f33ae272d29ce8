package apps

import (
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
	var ref lane.Ref
	var newest *storev1.Head
	for name := range l.GetHeads() {
		r := lane.Ref(name)
		h := lane.HeadOf(l, a.GetRepository(), r)
		if !r.IsTag() && h.GetHash() != "" && rules.MatchBranch(a.GetBranch(), r.Name()) && (newest == nil || h.GetSeq() > newest.GetSeq()) {
			ref, newest = r, h
		}
	}
	return ref, newest
}
