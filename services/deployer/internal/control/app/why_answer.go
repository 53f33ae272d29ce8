package app

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

type step = deployerv1.ExplanationStep

// answer makes the timeline of what was found, and names the link that is missing.
func (q *question) answer(ctx context.Context) (*deployerv1.Explanation, error) {
	e := &deployerv1.Explanation{Commit: q.hash, Branch: q.ref.Branch(), Tag: q.ref.Tag(), Repository: q.repository, Limits: q.limits}
	if q.repository != "" {
		e.RepositoryFullName = q.name()
	}
	q.readUntold(ctx)
	var links []*step
	for _, p := range q.parts {
		d, steps, err := q.ofApp(ctx, p)
		if err != nil {
			return nil, err
		}
		if d != nil {
			e.Apps = append(e.Apps, d)
			links = append(links, steps...)
		}
	}
	gone, steps := q.deleted()
	e.Apps, links = append(e.Apps, gone...), append(links, steps...)
	if q.req.GetApp() != "" && len(e.Apps) == 0 && q.part(q.req.GetApp()) == nil {
		return nil, notFound(lane.Key{Workspace: q.req.GetWorkspace(), App: q.req.GetApp()})
	}
	e.Steps = append(q.came(), links...)
	slices.SortStableFunc(e.Steps, func(a, b *step) int {
		if a.GetLink() != b.GetLink() {
			return int(a.GetLink() - b.GetLink())
		}
		if a.GetTime() == nil || b.GetTime() == nil {
			return 0
		}
		return a.GetTime().AsTime().Compare(b.GetTime().AsTime())
	})
	q.conclude(e)
	e.Limits = q.limits
	tellObstacles(ctx, e)
	return e, nil
}

// ofApp says what an app did with the push; nil where it does not concern it.
func (q *question) ofApp(ctx context.Context, p *parts) (*deployerv1.AppDecision, []*step, error) {
	if !q.wanted(p) || q.repository == "" || p.app.GetRepository() != q.repository {
		return nil, nil, nil
	}
	v := verdict{question: q, p: p}
	var err error
	v.outcome, v.told = q.outcome(p)
	if v.runs, err = q.runs(ctx, p, v.outcome); err != nil {
		return nil, nil, err
	}
	named := q.req.GetApp() != ""
	if !named && !watches(p, q.ref) && v.outcome == nil && len(v.runs) == 0 {
		return nil, nil, nil // it watches something else
	}
	if q.hash == "" && (q.ref == "" || !watches(p, q.ref)) && !named {
		return nil, nil, nil
	}
	if err := v.stand(ctx); err != nil {
		return nil, nil, err
	}
	d := v.decide()
	return d, v.steps(ctx, d), nil
}

// outcome is what came of the push in an app as its delivery was told, and the delivery.
func (q *question) outcome(p *parts) (*webhookv1.DeliveryOutcome, *webhookv1.Delivery) {
	for _, d := range slices.Backward(q.deliveries) {
		if d.GetReceiveTime().AsTime().Before(p.app.GetCreateTime().AsTime()) {
			continue // an app of this name that was deleted
		}
		for _, o := range d.GetOutcomes() {
			if o.GetApp() == p.app.GetId() && q.about(d, o) {
				return o, d
			}
		}
	}
	return nil, nil
}

// about tells whether an outcome is of the change that is asked about.
func (q *question) about(d *webhookv1.Delivery, o *webhookv1.DeliveryOutcome) bool {
	i := int(o.GetChange())
	if i >= len(d.GetChanges()) {
		return len(d.GetChanges()) == 0
	}
	c := d.GetChanges()[i]
	return c.GetNewHash() == q.hash && changeRef(c) == q.ref
}

// runs are an app's newest deployments of the commit, newest first.
func (q *question) runs(ctx context.Context, p *parts, o *webhookv1.DeliveryOutcome) ([]*deployerv1.Deployment, error) {
	var runs []*deployerv1.Deployment
	if q.hash != "" {
		h := pastOf{s: q.s, reading: q.r, key: p.key, app: p.app, lane: p.lane, filter: Filter{Commit: q.hash}}
		read := h.fromLeader
		if q.r.deployments.FromCopy() {
			read = h.fromCopy
		}
		var err error
		if runs, _, err = read(ctx, p.lane.GetLastNumber(), whyRuns); err != nil {
			return nil, err
		}
	}
	for _, n := range []int32{o.GetDeployment(), q.number} { // a deployment may have taken a newer commit
		if n == 0 || n == q.number && p.app.GetId() != q.req.GetApp() || slices.ContainsFunc(runs, func(d *deployerv1.Deployment) bool { return d.GetNumber() == n }) {
			continue
		}
		d, err := q.s.deployment(ctx, q.r, p.key, p.app, p.lane, n)
		if err != nil {
			return nil, err
		}
		if d != nil {
			runs = append(runs, d)
		}
	}
	return runs, nil
}

