package reconcile

import (
	"context"

	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// sight notes for people where branches are about which nothing is decided: those whose deliveries are waited
// for, so that nobody is told meanwhile that what is live is the newest, and those that were passed over when
// watching began anew. A poll that finds all as it was known writes nothing.
func (r *Reconciler) sight(ctx context.Context, s seen, now *storev1.Lane, all []change, missing map[string]*storev1.Missing, found lane.Found) (*storev1.Lane, error) {
	var sighted []*storev1.Sighted
	for _, was := range now.GetSighted() {
		hash, there := found.Heads[was.GetBranch()]
		if !was.GetPassed() || found.Heads != nil && !there {
			continue
		}
		if there && hash != was.GetHash() { // between the last poll and the one that began anew
			was = &storev1.Sighted{Branch: was.GetBranch(), Hash: hash, Time: timestamp(r.cfg.Now()), Passed: true}
		}
		sighted = append(sighted, was)
	}
	for _, c := range all {
		m := missing[missingKey(&storev1.Missing{Branch: c.ref.Branch(), Tag: c.ref.Tag(), Hash: c.new})]
		if m == nil || c.ref.IsTag() || c.new == "" {
			continue
		}
		if sighted = append(sighted, &storev1.Sighted{Branch: c.ref.Name(), Hash: c.new, Time: m.GetTime()}); len(sighted) == maxDecisions {
			break
		}
	}
	if lane.SameSighted(now.GetSighted(), sighted) {
		return now, nil
	}
	before := now
	return r.cfg.Dispatcher.Change(ctx, s.key, func(now *storev1.Lane) error {
		if now.GetRetired() || now.GetGeneration() != s.lane.GetGeneration() {
			return lane.ErrSkip
		}
		return lane.Sight(before, now, sighted)
	})
}
