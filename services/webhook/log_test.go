package webhook_test

import (
	"errors"
	"fmt"
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

func TestReplay_publishesTheEventsAgain(t *testing.T) {
	r, w, secret := ready(t)
	r.post(post{url: w.GetUrl(), secret: secret, body: pushBody("main", hash(1))})
	r.post(post{url: w.GetUrl(), secret: secret, body: []byte(`{}`), header: map[string]string{"X-Event-Key": "repo:fork"}})
	r.await(w.GetId(), 2)
	first := r.wantEvents(1)[0]
	replay := func(number int32, request string) (*webhookv1.Delivery, error) {
		resp, err := r.people.ReplayDelivery(r.admin(), &webhookv1.ReplayDeliveryRequest{Workspace: workspace, Webhook: w.GetId(), Delivery: number, RequestId: request})
		return resp.GetDelivery(), err
	}
	for range 2 { // the same request twice is one replay
		d, err := replay(1, "request-1")
		if err != nil || d.GetReplays() != 1 {
			t.Fatalf("ReplayDelivery: %v, %v", d, err)
		}
	}
	if d, err := replay(1, ""); err != nil || d.GetReplays() != 2 {
		t.Errorf("ReplayDelivery: %v, %v", d, err)
	}
	events := r.wantEvents(3)
	for i, e := range events[1:] {
		if !e.GetReplay() || e.GetId() != fmt.Sprintf("%s.r%d", first.GetId(), i+1) || e.GetNew().GetHash() != hash(1) || e.GetDelivery() != 1 {
			t.Errorf("replayed event %v", e)
		}
	}
	if _, err := replay(2, ""); !apierr.Has(err, apierr.ReasonInvalidArgument) {
		t.Errorf("replay of what is no push: %v", err)
	}
	if _, err := replay(7, ""); !apierr.Has(err, apierr.ReasonDeliveryNotFound) {
		t.Errorf("replay of nothing: %v", err)
	}
	str, err := r.js.Stream(r.background(), "DEVPILOT_INBOX")
	if err == nil {
		err = str.Purge(r.background())
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := replay(1, ""); !apierr.Has(err, apierr.ReasonDeliveryNotFound) {
		t.Errorf("replay after the body is gone: %v", err)
	}
}

func TestOutcomes_areAddedOnce(t *testing.T) {
	r, w, secret := ready(t)
	r.post(post{url: w.GetUrl(), secret: secret, body: pushBody("main", hash(1))})
	r.await(w.GetId(), 1)
	outcome := &webhookv1.DeliveryOutcome{App: "web", Kind: webhookv1.DeliveryOutcome_DEPLOYMENT, Deployment: 7}
	req := &webhookv1.RecordOutcomesRequest{Outcomes: []*webhookv1.RecordedOutcome{
		{Workspace: workspace, Webhook: w.GetId(), Delivery: 1, Outcome: outcome},
		{Workspace: workspace, Webhook: w.GetId(), Delivery: 1, Outcome: outcome},
		{Workspace: "other", Webhook: w.GetId(), Delivery: 1, Outcome: outcome}, // not theirs
		{Workspace: workspace, Webhook: w.GetId(), Delivery: 99, Outcome: outcome},
	}}
	for range 2 {
		if _, err := r.deployer.RecordOutcomes(r.background(), req); err != nil {
			t.Fatalf("RecordOutcomes: %v", err)
		}
	}
	resp, err := r.people.GetDelivery(r.admin(), &webhookv1.GetDeliveryRequest{Workspace: workspace, Webhook: w.GetId(), Delivery: 1})
	if err != nil {
		t.Fatal(err)
	}
	if o := resp.GetDelivery().GetOutcomes(); len(o) != 1 || o[0].GetDeployment() != 7 || o[0].GetTime() == nil {
		t.Errorf("outcomes %v", o)
	}
}

func TestListDeliveries_pagesAndFilters(t *testing.T) {
	r, w, secret := ready(t)
	const n = 45
	for i := range n {
		branch := "main"
		if i%15 == 0 {
			branch = "rare"
		}
		if status, _ := r.post(post{url: w.GetUrl(), secret: secret, body: pushBody(branch, hash(i))}); status != 202 {
			t.Fatalf("answered %d", status)
		}
	}
	r.await(w.GetId(), n)
	collect := func(req *webhookv1.ListDeliveriesRequest) (numbers []int32) {
		t.Helper()
		req.Workspace, req.Webhook = workspace, w.GetId()
		for range n {
			resp, err := r.people.ListDeliveries(r.admin(), req)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range resp.GetDeliveries() {
				numbers = append(numbers, d.GetNumber())
			}
			if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
				return numbers
			}
		}
		t.Fatal("the pages do not end")
		return nil
	}
	all := collect(&webhookv1.ListDeliveriesRequest{PageSize: 10})
	if len(all) != n {
		t.Errorf("%d deliveries: %v", len(all), all)
	}
	for i, number := range all {
		if number != int32(n-i) {
			t.Fatalf("not newest first, or with gaps: %v", all)
		}
	}
	if rare := collect(&webhookv1.ListDeliveriesRequest{PageSize: 2, Branch: "rare"}); len(rare) != 3 {
		t.Errorf("deliveries of the branch: %v", rare)
	}
	_, err := r.people.ListDeliveries(r.admin(), &webhookv1.ListDeliveriesRequest{Workspace: workspace, Webhook: w.GetId(), PageToken: "made-up"})
	if !apierr.Has(err, apierr.ReasonPageTokenInvalid) {
		t.Errorf("a made-up token: %v", err)
	}
	var e *apierr.Error
	if !errors.As(err, &e) || len(e.Fields()) != 1 {
		t.Errorf("the error names no field: %v", err)
	}
}
