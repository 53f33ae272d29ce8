package webhook_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/testkit"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// foundPush is a push of acme/web that polling found.
func foundPush(key string, at time.Time) *webhookv1.FoundPush {
	return &webhookv1.FoundPush{
		Key: key, Repository: web, Found: webhookv1.Delivery_DELIVERY_MISSING, Message: "Found by polling", Time: timestamppb.New(at),
		Change: &webhookv1.DeliveryChange{RefType: webhookv1.DeliveryChange_BRANCH, Ref: "main", OldHash: hash(1), NewHash: hash(2), Action: webhookv1.DeliveryChange_UPDATED},
	}
}

func (r *replica) record(outcomes ...*webhookv1.RecordedOutcome) {
	r.t.Helper()
	if _, err := r.deployer.RecordOutcomes(r.background(), &webhookv1.RecordOutcomesRequest{Outcomes: outcomes}); err != nil {
		r.t.Fatalf("RecordOutcomes: %v", err)
	}
}

func outcomeOf(f *webhookv1.FoundPush, app, state string) *webhookv1.RecordedOutcome {
	return &webhookv1.RecordedOutcome{Workspace: workspace, Found: f, Outcome: &webhookv1.DeliveryOutcome{
		App: app, Kind: webhookv1.DeliveryOutcome_DEPLOYMENT, Deployment: 1, DeploymentState: state, Time: timestamppb.Now(),
	}}
}

// TestFound_isListedOnce, whoever tells of it, however often, and however it ends; Bitbucket's repeats of
// what came before are known as before.
func TestFound_isListedOnce(t *testing.T) {
	r, w, secret := ready(t)
	body := pushBody("main", hash(1))
	first := post{url: w.GetUrl(), secret: secret, body: body, header: map[string]string{"X-Request-UUID": "1f1f1f1f-0000-4000-8000-000000000001"}}
	r.post(first)
	r.await(w.GetId(), 1)

	at := time.Now().Truncate(time.Millisecond)
	f := foundPush("one", at)
	r.record(outcomeOf(f, "app-main", "PENDING"), outcomeOf(f, "app-second", "PENDING"))
	r.record(outcomeOf(f, "app-main", "PENDING")) // told again, as after a crash
	end := foundPush("one", at)
	end.Told, end.Change.Message, end.Change.AuthorName = true, "Fix the door\n\nand more", "Jane Developer"
	r.record(outcomeOf(end, "app-main", "COMPLETED"))
	unknown := foundPush("no longer kept", at.Add(-25*time.Hour))
	unknown.Told = true
	r.record(outcomeOf(unknown, "app-main", "COMPLETED"))

	first.header["X-Attempt-Number"] = "2"
	r.post(first) // Bitbucket's repeat
	r.post(post{url: w.GetUrl(), secret: secret, body: pushBody("main", hash(3))})
	ds := r.await(w.GetId(), 3)
	d := ds[1]
	if d.GetNumber() != 2 || d.GetFound() != webhookv1.Delivery_DELIVERY_MISSING || d.GetFoundMessage() == "" || !d.GetReceiveTime().AsTime().Equal(at) || d.GetAnswerStatus() != 0 {
		t.Errorf("the push that was found: %v", d)
	}
	if c := d.GetChanges(); len(c) != 1 || c[0].GetMessage() != "Fix the door" || c[0].GetAuthorName() != "Jane Developer" || c[0].GetNewHash() != hash(2) {
		t.Errorf("its change: %v", c)
	}
	states := map[string]string{}
	for _, o := range d.GetOutcomes() {
		states[o.GetApp()] = o.GetDeploymentState()
	}
	if len(d.GetOutcomes()) != 2 || states["app-main"] != "COMPLETED" || states["app-second"] != "PENDING" {
		t.Errorf("its outcomes: %v", d.GetOutcomes())
	}
	if ds[2].GetAttempt() != 2 || ds[0].GetNumber() != 3 {
		t.Errorf("deliveries around it: %v", ds)
	}
	// The same commit found once more, at another time, is another push.
	r.record(outcomeOf(foundPush("two", at.Add(time.Hour)), "app-main", "PENDING"))
	r.await(w.GetId(), 4)
	// Another workspace's word lists nothing here.
	other := outcomeOf(foundPush("theirs", at), "app-main", "PENDING")
	other.Workspace = "other"
	r.record(other)
	if n := len(r.deliveries(w.GetId())); n != 4 {
		t.Errorf("%d in the list", n)
	}
	if _, err := r.people.ReplayDelivery(r.admin(), &webhookv1.ReplayDeliveryRequest{Workspace: workspace, Webhook: w.GetId(), Delivery: 2}); !apierr.Has(err, apierr.ReasonInvalidArgument) {
		t.Errorf("replay of what no delivery told of: %v", err)
	}
}

