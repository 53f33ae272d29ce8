package client

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// sharedTimeout bounds a call that several wait for.
const sharedTimeout = time.Second

// SharedWebhooks is webhook for whoever shows apps. One call serves all who ask for webhooks of a workspace
// before it is sent, and nobody who asks later: an answer says nothing about what changed after its question.
// golang.org/x/sync/singleflight would also serve those that ask while it is under way.
type SharedWebhooks struct {
	Webhook
	mu    sync.Mutex
	state map[string]*workspaceCalls
}

// workspaceCalls are the calls for one workspace, one at a time.
type workspaceCalls struct{ next *sharedCall } // next is not sent yet; nil when nobody waits for one

type sharedCall struct {
	ctx          context.Context //nolint:containedctx // of the first who asked, without its end: the call is made for others too
	repositories map[string]struct{}
	done         chan struct{} // closed when it is answered
	found        map[string]*webhookv1.Webhook
	err          error
}

// Webhooks answers by repository. What it returns is shared.
func (s *SharedWebhooks) Webhooks(ctx context.Context, workspace string, repositories []string) (map[string]*webhookv1.Webhook, error) {
	call := s.join(ctx, workspace, repositories)
	if call == nil {
		return s.Webhook.Webhooks(ctx, workspace, repositories)
	}
	select {
	case <-call.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if call.err != nil {
		return nil, call.err
	}
	found := make(map[string]*webhookv1.Webhook, len(repositories))
	for _, id := range repositories {
		if h := call.found[id]; h != nil {
			found[id] = h
		}
	}
	return found, nil
}

// join returns the next call for the workspace, which names the repositories too; nil when it has no room.
func (s *SharedWebhooks) join(ctx context.Context, workspace string, repositories []string) *sharedCall {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == nil {
		s.state = map[string]*workspaceCalls{}
	}
	calls, running := s.state[workspace]
	if !running {
		calls = &workspaceCalls{}
	}
	call := calls.next
	if call == nil {
		call = &sharedCall{ctx: context.WithoutCancel(ctx), repositories: map[string]struct{}{}, done: make(chan struct{})}
	}
	added := 0
	for _, id := range repositories {
		if _, named := call.repositories[id]; !named {
			added++
		}
	}
	if len(call.repositories)+added > pagetoken.MaxPage { // webhook takes no more
		return nil
	}
	for _, id := range repositories {
		call.repositories[id] = struct{}{}
	}
	calls.next = call
	if !running {
		s.state[workspace] = calls
		go s.run(workspace, calls)
	}
	return call
}

// run calls until nobody waits.
func (s *SharedWebhooks) run(workspace string, calls *workspaceCalls) {
	for {
		s.mu.Lock()
		call := calls.next
		calls.next = nil
		if call == nil {
			delete(s.state, workspace)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		call.found, call.err = s.ask(workspace, call)
		close(call.done)
	}
}

func (s *SharedWebhooks) ask(workspace string, call *sharedCall) (map[string]*webhookv1.Webhook, error) {
	ctx, cancel := context.WithTimeout(call.ctx, sharedTimeout)
	defer cancel()
	return s.Webhook.Webhooks(ctx, workspace, slices.Sorted(maps.Keys(call.repositories)))
}
