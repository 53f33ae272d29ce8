package delivery

import (
	"slices"
	"strconv"
	"strings"
	"time"

	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// Filter says which deliveries a page shows; its zero value shows all.
type Filter struct {
	Branch        string // only those that say something about it
	Commit        string // only those with a change to a commit that begins so
	After, Before time.Time
	Outcome       webhookv1.Delivery_Result
	App           string // with Outcome or Deployment: of this app only
	Request       string // only the one that Bitbucket sent as this request
	Deployment    int32  // only those of which this deployment of App came
}

func (f Filter) some() bool { return f != Filter{} }

// scope binds a page's token to its filter.
func (f Filter) scope() []string {
	return []string{f.Branch, f.Commit, f.After.UTC().Format(time.RFC3339Nano), f.Before.UTC().Format(time.RFC3339Nano), f.Outcome.String(), f.App, plainUUID(f.Request), strconv.Itoa(int(f.Deployment))}
}

// clockSkew is how much earlier than the one before it a delivery may seem to have come: several
// processes take them, by clocks of their own, and number them afterwards.
const clockSkew = 10 * time.Minute

// older tells that a delivery, and with it all that have lower numbers, came before what the filter
// asks for. A push that was found may be listed long after: it says nothing of the others.
func (f Filter) older(d *webhookv1.Delivery) bool {
	return !f.After.IsZero() && d.GetFound() == webhookv1.Delivery_FOUND_UNSPECIFIED && d.GetReceiveTime().AsTime().Before(f.After.Add(-clockSkew))
}

func (f Filter) match(d *webhookv1.Delivery) bool {
	at := d.GetReceiveTime().AsTime()
	switch {
	case !f.After.IsZero() && at.Before(f.After), !f.Before.IsZero() && !at.Before(f.Before):
		return false
	case f.Branch != "" && !slices.ContainsFunc(d.GetChanges(), func(c *webhookv1.DeliveryChange) bool {
		return c.GetRefType() == webhookv1.DeliveryChange_BRANCH && c.GetRef() == f.Branch
	}):
		return false
	case f.Commit != "" && !slices.ContainsFunc(d.GetChanges(), func(c *webhookv1.DeliveryChange) bool {
		return strings.HasPrefix(c.GetNewHash(), strings.ToLower(f.Commit))
	}):
		return false
	case f.Request != "" && plainUUID(d.GetRequestUuid()) != plainUUID(f.Request):
		return false
	case f.Deployment != 0 && !slices.ContainsFunc(d.GetOutcomes(), func(o *webhookv1.DeliveryOutcome) bool {
		return o.GetDeployment() == f.Deployment && o.GetApp() == f.App
	}):
		return false
	}
	return f.Outcome == webhookv1.Delivery_RESULT_UNSPECIFIED || slices.Contains(Results(d, f.App), f.Outcome)
}

// plainUUID is a UUID as one writes it: Bitbucket shows some in braces.
func plainUUID(id string) string { return strings.ToLower(strings.Trim(id, "{}")) }

// Results are what came of a delivery in an app, or in all when app is empty. Outcomes that name no app
// are everybody's. One of which nothing is said yet is pending, unless other apps' outcomes say that it
// was not this one's.
func Results(d *webhookv1.Delivery, app string) []webhookv1.Delivery_Result {
	var out []webhookv1.Delivery_Result
	for _, o := range d.GetOutcomes() {
		if app != "" && o.GetApp() != "" && o.GetApp() != app {
			continue
		}
		if r := result(o); !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	switch {
	case len(out) > 0:
	case len(d.GetOutcomes()) > 0:
		out = append(out, webhookv1.Delivery_TURNED_AWAY)
	default:
		out = append(out, webhookv1.Delivery_PENDING)
	}
	return out
}

func result(o *webhookv1.DeliveryOutcome) webhookv1.Delivery_Result {
	switch o.GetKind() {
	case webhookv1.DeliveryOutcome_IGNORED:
		return webhookv1.Delivery_TURNED_AWAY
	case webhookv1.DeliveryOutcome_FAILED:
		return webhookv1.Delivery_FAILED
	case webhookv1.DeliveryOutcome_DECIDING, webhookv1.DeliveryOutcome_KIND_UNSPECIFIED:
		return webhookv1.Delivery_PENDING
	case webhookv1.DeliveryOutcome_DEPLOYMENT:
	}
	switch o.GetDeploymentState() {
	case "COMPLETED":
		return webhookv1.Delivery_DEPLOYED
	case "FAILED":
		return webhookv1.Delivery_FAILED
	case "CANCELLED", "SUPERSEDED":
		return webhookv1.Delivery_STOPPED
	}
	return webhookv1.Delivery_PENDING
}
