package app

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/when"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// Reasons of an answer, beside those of sync, of rules, of deployments' troubles, of webhooks and of the
// connection.
const (
	whyDeleted     = "APP_DELETED"
	whySuperseded  = "SUPERSEDED"       // a newer push took the deployment's place
	whyReplaced    = "REPLACED"         // it was live until another deployment took its place
	whyRefused     = "DELIVERY_REFUSED" // the request's signature was wrong or missing
	whyNoDelivery  = "DELIVERY_MISSING"
	whyUnwatched   = "NO_APP_WATCHES" // no app of the repository watches the branch
	whyUnseenPush  = "COMMIT_NOT_SEEN"
	whyNoRequest   = "REQUEST_NOT_SEEN"
	whyNothingToDo = "NO_CHANGES" // the delivery told of no branch or tag
	whyRenamed     = "REPOSITORY_RENAMED"
)

// verdict is what one app did with a push.
type verdict struct {
	*question
	p       *parts
	outcome *webhookv1.DeliveryOutcome // nil when none was told
	told    *webhookv1.Delivery        // the delivery of the outcome
	runs    []*deployerv1.Deployment   // newest first
	st      standing
}

// stand reads how the branch stands in the app: the same as the app's own sync.
func (v *verdict) stand(ctx context.Context) error {
	p := v.p
	v.st = standing{app: p.app, lane: p.lane, connection: v.connection, index: p.index, ref: v.ref, head: apps.ShownHead(p.app, p.lane, v.ref), polls: v.s.polls(p.key.Workspace, v.repository), offline: v.s.offline}
	if t := apps.NewestTold(p.app, p.lane, v.ref); v.ref != "" && (v.hash == "" || t != nil && t.Hash == v.hash) {
		v.st.told = t // of a commit before it is told what was decided then
	}
	var err error
	if n := lane.Origin(p.lane); n != 0 {
		if v.st.live, err = v.s.deployment(ctx, v.r, p.key, p.app, p.lane, n); err != nil {
			return err
		}
	}
	for _, d := range v.runs {
		if d.GetCommit().GetHash() == v.st.head.GetHash() {
			v.st.made = d
			break
		}
	}
	return nil
}

func (v *verdict) decide() *deployerv1.AppDecision {
	d := &deployerv1.AppDecision{App: v.p.app.GetId()}
	if lv := v.p.lane.GetLive(); v.hash != "" && lv.GetHash() == v.hash && !lv.GetLost() {
		d.Live, d.Deployment, d.Message = true, lv.GetNumber(), fmt.Sprintf("It is live since deployment #%d.", lv.GetNumber())
		if e := v.s.offline(lv.GetServer()); e != nil { // it is live, and nobody serves it
			d.Reason, d.Message = e.GetReason(), d.GetMessage()+" "+e.GetMessage()
		}
		if s := v.st.sync(); v.req.GetBranch() != "" && s.GetState() == deployerv1.Sync_UNKNOWN {
			// The newest commit that is known is live. That there is none after it, nobody can say.
			v.unknown = s
		}
		return d
	}
	d.Reason, d.Message, d.Deployment = v.why()
	d.Remedy = v.remedy(d.GetReason(), d.GetDeployment())
	return d
}

// asked is the app's deployment that the question names; nil where it names none.
func (v *verdict) asked() *deployerv1.Deployment {
	for _, d := range v.runs {
		if v.number != 0 && v.p.app.GetId() == v.req.GetApp() && d.GetNumber() == v.number {
			return d
		}
	}
	return nil
}

// why says why the push is not live in the app.
func (v *verdict) why() (reason, message string, number int32) {
	if d := v.asked(); d != nil {
		return v.run(d)
	}
	newest := v.st.head != nil && v.st.head.GetHash() == v.hash && watches(v.p, v.ref)
	if newest || v.st.told != nil || v.hash == "" && watches(v.p, v.ref) {
		s := v.st.sync()
		if reason = s.GetReason(); reason == "" {
			reason = whySuperseded // what is live came after it
		}
		return reason, s.GetMessage(), s.GetDeployment()
	}
	if len(v.runs) > 0 {
		return v.run(v.runs[0])
	}
	if v.outcome.GetReason() != "" {
		return v.outcome.GetReason(), sentence(v.outcome.GetMessage()), v.outcome.GetDeployment()
	}
	for _, t := range v.p.lane.GetTurnedAway() {
		if t.GetCommit() == v.hash {
			return t.GetReason(), sentence(t.GetMessage()), 0
		}
	}
	return v.unmade()
}