// TestFound_whoseEndIsToldFirst: outcomes that waited for webhook come in any order; the end is not lost,
// and the beginning that comes after it changes nothing.
func TestFound_whoseEndIsToldFirst(t *testing.T) {
	r, w, _ := ready(t)
	at := time.Now().Truncate(time.Millisecond)
	end := foundPush("one", at)
	end.Told, end.Change.Message = true, "Fix the door"
	r.record(outcomeOf(end, "app-main", "COMPLETED"))
	r.record(outcomeOf(end, "app-main", "COMPLETED")) // told again, as after a crash
	r.record(outcomeOf(foundPush("one", at), "app-main", "PENDING"))
	d := r.await(w.GetId(), 1)[0]
	if o := d.GetOutcomes(); len(o) != 1 || o[0].GetDeploymentState() != "COMPLETED" {
		t.Errorf("its outcomes: %v", o)
	}
	if c := d.GetChanges(); len(c) != 1 || c[0].GetMessage() != "Fix the door" {
		t.Errorf("its change: %v", c)
	}
}

func (r *replica) numbers(req *webhookv1.ListDeliveriesRequest) (numbers []int32) {
	r.t.Helper()
	req.Workspace = workspace
	for {
		resp, err := r.people.ListDeliveries(r.as(identity.RoleMember), req)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, d := range resp.GetDeliveries() {
			numbers = append(numbers, d.GetNumber())
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return numbers
		}
	}
}

