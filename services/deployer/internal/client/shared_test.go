package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"

	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/deployer/internal/client"
)

// asked is webhook, which answers a call when the test lets it.
type asked struct {
	webhookv1.WebhookServiceClient
	answer chan error

	mu    sync.Mutex
	calls [][]string
}

func (a *asked) BatchGetWebhooks(ctx context.Context, req *webhookv1.BatchGetWebhooksRequest, _ ...grpc.CallOption) (*webhookv1.BatchGetWebhooksResponse, error) {
	a.mu.Lock()
	a.calls = append(a.calls, append([]string{req.GetWorkspace()}, req.GetRepositories()...))
	a.mu.Unlock()
	select {
	case err := <-a.answer:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	resp := &webhookv1.BatchGetWebhooksResponse{}
	for _, id := range req.GetRepositories() {
		if id != "none" {
			resp.Webhooks = append(resp.Webhooks, &webhookv1.Webhook{Id: "hook of " + id, Repository: id})
		}
	}
	return resp, nil
}

func (a *asked) seen() [][]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.calls)
}

// Those who ask while a call is under way share the next one, and each gets what it asked for.
func TestSharedWebhooks_oneCallServesAllWhoAskedBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		webhook := &asked{answer: make(chan error)}
		s := &client.SharedWebhooks{Webhook: client.Webhook{Client: webhook}}
		var all sync.WaitGroup
		ask := func(workspace string, ids ...string) {
			all.Go(func() {
				found, err := s.Webhooks(t.Context(), workspace, ids)
				if err != nil {
					t.Errorf("%v: %v", ids, err)
				}
				for _, id := range ids {
					if h := found[id]; id == "none" && h != nil || id != "none" && h.GetRepository() != id {
						t.Errorf("%s: %v", id, h)
					}
				}
				if len(found) > len(ids) {
					t.Errorf("%v: %d found", ids, len(found))
				}
			})
		}
		ask("acme", "a")
		synctest.Wait()
		for range 10 {
			ask("acme", "a")
			ask("acme", "b", "none")
		}
		ask("other", "a")
		synctest.Wait()
		if got := webhook.seen(); len(got) != 2 { // the first of each workspace
			t.Errorf("%d calls are under way: %v", len(got), got)
		}
		for range 3 {
			webhook.answer <- nil
		}
		all.Wait()
		got := webhook.seen()
		if len(got) != 3 || !slices.Equal(got[2], []string{"acme", "a", "b", "none"}) {
			t.Errorf("calls: %v", got)
		}
	})
}

// A call that fails fails for those who wait for it and for nobody after it; who goes away waits no longer.
func TestSharedWebhooks_troubleEndsWithItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		webhook := &asked{answer: make(chan error)}
		s := &client.SharedWebhooks{Webhook: client.Webhook{Client: webhook}}
		gone, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := s.Webhooks(gone, "acme", []string{"a"}); !errors.Is(err, context.Canceled) {
				t.Errorf("who left heard %v", err)
			}
		})
		synctest.Wait()
		leave()
		all.Wait()
		away := errors.New("webhook is away")
		all.Go(func() {
			if _, err := s.Webhooks(t.Context(), "acme", []string{"a"}); !errors.Is(err, away) {
				t.Errorf("heard %v", err)
			}
		})
		synctest.Wait()
		webhook.answer <- nil // the one that nobody waits for
		webhook.answer <- away
		all.Wait()
		all.Go(func() {
			if _, err := s.Webhooks(t.Context(), "acme", []string{"a"}); err != nil {
				t.Error(err)
			}
		})
		webhook.answer <- nil
		all.Wait()
		// One that is never answered ends by itself.
		if _, err := s.Webhooks(t.Context(), "acme", []string{"a"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("heard %v", err)
		}
	})
}

// More repositories than a call may name are asked for by a call of their own.
func TestSharedWebhooks_aFullCallTakesNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		webhook := &asked{answer: make(chan error)}
		s := &client.SharedWebhooks{Webhook: client.Webhook{Client: webhook}}
		var all sync.WaitGroup
		ask := func(from, n int) {
			var ids []string
			for i := range n {
				ids = append(ids, fmt.Sprintf("repository-%03d", from+i))
			}
			all.Go(func() {
				if found, err := s.Webhooks(t.Context(), "acme", ids); err != nil || len(found) != n {
					t.Errorf("%d found, %v", len(found), err)
				}
			})
			synctest.Wait()
		}
		ask(0, 1)
		ask(0, 150)
		ask(100, 100)
		ask(200, 100)
		for range 3 {
			webhook.answer <- nil
		}
		all.Wait()
		for _, c := range webhook.seen() {
			if len(c) > 201 {
				t.Errorf("a call names %d repositories", len(c)-1)
			}
		}
	})
}