// deleted says what apps did that are deleted since: only the deliveries tell of them.
func (q *question) deleted() (out []*deployerv1.AppDecision, steps []*step) {
	seen := map[string]bool{}
	for _, d := range slices.Backward(q.deliveries) {
		for _, o := range d.GetOutcomes() {
			id := o.GetApp()
			if id == "" || seen[id] || q.req.GetApp() != "" && id != q.req.GetApp() || !q.about(d, o) {
				continue
			}
			if p := q.part(id); p != nil && !d.GetReceiveTime().AsTime().Before(p.app.GetCreateTime().AsTime()) {
				continue
			}
			seen[id] = true
			a := &deployerv1.AppDecision{
				App: id, Deleted: true, Reason: whyDeleted, Message: fmt.Sprintf("App %s, which watched it, was deleted since.", id), Remedy: &deployerv1.Remedy{Kind: deployerv1.Remedy_CREATE_APP},
			}
			said := fmt.Sprintf("App %s turned it away: %s", id, sentence(o.GetMessage()))
			if o.GetKind() == webhookv1.DeliveryOutcome_DEPLOYMENT {
				said = fmt.Sprintf("App %s made deployment #%d of it; the app was deleted since.", id, o.GetDeployment())
			}
			out = append(out, a)
			steps = append(steps, &step{Link: deployerv1.ExplanationStep_DECISION, State: deployerv1.ExplanationStep_MISSING, Time: o.GetTime(), Message: said, Reason: whyDeleted, App: id})
		}
	}
	return out, steps
}

// came are the links up to the verdict: the push, what told of it, and what was answered.
func (q *question) came() []*step {
	var out []*step
	if q.hash != "" {
		out = append(out, &step{Link: deployerv1.ExplanationStep_PUSH, State: deployerv1.ExplanationStep_DONE, Time: q.since(), Message: q.pushed()})
	}
	for _, d := range q.deliveries {
		if d.GetFound() != webhookv1.Delivery_FOUND_UNSPECIFIED {
			continue
		}
		came := &step{Link: deployerv1.ExplanationStep_DELIVERY, State: deployerv1.ExplanationStep_DONE, Time: d.GetReceiveTime(), Webhook: d.GetWebhook(), Delivery: d.GetNumber()}
		came.Message = fmt.Sprintf("Delivery %d came from Bitbucket", d.GetNumber())
		if d.GetRequestUuid() != "" {
			came.Message += " as request " + d.GetRequestUuid()
		}
		if n := d.GetAttempt(); n > 1 {
			came.Message += fmt.Sprintf(", at attempt %d", n)
		}
		if n := d.GetReplays(); n > 0 {
			came.Message += fmt.Sprintf("; it was considered again %d times", n)
			if n == 1 {
				came.Message = strings.TrimSuffix(came.Message, " 1 times") + " once"
			}
		}
		came.Message += "."
		answered := &step{
			Link: deployerv1.ExplanationStep_VERDICT, State: deployerv1.ExplanationStep_DONE, Time: d.GetReceiveTime(), Webhook: d.GetWebhook(), Delivery: d.GetNumber(),
			Message: fmt.Sprintf("It was answered %d: %s", d.GetAnswerStatus(), sentence(d.GetAnswerMessage())),
		}
		if d.GetRefused() {
			answered.State, answered.Reason = deployerv1.ExplanationStep_MISSING, whyRefused
		}
		out = append(out, came, answered)
	}
	if !q.delivered() && !q.silent {
		out = append(out, q.untold())
	}
	return out
}

// delivered tells whether a delivery told of the push; what polls found is in the log too.
func (q *question) delivered() bool {
	return slices.ContainsFunc(q.deliveries, func(d *webhookv1.Delivery) bool { return d.GetFound() == webhookv1.Delivery_FOUND_UNSPECIFIED })
}