func TestListDeliveries_filters(t *testing.T) {
	r, w, secret := ready(t)
	for i, branch := range []string{"main", "staging", "main", "main", "main"} {
		r.post(post{url: w.GetUrl(), secret: secret, body: pushBody(branch, hash(i+1))})
		r.await(w.GetId(), i+1)
	}
	outcome := func(number int32, app string, kind webhookv1.DeliveryOutcome_Kind, state string) {
		t.Helper()
		r.record(&webhookv1.RecordedOutcome{Workspace: workspace, Webhook: w.GetId(), Delivery: number, Outcome: &webhookv1.DeliveryOutcome{
			App: app, Kind: kind, DeploymentState: state, Time: timestamppb.Now(), Reason: "R", Deployment: number,
		}})
	}
	outcome(1, "web", webhookv1.DeliveryOutcome_DEPLOYMENT, "COMPLETED")
	outcome(1, "api", webhookv1.DeliveryOutcome_DEPLOYMENT, "FAILED")
	outcome(2, "api", webhookv1.DeliveryOutcome_IGNORED, "")
	outcome(3, "web", webhookv1.DeliveryOutcome_DEPLOYMENT, "SUPERSEDED")
	outcome(4, "web", webhookv1.DeliveryOutcome_DEPLOYMENT, "PENDING")
	times := map[int32]*timestamppb.Timestamp{}
	for _, d := range r.deliveries(w.GetId()) {
		times[d.GetNumber()] = d.GetReceiveTime()
	}
	for name, tc := range map[string]struct {
		req  *webhookv1.ListDeliveriesRequest
		want []int32
	}{
		"branch":              {&webhookv1.ListDeliveriesRequest{Branch: "staging"}, []int32{2}},
		"commit":              {&webhookv1.ListDeliveriesRequest{Commit: strings.ToUpper(hash(3)[:40])}, []int32{3}},
		"deployed":            {&webhookv1.ListDeliveriesRequest{Outcome: webhookv1.Delivery_DEPLOYED}, []int32{1}},
		"failed in any app":   {&webhookv1.ListDeliveriesRequest{Outcome: webhookv1.Delivery_FAILED}, []int32{1}},
		"failed in this app":  {&webhookv1.ListDeliveriesRequest{Outcome: webhookv1.Delivery_FAILED, App: "web"}, nil},
		"turned away":         {&webhookv1.ListDeliveriesRequest{Outcome: webhookv1.Delivery_TURNED_AWAY, App: "web"}, []int32{2}},
		"stopped":             {&webhookv1.ListDeliveriesRequest{Outcome: webhookv1.Delivery_STOPPED}, []int32{3}},
		"pending":             {&webhookv1.ListDeliveriesRequest{Outcome: webhookv1.Delivery_PENDING, App: "web"}, []int32{5, 4}},
		"from a time on":      {&webhookv1.ListDeliveriesRequest{After: times[3]}, []int32{5, 4, 3}},
		"before a time":       {&webhookv1.ListDeliveriesRequest{Before: times[3]}, []int32{2, 1}},
		"several, by page":    {&webhookv1.ListDeliveriesRequest{Branch: "main", After: times[2], PageSize: 1}, []int32{5, 4, 3}},
		"long before them":    {&webhookv1.ListDeliveriesRequest{Before: timestamppb.New(time.Now().Add(-time.Hour))}, nil},
		"long after them all": {&webhookv1.ListDeliveriesRequest{After: timestamppb.New(time.Now().Add(time.Hour))}, nil},
	} {
		tc.req.Webhook = w.GetId()
		if got := r.numbers(tc.req); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
	// A page's token is for its filter.
	resp, err := r.people.ListDeliveries(r.admin(), &webhookv1.ListDeliveriesRequest{Workspace: workspace, Webhook: w.GetId(), Branch: "main", PageSize: 1})
	if err != nil || resp.GetNextPageToken() == "" {
		t.Fatalf("%v, %v", resp, err)
	}
	_, err = r.people.ListDeliveries(r.admin(), &webhookv1.ListDeliveriesRequest{Workspace: workspace, Webhook: w.GetId(), Branch: "staging", PageSize: 1, PageToken: resp.GetNextPageToken()})
	if !apierr.Has(err, apierr.ReasonPageTokenInvalid) {
		t.Errorf("a token of another filter: %v", err)
	}
}

func TestRevealDeliveryBody_isForAdminsOfItsWorkspaceWhileItIsKept(t *testing.T) {
	r, w, secret := ready(t)
	body := pushBody("main", hash(1))
	r.post(post{url: w.GetUrl(), secret: secret, body: body})
	r.await(w.GetId(), 1)
	reveal := func(ctx context.Context, number int32) (*webhookv1.RevealDeliveryBodyResponse, error) {
		return r.people.RevealDeliveryBody(ctx, &webhookv1.RevealDeliveryBodyRequest{Workspace: workspace, Webhook: w.GetId(), Delivery: number})
	}
	got, err := reveal(r.admin(), 1)
	if err != nil || got.GetBody() != string(body) || time.Until(got.GetExpireTime().AsTime()) < 6*24*time.Hour {
		t.Fatalf("RevealDeliveryBody: %v, %v", got, err)
	}
	if _, err := reveal(r.as(identity.RoleMember), 1); !apierr.Has(err, apierr.ReasonPermissionDenied) {
		t.Errorf("to a member: %v", err)
	}
	theirs := testkit.As(r.background(), t, r.keys, identity.Identity{Workspace: "other", Role: identity.RoleOwner})
	if _, err := reveal(theirs, 1); err == nil {
		t.Error("shown to another workspace's owner")
	}
	if _, err := reveal(r.admin(), 7); !apierr.Has(err, apierr.ReasonDeliveryNotFound) {
		t.Errorf("of no delivery: %v", err)
	}
	r.logs.MustNotContain(t, hash(1))
	str, err := r.js.Stream(r.background(), "DEVPILOT_INBOX")
	if err == nil {
		err = str.Purge(r.background())
	}
	if err != nil {
		t.Fatal(err)
	}
	var e *apierr.Error
	if _, err := reveal(r.admin(), 1); !errors.As(err, &e) || e.Reason() != apierr.ReasonDeliveryNotFound || !strings.Contains(e.Message(), "7 days") {
		t.Errorf("after it is gone: %v", err)
	}
}

func TestReplayDeliveries_aRangeOnceAndBounded(t *testing.T) {
	r, w, secret := ready(t)
	r.post(post{url: w.GetUrl(), secret: secret, body: pushBody("main", hash(1))})
	r.post(post{url: w.GetUrl(), secret: secret, body: []byte(`{}`), header: map[string]string{"X-Event-Key": "repo:fork"}})
	r.await(w.GetId(), 2)
	r.post(post{url: w.GetUrl(), secret: secret, body: pushBody("main", hash(2))})
	r.await(w.GetId(), 3)
	r.wantEvents(2)
	replay := func(ctx context.Context, first, last int32) (*webhookv1.ReplayDeliveriesResponse, error) {
		return r.people.ReplayDeliveries(ctx, &webhookv1.ReplayDeliveriesRequest{Workspace: workspace, Webhook: w.GetId(), First: first, Last: last, RequestId: "range-1"})
	}
	for range 2 { // the same request twice is one replay
		resp, err := replay(r.admin(), 1, 4)
		if err != nil {
			t.Fatal(err)
		}
		var done, skipped []int32
		for _, d := range resp.GetDeliveries() {
			done = append(done, d.GetNumber())
		}
		for _, s := range resp.GetSkipped() {
			skipped = append(skipped, s.GetDelivery())
			if s.GetMessage() == "" {
				t.Errorf("skipped without a word: %v", s)
			}
		}
		if !slices.Equal(done, []int32{1, 3}) || !slices.Equal(skipped, []int32{2, 4}) {
			t.Errorf("replayed %v, skipped %v", done, skipped)
		}
	}
	events := r.wantEvents(4)
	if !events[2].GetReplay() || events[2].GetDelivery() != 1 || events[3].GetDelivery() != 3 {
		t.Errorf("replayed %v", events[2:])
	}
	// The numbers end; a range up to the last one does too.
	resp, err := replay(r.admin(), 1<<31-2, 1<<31-1)
	if err != nil || len(resp.GetDeliveries()) != 0 || len(resp.GetSkipped()) != 2 {
		t.Errorf("the last numbers that there are: %v, %v", resp, err)
	}
	for _, bad := range [][2]int32{{0, 3}, {3, 2}, {1, 51}, {1, 1<<31 - 1}} {
		if _, err := replay(r.admin(), bad[0], bad[1]); !apierr.Has(err, apierr.ReasonInvalidArgument) {
			t.Errorf("range %v: %v", bad, err)
		}
	}
	if _, err := replay(r.as(identity.RoleMember), 1, 3); !apierr.Has(err, apierr.ReasonPermissionDenied) {
		t.Errorf("by a member: %v", err)
	}
}
