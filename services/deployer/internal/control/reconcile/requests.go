package reconcile

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// maxRequests bounds the deliveries that wait for a poll.
const maxRequests = 50

// RequestPoll has a repository polled at once because a delivery listed no changes (BITBUCKET.md#push-payload, case 8).
func (r *Reconciler) RequestPoll(ctx context.Context, workspace, repository string, ask *storev1.Ask) error {
	return r.request(ctx, workspace, repository, func(state *storev1.Reconciliation) {
		for _, a := range state.GetAsks() {
			if a.GetEvent() == ask.GetEvent() {
				return
			}
		}
		if len(state.Asks) < maxRequests {
			state.Asks = append(state.Asks, ask)
		}
	})
}

// PollNow has a repository polled at once, because there is a token again: whatever refused the polls
// before, and named a time for the next, refused those of another token. Resumed says that deliveries were
// turned away until now, so that nothing that is found waits for one.
func (r *Reconciler) PollNow(ctx context.Context, workspace, repository string, resumed bool) error {
	return r.request(ctx, workspace, repository, func(state *storev1.Reconciliation) {
		state.Failures, state.NotBefore, state.Resumed = 0, nil, state.GetResumed() || resumed
	})
}

func (r *Reconciler) request(ctx context.Context, workspace, repository string, fn func(*storev1.Reconciliation)) error {
	key := workspace + "." + repository
	_, _, err := r.cfg.States.Update(ctx, key, func(state *storev1.Reconciliation) (*storev1.Reconciliation, error) {
		if state == nil {
			state = &storev1.Reconciliation{}
		}
		fn(state)
		state.NextTime = timestamppb.New(r.cfg.Now())
		return state, nil
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hurry(key)
	return nil
}