// unmade says why nothing came of a push of which nothing is noted.
func (v *verdict) unmade() (reason, message string, number int32) {
	id := v.p.app.GetId()
	switch {
	case v.ref == "":
		return syncUnseen, fmt.Sprintf("%s has not seen this commit.", id), 0
	case v.ref.IsTag() && !watches(v.p, v.ref):
		return rules.ReasonTagNotWatched, fmt.Sprintf("Tag %s does not deploy %s: its rules name no such tag.", v.ref.Name(), id), 0
	case !watches(v.p, v.ref):
		return rules.ReasonBranchNotWatched, fmt.Sprintf("Branch %s is not watched by %s, which watches %s.", v.ref.Name(), id, v.p.app.GetBranch()), 0
	case lane.UndecidedOf(v.p.lane, v.ref):
		reason, message, number = v.st.why()
		return reason, message, number
	case !v.p.app.GetAutoDeploy():
		return syncOff, v.st.off(), 0
	case v.fresh():
		return syncDeciding, fmt.Sprintf("A delivery told of it, and %s is about to decide about it.", id), 0
	case v.st.head.GetHash() != "":
		return whySuperseded, fmt.Sprintf("%s came to %s after it, before %s did anything with it.", short(v.st.head.GetHash()), v.ref.Name(), id), 0
	}
	return syncUnseen, unasked(v.st.polls), 0
}

// fresh tells whether a delivery told of the push after all that the app knows of the branch.
func (v *verdict) fresh() bool {
	return slices.ContainsFunc(v.deliveries, func(d *webhookv1.Delivery) bool {
		return !d.GetRefused() && d.GetReceiveTime().AsTime().After(v.st.head.GetTime().AsTime())
	})
}

// run says why a deployment's commit is not live.
func (v *verdict) run(d *deployerv1.Deployment) (reason, message string, number int32) {
	number = d.GetNumber()
	switch d.GetState() {
	case deployerv1.Deployment_FAILED:
		return syncFailed, failedMessage(d), number
	case deployerv1.Deployment_CANCELLED:
		return syncCancelled, cancelledMessage(d), number
	case deployerv1.Deployment_SUPERSEDED:
		if by := d.GetSupersededBy(); by != 0 {
			return whySuperseded, fmt.Sprintf("Deployment #%d of it was superseded by #%d, which a newer push made.", number, by), by
		}
		return whySuperseded, fmt.Sprintf("Deployment #%d of it was superseded by a newer one.", number), number
	case deployerv1.Deployment_COMPLETED:
		lv := v.p.lane.GetLive().GetNumber()
		if lv == 0 {
			return whyReplaced, fmt.Sprintf("It was live with deployment #%d; nothing is live now.", number), number
		}
		return whyReplaced, fmt.Sprintf("It was live with deployment #%d, until another one took its place; #%d is live now.", number, lv), lv
	case deployerv1.Deployment_PROCESSING:
		if e := v.s.offline(d.GetServer()); e != nil {
			return e.GetReason(), ranMessage(number, e.GetMessage()), number
		}
		return syncDeploying, runsMessage(number), number
	case deployerv1.Deployment_PENDING, deployerv1.Deployment_STATE_UNSPECIFIED:
	}
	if w := d.GetWaitingFor(); w != nil {
		return w.GetReason(), waitsMessage(number, w.GetMessage()), number
	}
	return syncWaiting, turnMessage(number), number
}

