package outcome

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// ReasonAppDeleted is the reason of pushes whose app was deleted before they were deployed.
const ReasonAppDeleted = "APP_DELETED"

// Deployment is the outcome of a push that made, or is answered with, a deployment as it stands.
func Deployment(app string, d *deployerv1.Deployment) *webhookv1.DeliveryOutcome {
	o := &webhookv1.DeliveryOutcome{App: app, Kind: webhookv1.DeliveryOutcome_DEPLOYMENT, Deployment: d.GetNumber()}
	o.DeploymentState, o.Reason = d.GetState().String(), d.GetError().GetReason()
	switch d.GetState() {
	case deployerv1.Deployment_COMPLETED:
		o.Message = fmt.Sprintf("Deployed as #%d", d.GetNumber())
	case deployerv1.Deployment_SUPERSEDED:
		o.Message = fmt.Sprintf("Deployment #%d: SUPERSEDED", d.GetNumber())
		if by := d.GetSupersededBy(); by != 0 {
			o.Message += fmt.Sprintf(" by #%d", by)
		}
	case deployerv1.Deployment_FAILED, deployerv1.Deployment_CANCELLED:
		o.Message = fmt.Sprintf("Deployment #%d: %s", d.GetNumber(), d.GetState())
		if m := strings.TrimSuffix(d.GetError().GetMessage(), "."); m != "" {
			o.Message += ". " + m
		}
	case deployerv1.Deployment_STATE_UNSPECIFIED, deployerv1.Deployment_PENDING, deployerv1.Deployment_PROCESSING:
		o.DeploymentState = deployerv1.Deployment_PENDING.String() // until it has ended
		o.Message = fmt.Sprintf("Deployed as #%d as soon as it is done", d.GetNumber())
	}
	return o
}

const (
	// ReasonDeciding is the reason of pushes about which a worker decides.
	ReasonDeciding = "DECIDING"
	// ReasonServerOffline is the same where no worker of the server is live.
	ReasonServerOffline = "SERVER_OFFLINE"
)

// ReasonSeenBefore is the reason of pushes that repeat, or come after, what was decided about before.
const ReasonSeenBefore = "SEEN_BEFORE"

// Deciding is the outcome of a push until a worker has decided about it. offline says that no worker of
// the server is live.
func Deciding(app, server string, offline bool) *webhookv1.DeliveryOutcome {
	o := &webhookv1.DeliveryOutcome{
		App: app, Kind: webhookv1.DeliveryOutcome_DECIDING, Reason: ReasonDeciding,
		Message: fmt.Sprintf("Being decided: the rules of %s need the repository, which a worker reads", app),
	}
	if offline {
		o.Reason = ReasonServerOffline
		o.Message += fmt.Sprintf(". No worker of server %s is live; start one", server)
	}
	return o
}

// Deciding tells the deliveries of a lane's candidates that they are being decided about.
func (o *Outbox) Deciding(ctx context.Context, k lane.Key, l *storev1.Lane, offline bool) error {
	var all []*webhookv1.RecordedOutcome
	for _, c := range l.GetCandidates() {
		all = append(all, told(k, c.GetAskers(), func() *webhookv1.DeliveryOutcome {
			x := Deciding(k.App, c.GetServer(), offline)
			x.Time = timestamppb.New(o.Now())
			return x
		})...)
	}
	return o.Put(ctx, all...)
}

// Answer is the outcome of a push about which a lane has decided: deployment number, as it stands, or
// none. ref is for people.
func Answer(app, ref string, d lane.Decision, made *deployerv1.Deployment) *webhookv1.DeliveryOutcome {
	if d.Number == 0 {
		o := &webhookv1.DeliveryOutcome{App: app, Kind: webhookv1.DeliveryOutcome_IGNORED, Reason: ReasonSeenBefore, Message: "This push was seen before"}
		if d.Past {
			o.Message = fmt.Sprintf("This push was seen before, or %s had moved on when it came: nothing changes", ref)
		}
		return o
	}
	o := Deployment(app, made)
	switch {
	case d.Reconciled && made.GetState() == deployerv1.Deployment_COMPLETED:
		o.Message += ", which Devpilot had found by itself before this delivery came"
	case d.Reconciled:
		o.Message += ". It is what Devpilot had found by itself before this delivery came"
	case d.Past:
		o.Message += ". This delivery came late, or once more, and changed nothing"
	}
	return o
}

