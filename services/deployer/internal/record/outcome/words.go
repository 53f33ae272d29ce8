package outcome

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

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

// Ended tells deliveries how the deployment ended that came of them.
func (o *Outbox) Ended(ctx context.Context, k lane.Key, number int32, e *storev1.Ended) error {
	d := &deployerv1.Deployment{Number: number, State: e.GetState(), Error: e.GetError(), SupersededBy: e.GetSupersededBy()}
	return o.Put(ctx, told(k, e.GetAskers(), func() *webhookv1.DeliveryOutcome {
		x := Deployment(k.App, d)
		x.Time = e.GetTime()
		return x
	})...)
}

// CutShort tells deliveries that the app was deleted before their deployment had ended.
func (o *Outbox) CutShort(ctx context.Context, k lane.Key, c *storev1.CutShort) error {
	return o.Put(ctx, told(k, c.GetAskers(), func() *webhookv1.DeliveryOutcome {
		return &webhookv1.DeliveryOutcome{
			App: k.App, Kind: webhookv1.DeliveryOutcome_DEPLOYMENT, Deployment: c.GetNumber(), Reason: ReasonAppDeleted,
			DeploymentState: deployerv1.Deployment_CANCELLED.String(), Time: timestamppb.New(o.Now()),
			Message: fmt.Sprintf("Deployment #%d: CANCELLED. The app %s was deleted before it had ended", c.GetNumber(), k.App),
		}
	})...)
}

func told(k lane.Key, askers []*storev1.Asker, outcome func() *webhookv1.DeliveryOutcome) []*webhookv1.RecordedOutcome {
	var out []*webhookv1.RecordedOutcome
	for _, a := range askers {
		x := outcome()
		x.Change = a.GetChange()
		out = append(out, &webhookv1.RecordedOutcome{Workspace: k.Workspace, Webhook: a.GetWebhook(), Delivery: a.GetDelivery(), Outcome: x})
	}
	return out
}