// steps are the links from the app's decision to the commit's status.
func (v *verdict) steps(ctx context.Context, d *deployerv1.AppDecision) []*step {
	id := v.p.app.GetId()
	decision := &step{Link: deployerv1.ExplanationStep_DECISION, State: deployerv1.ExplanationStep_DONE, App: id, Time: v.outcome.GetTime()}
	if v.told != nil {
		decision.Webhook, decision.Delivery = v.told.GetWebhook(), v.told.GetNumber()
	}
	switch {
	case len(v.runs) > 0:
		first := v.runs[len(v.runs)-1]
		if d := v.asked(); d != nil {
			first = d
		}
		decision.Message, decision.Deployment = fmt.Sprintf("%s made deployment #%d of it: %s.", id, first.GetNumber(), triggerWords(first)), first.GetNumber()
		if decision.Time == nil {
			decision.Time = first.GetCreateTime()
		}
	case d.GetLive():
		decision.Message = id + " has it live."
	case d.GetReason() == syncDeciding, d.GetReason() == syncAwaited:
		decision.State, decision.Message = deployerv1.ExplanationStep_WAITING, fmt.Sprintf("%s: %s", id, d.GetMessage())
	default:
		decision.State, decision.Reason, decision.Message = deployerv1.ExplanationStep_MISSING, d.GetReason(), fmt.Sprintf("%s: %s", id, d.GetMessage())
		if words := v.distance(); words != "" {
			decision.Message = fmt.Sprintf("%s %s.", decision.GetMessage(), words)
		}
		return []*step{decision}
	}
	out := []*step{decision}
	for i, run := range v.runs {
		out = append(out, v.ran(run))
		if i == 0 {
			out = append(out, stagesOf(run)...)
		}
	}
	out = append(out, v.live(d))
	if len(v.runs) > 0 {
		out = append(out, v.status(ctx, v.runs[0]))
	}
	return out
}

func (v *verdict) ran(d *deployerv1.Deployment) *step {
	s := &step{Link: deployerv1.ExplanationStep_RUN, State: deployerv1.ExplanationStep_DONE, App: d.GetApp(), Deployment: d.GetNumber(), Time: d.GetCreateTime()}
	switch d.GetState() {
	case deployerv1.Deployment_COMPLETED:
		s.Message = fmt.Sprintf("Deployment #%d completed.", d.GetNumber())
		return s
	case deployerv1.Deployment_PENDING, deployerv1.Deployment_PROCESSING:
		s.State = deployerv1.ExplanationStep_WAITING
	case deployerv1.Deployment_FAILED, deployerv1.Deployment_CANCELLED, deployerv1.Deployment_SUPERSEDED, deployerv1.Deployment_STATE_UNSPECIFIED:
		s.State = deployerv1.ExplanationStep_MISSING
	}
	s.Reason, s.Message, _ = v.run(d)
	return s
}

// live is the link between the runs and what is served.
func (v *verdict) live(d *deployerv1.AppDecision) *step {
	s := &step{Link: deployerv1.ExplanationStep_LIVE, App: d.GetApp(), Deployment: d.GetDeployment(), State: deployerv1.ExplanationStep_DONE, Message: d.GetMessage(), Reason: d.GetReason()}
	switch { // why not, the run says
	case d.GetLive():
		s.Time = v.p.lane.GetLive().GetTime()
	case d.GetReason() == syncDeciding, d.GetReason() == syncAwaited, len(v.runs) > 0 && !lane.Terminal(v.runs[0].GetState()):
		s.State, s.Message = deployerv1.ExplanationStep_WAITING, "It is not live yet."
	default:
		s.State, s.Message = deployerv1.ExplanationStep_MISSING, "It is not live."
		if words := v.distance(); words != "" {
			s.Message = fmt.Sprintf("It is not live: %s.", words)
		}
	}
	return s
}

// distance says how far the branch is from what is live, where the push is the branch's newest.
func (v *verdict) distance() string {
	if v.hash == "" || v.st.head.GetHash() != v.hash {
		return ""
	}
	return v.st.distanceWords()
}

// status is the link to Bitbucket: what its page of the commit says.
func (v *verdict) status(ctx context.Context, d *deployerv1.Deployment) *step {
	s := &step{Link: deployerv1.ExplanationStep_STATUS, App: d.GetApp(), Deployment: d.GetNumber(), State: deployerv1.ExplanationStep_SKIPPED}
	if v.p.app.GetCommitStatusOff() {
		s.Message = fmt.Sprintf("Nothing was told to Bitbucket: commit statuses of %s are switched off.", d.GetApp())
		return s
	}
	rec := &storev1.Deployment{Deployment: d, Generation: v.p.lane.GetGeneration()}
	if v.s.cfg.Told != nil {
		if told := v.s.cfg.Told(ctx, v.p.key, rec, v.connection.GetConnectionId()); told != "" {
			s.State, s.Message, s.Time = deployerv1.ExplanationStep_DONE, fmt.Sprintf("Bitbucket shows at the commit: %s.", strings.TrimSuffix(told, ".")), d.GetEndTime()
			return s
		}
	}
	if v.s.cfg.Statuses != nil {
		if reason, message := v.s.cfg.Statuses(); reason != "" {
			s.State, s.Reason, s.Message = deployerv1.ExplanationStep_MISSING, reason, message
			return s
		}
	}
	s.Message = "Nothing is known to have been told to Bitbucket of it within the last day."
	return s
}