// Decided tells deliveries what a worker decided about them.
func (o *Outbox) Decided(ctx context.Context, k lane.Key, d *storev1.Decided) error {
	answer := func() *webhookv1.DeliveryOutcome {
		return &webhookv1.DeliveryOutcome{App: k.App, Kind: webhookv1.DeliveryOutcome_IGNORED, Reason: d.GetReason(), Message: d.GetMessage()}
	}
	if d.GetReason() == "" {
		made := &deployerv1.Deployment{Number: d.GetNumber()}
		if d.GetPast() && d.GetNumber() > 0 && o.Deployments != nil {
			rec, _, err := o.Deployments.Get(ctx, k.Record(d.GetNumber()))
			switch {
			case err == nil && rec.GetDeployment() != nil:
				made = rec.GetDeployment()
			case err != nil && !errors.Is(err, kv.ErrNotFound):
				return fmt.Errorf("outcome: read deployment %s/%d: %w", k, d.GetNumber(), err)
			}
		}
		decision := lane.Decision{Number: d.GetNumber(), Past: d.GetPast(), Reconciled: d.GetReconciled()}
		answer = func() *webhookv1.DeliveryOutcome { return Answer(k.App, "the branch or tag", decision, made) }
	}
	return o.Put(ctx, told(k, d.GetAskers(), func() *webhookv1.DeliveryOutcome {
		x := answer()
		x.Time = d.GetTime()
		return x
	})...)
}

// Ended tells deliveries how the deployment ended that came of them.
func (o *Outbox) Ended(ctx context.Context, k lane.Key, number int32, e *storev1.Ended) error {
	d := &deployerv1.Deployment{Number: number, State: e.GetState(), Error: e.GetError(), SupersededBy: e.GetSupersededBy()}
	askers, err := o.known(ctx, k, number, e.GetAskers())
	if err != nil {
		return err
	}
	return o.Put(ctx, told(k, askers, func() *webhookv1.DeliveryOutcome {
		x := Deployment(k.App, d)
		x.Time = e.GetTime()
		return x
	})...)
}

// CutShort tells deliveries that the app was deleted before their deployment had ended.
func (o *Outbox) CutShort(ctx context.Context, k lane.Key, c *storev1.CutShort) error {
	return o.Put(ctx, told(k, c.GetAskers(), func() *webhookv1.DeliveryOutcome {
		if c.GetNumber() == 0 {
			return &webhookv1.DeliveryOutcome{
				App: k.App, Kind: webhookv1.DeliveryOutcome_IGNORED, Reason: ReasonAppDeleted, Time: timestamppb.New(o.Now()),
				Message: fmt.Sprintf("The app %s was deleted before this push was decided about", k.App),
			}
		}
		return &webhookv1.DeliveryOutcome{
			App: k.App, Kind: webhookv1.DeliveryOutcome_DEPLOYMENT, Deployment: c.GetNumber(), Reason: ReasonAppDeleted,
			DeploymentState: deployerv1.Deployment_CANCELLED.String(), Time: timestamppb.New(o.Now()),
			Message: fmt.Sprintf("Deployment #%d: CANCELLED. The app %s was deleted before it had ended", c.GetNumber(), k.App),
		}
	})...)
}

// known completes the pushes that were found without a delivery with what their deployment read of the
// commit.
func (o *Outbox) known(ctx context.Context, k lane.Key, number int32, askers []*storev1.Asker) ([]*storev1.Asker, error) {
	out := make([]*storev1.Asker, 0, len(askers))
	for _, a := range askers {
		if a.GetFound() == nil {
			out = append(out, a)
			continue
		}
		a = proto.CloneOf(a)
		a.Found.Told = true
		if o.Deployments != nil {
			rec, _, err := o.Deployments.Get(ctx, k.Record(number))
			if err != nil && !errors.Is(err, kv.ErrNotFound) {
				return nil, fmt.Errorf("outcome: read deployment %s/%d: %w", k, number, err)
			}
			if c := rec.GetDeployment().GetCommit(); c.GetHash() == a.GetFound().GetChange().GetNewHash() {
				a.Found.Change.Message, a.Found.Change.AuthorName = c.GetMessage(), c.GetAuthorName()
			}
		}
		out = append(out, a)
	}
	return out, nil
}

func told(k lane.Key, askers []*storev1.Asker, outcome func() *webhookv1.DeliveryOutcome) []*webhookv1.RecordedOutcome {
	var out []*webhookv1.RecordedOutcome
	for _, a := range askers {
		x := outcome()
		x.Change = a.GetChange()
		out = append(out, &webhookv1.RecordedOutcome{Workspace: k.Workspace, Webhook: a.GetWebhook(), Delivery: a.GetDelivery(), Outcome: x, Found: a.GetFound()})
	}
	return out
}
