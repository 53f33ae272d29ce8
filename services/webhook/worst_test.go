package webhook_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/testkit"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// byHealth lists the workspace's webhooks in pages of a size.
func (r *replica) byHealth(size int32) (names []string, err error) {
	req := &webhookv1.ListWebhooksRequest{Workspace: workspace, OrderBy: "health", PageSize: size}
	for {
		resp, err := r.people.ListWebhooks(r.as(identity.RoleMember), req)
		if err != nil {
			return nil, err
		}
		for _, w := range resp.GetWebhooks() {
			names = append(names, w.GetRepositoryFullName()+" "+w.GetHealth().String())
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return names, nil
		}
	}
}

// healths is what the metrics say of webhooks by their health, without those that are none.
func (r *replica) healths() (map[string]float64, error) {
	families, err := r.metrics.Gather()
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "devpilot_webhook_health" {
			continue
		}
		for _, m := range f.GetMetric() {
			if n := m.GetGauge().GetValue(); n != 0 {
				out[m.GetLabel()[0].GetValue()] = n
			}
		}
		if len(f.GetMetric()) != len(webhookv1.Webhook_Health_name)-1 {
			return nil, fmt.Errorf("%d words of health; an alert needs those that no webhook has, too", len(f.GetMetric()))
		}
	}
	return out, nil
}

// TestListWebhooks_worstFirst, in pages as in one, and the metrics count the same.
func TestListWebhooks_worstFirst(t *testing.T) {
	s, r, w := doubting(t)
	for _, name := range []string{"acme/b", "acme/a", "acme/off"} {
		repo, err := s.control.PutRepository(s.background(), name, emulator.RepositoryInput{Permissions: map[string]string{"jane-dev": "admin"}})
		if err != nil {
			t.Fatal(err)
		}
		hook := r.watch(name, repo.UUID, "main")
		if name == "acme/b" {
			r.eventually(hook.GetId(), inHealth(webhookv1.Webhook_REGISTERED))
		}
	}
	s.edit(w, map[string]any{"active": false})
	r.miss("one")
	r.eventually(w.GetId(), inHealth(webhookv1.Webhook_INACTIVE))
	want := []string{"acme/web INACTIVE", "acme/a REGISTERED", "acme/b REGISTERED", "acme/off REGISTERED"}
	for _, size := range []int32{0, 1, 2, 3} {
		testkit.Eventually(t, timeout, func() error {
			got, err := r.byHealth(size)
			if err != nil || !slices.Equal(got, want) {
				return errors.Join(err, fmt.Errorf("pages of %d: %q, want %q", size, got, want))
			}
			return nil
		})
	}
	testkit.Eventually(t, timeout, func() error {
		got, err := r.healths()
		if err != nil || len(got) != 2 || got["INACTIVE"] != 1 || got["REGISTERED"] != 3 {
			return errors.Join(err, fmt.Errorf("metrics: %v", got))
		}
		return nil
	})
	if _, err := r.people.ListWebhooks(r.admin(), &webhookv1.ListWebhooksRequest{Workspace: workspace, OrderBy: "age"}); !apierr.Has(err, apierr.ReasonInvalidArgument) {
		t.Errorf("an order that is none: %v", err)
	}
	resp, err := r.people.ListWebhooks(r.admin(), &webhookv1.ListWebhooksRequest{Workspace: workspace, OrderBy: "health", State: webhookv1.Webhook_DRIFTED})
	if err != nil || len(resp.GetWebhooks()) != 1 {
		t.Errorf("of one state: %v, %v", resp, err)
	}
}