var stageWords = map[deployerv1.Deployment_Stage]string{
	deployerv1.Deployment_PRE_EXECUTION:       "Hooks before anything else",
	deployerv1.Deployment_PRE_SOURCE_CONTROL:  "Hooks before the source is fetched",
	deployerv1.Deployment_SOURCE_CONTROL:      "Fetch and check out",
	deployerv1.Deployment_POST_SOURCE_CONTROL: "Hooks on the fresh tree",
	deployerv1.Deployment_POST_SETUP:          "Hooks after setup",
	deployerv1.Deployment_RELEASE:             "Switch the release",
	deployerv1.Deployment_POST_RELEASE:        "Hooks on the live release",
}

// hadNothingToDo tells a stage for hooks that went by without one.
func hadNothingToDo(d *deployerv1.Deployment, rec *deployerv1.StageRecord) bool {
	switch rec.GetStage() { //nolint:exhaustive // the others are for hooks alone
	case deployerv1.Deployment_SOURCE_CONTROL, deployerv1.Deployment_RELEASE:
		return false
	}
	failed := d.GetState() == deployerv1.Deployment_FAILED && rec.GetStage() == d.GetStage()
	return len(rec.GetHooks()) == 0 && rec.GetEndTime() != nil && !failed
}

// stagesOf are a deployment's stages, as far as they began and had something to do.
func stagesOf(d *deployerv1.Deployment) []*step {
	var out []*step
	for _, rec := range d.GetStages() {
		if rec.GetStartTime() == nil || hadNothingToDo(d, rec) {
			continue
		}
		s := &step{Link: deployerv1.ExplanationStep_STAGE, State: deployerv1.ExplanationStep_DONE, App: d.GetApp(), Deployment: d.GetNumber(), Time: rec.GetStartTime()}
		s.Message = stageWords[rec.GetStage()]
		switch ended := rec.GetEndTime(); {
		case d.GetState() == deployerv1.Deployment_FAILED && rec.GetStage() == d.GetStage():
			s.State, s.Reason, s.Message = deployerv1.ExplanationStep_MISSING, d.GetError().GetReason(), s.GetMessage()+" failed"
		case ended == nil && lane.Terminal(d.GetState()):
			s.State, s.Message = deployerv1.ExplanationStep_SKIPPED, s.GetMessage()+" was stopped"
		case ended == nil:
			s.State, s.Message = deployerv1.ExplanationStep_WAITING, s.GetMessage()+" runs"
		default:
			s.Message += " took " + when.Took(ended.AsTime().Sub(rec.GetStartTime().AsTime()))
		}
		s.Message += "."
		out = append(out, s)
	}
	return out
}

// triggerWords says why a deployment was made.
func triggerWords(d *deployerv1.Deployment) string {
	switch d.GetTrigger() {
	case deployerv1.Deployment_PUSH:
		return "a delivery told of the push"
	case deployerv1.Deployment_RECONCILED:
		return "Devpilot found the push by asking Bitbucket"
	case deployerv1.Deployment_MANUAL:
		switch {
		case d.GetChosen() && d.GetTag() != "":
			return fmt.Sprintf("%s chose the tag %s", who(d.GetActor()), d.GetTag())
		case d.GetChosen():
			return who(d.GetActor()) + " chose the commit"
		}
		return who(d.GetActor()) + " deployed the latest commit"
	case deployerv1.Deployment_REDEPLOY:
		return fmt.Sprintf("%s redeployed #%d", who(d.GetActor()), d.GetSourceNumber())
	case deployerv1.Deployment_ROLLBACK:
		return fmt.Sprintf("%s rolled back to #%d", who(d.GetActor()), d.GetSourceNumber())
	case deployerv1.Deployment_MOVED:
		return fmt.Sprintf("the server of #%d died, and an operator moved the app", d.GetSourceNumber())
	case deployerv1.Deployment_TRIGGER_UNSPECIFIED:
	}
	return "it was asked for"
}