// untold is the link of a push that no delivery told of.
func (q *question) untold() *step {
	s := &step{Link: deployerv1.ExplanationStep_DELIVERY, State: deployerv1.ExplanationStep_MISSING, Reason: whyNoDelivery, Message: "No delivery told of it."}
	switch at, by := q.foundTime(); by {
	case foundByHand:
		s.State, s.Reason, s.Message, s.Time = deployerv1.ExplanationStep_SKIPPED, "", "No delivery was needed: a person asked for it.", at
	case foundByPolling:
		s.Message, s.Time = "No delivery told of it; Devpilot found it by asking Bitbucket.", at
		if q.awaited() {
			s.State, s.Reason, s.Message = deployerv1.ExplanationStep_WAITING, syncAwaited, "Its delivery has not come yet; Devpilot found the push by asking Bitbucket."
		}
	}
	if h := q.hook(); h != nil {
		s.Webhook = h.GetId()
	}
	if reason, message := q.untoldWhy(); reason != "" && s.State == deployerv1.ExplanationStep_MISSING {
		s.Reason, s.Message = reason, s.Message+" "+message
	}
	return s
}

// awaited tells whether the delivery of a push that a poll found may still come.
func (q *question) awaited() bool {
	return slices.ContainsFunc(q.parts, func(p *parts) bool {
		t := apps.NewestTold(p.app, p.lane, q.ref)
		return p.app.GetRepository() == q.repository && t != nil && t.Hash == q.hash && !t.Deciding
	})
}

const (
	foundByPolling = "polling"
	foundByHand    = "hand"
)

// foundTime tells how and when a push was found of which no delivery told.
func (q *question) foundTime() (at *timestamppb.Timestamp, by string) {
	for _, d := range q.deliveries {
		if d.GetFound() != webhookv1.Delivery_FOUND_UNSPECIFIED {
			return d.GetReceiveTime(), foundByPolling
		}
	}
	for _, p := range q.parts {
		if p.app.GetRepository() != q.repository || q.hash == "" {
			continue
		}
		if h := lane.HeadOf(p.lane, q.repository, q.ref); h.GetHash() == q.hash {
			switch h.GetSource() { //nolint:exhaustive // others tell nothing
			case storev1.Head_RECONCILED, storev1.Head_BASELINE:
				return h.GetTime(), foundByPolling
			case storev1.Head_FETCH:
				at, by = h.GetTime(), foundByHand
			}
		}
		for _, t := range p.lane.GetTurnedAway() {
			if t.GetCommit() == q.hash {
				return t.GetTime(), foundByPolling
			}
		}
		for _, s := range p.lane.GetSighted() {
			if s.GetHash() == q.hash && q.ref == lane.Branch(s.GetBranch()) {
				return s.GetTime(), foundByPolling
			}
		}
	}
	return at, by
}

// since is when the push is first known of.
func (q *question) since() *timestamppb.Timestamp {
	var at *timestamppb.Timestamp
	for _, p := range q.parts {
		if p.app.GetRepository() != q.repository {
			continue
		}
		if t := apps.NewestTold(p.app, p.lane, q.ref); q.hash != "" && t != nil && t.Hash == q.hash {
			at = t.Time
		}
		if h := apps.ShownHead(p.app, p.lane, q.ref); q.hash != "" && h.GetHash() == q.hash && (at == nil || h.GetTime().AsTime().Before(at.AsTime())) {
			at = h.GetTime()
		}
	}
	if len(q.deliveries) > 0 && (at == nil || q.deliveries[0].GetReceiveTime().AsTime().Before(at.AsTime())) {
		at = q.deliveries[0].GetReceiveTime()
	}
	return at
}

func (q *question) pushed() string {
	where := q.name()
	if q.ref.IsTag() {
		where = fmt.Sprintf("tag %s of %s", q.ref.Name(), where)
	} else if q.ref != "" {
		where = fmt.Sprintf("%s of %s", q.ref.Name(), where)
	}
	by := ""
	if len(q.deliveries) > 0 && q.deliveries[0].GetActorLabel() != "" {
		by = " by " + q.deliveries[0].GetActorLabel()
	}
	return fmt.Sprintf("%s was pushed to %s%s.", short(q.hash), where, by)
}

// sentence ends a text with a full stop.
func sentence(text string) string {
	if text == "" || strings.HasSuffix(text, ".") || strings.HasSuffix(text, "!") || strings.HasSuffix(text, "?") {
		return text
	}
	return text + "."
}
