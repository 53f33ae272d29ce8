package app

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/when"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// conclude names the missing link of the whole, in one sentence, and what mends it.
func (q *question) conclude(e *deployerv1.Explanation) {
	if refused := slices.IndexFunc(q.deliveries, (*webhookv1.Delivery).GetRefused); refused >= 0 && q.hash == "" {
		d := q.deliveries[refused]
		e.Reason, e.Message = whyRefused, "Devpilot refused the request: "+sentence(d.GetAnswerMessage())
		e.Remedy = q.refusedRemedy(d)
		return
	}
	if len(e.GetApps()) > 0 {
		q.concludeApps(e)
		return
	}
	switch {
	case len(q.deliveries) > 0 && q.hash == "" && q.ref == "":
		e.Reason, e.Message = whyNothingToDo, "The delivery told of no branch or tag: "+sentence(q.deliveries[0].GetAnswerMessage())
	case q.hash == "" && q.ref != "" && len(q.deliveries) > 0:
		e.Reason, e.Message = "BRANCH_DELETED", fmt.Sprintf("The push deleted %s, so that there is nothing to deploy.", q.ref.Name())
	case q.hash != "":
		e.Reason, e.Message, e.Remedy = q.unwatched()
	default:
		e.Reason, e.Message, e.Remedy = q.unseen()
	}
}

// concludeApps answers with the first app that does not have it live.
func (q *question) concludeApps(e *deployerv1.Explanation) {
	for _, a := range e.GetApps() {
		if a.GetLive() {
			continue
		}
		e.Reason, e.Message, e.Remedy = a.GetReason(), a.GetMessage(), a.GetRemedy()
		if len(e.GetApps()) > 1 {
			e.Message = a.GetApp() + ": " + e.GetMessage()
		}
		if a.GetReason() == syncUnseen {
			if reason, message, remedy := q.trouble(); reason != "" {
				e.Reason, e.Message, e.Remedy = reason, e.GetMessage()+" "+message, remedy
			}
		}
		return
	}
	e.Message = e.GetApps()[0].GetMessage()
	if n := len(e.GetApps()); n > 1 {
		e.Message = fmt.Sprintf("It is live in all %d apps that it concerns.", n)
	}
	if s := q.unknown; s != nil {
		e.Reason, e.Message = s.GetReason(), e.GetMessage()+" "+sentence(s.GetMessage())
		e.Remedy = cmp.Or(remedyOf(e.GetReason()), &deployerv1.Remedy{Kind: deployerv1.Remedy_OPEN_INTEGRATION})
		return
	}
	if !q.untoldPush() {
		return
	}
	if reason, message := q.untoldWhy(); reason != "" {
		e.Reason, e.Message = reason, fmt.Sprintf("%s No delivery told of it: %s", e.GetMessage(), message)
		if trouble, _ := hookTrouble(q.hook()); trouble != "" {
			e.Remedy = q.hookRemedy(q.hook())
		}
	}
}

// unwatched answers about a push that concerns no app.
func (q *question) unwatched() (reason, message string, remedy *deployerv1.Remedy) {
	what := "branch " + q.ref.Name()
	if q.ref.IsTag() {
		what = "tag " + q.ref.Name()
	} else if q.ref == "" {
		what = "the commit's branch"
	}
	var watched []string
	for _, p := range q.parts {
		watched = append(watched, fmt.Sprintf("%s watches %s", p.app.GetId(), p.app.GetBranch()))
	}
	remedy = &deployerv1.Remedy{Kind: deployerv1.Remedy_CREATE_APP}
	switch n := len(watched); {
	case n == 0:
		return whyUnwatched, fmt.Sprintf("No app deploys %s any more.", q.name()), remedy
	case n == 1:
		remedy = &deployerv1.Remedy{Kind: deployerv1.Remedy_EDIT_RULES, App: q.parts[0].app.GetId()}
	case n > 3:
		watched = append(watched[:3], fmt.Sprintf("%d more watch others", n-3))
	}
	return whyUnwatched, fmt.Sprintf("No app watches %s of %s: %s.", what, q.name(), strings.Join(watched, ", ")), remedy
}

// unseen answers about what nobody has seen.
func (q *question) unseen() (reason, message string, remedy *deployerv1.Remedy) {
	switch branch := q.req.GetBranch(); {
	case requestPattern.MatchString(q.req.GetDelivery()):
		reason, message = whyNoRequest, "Devpilot keeps no request with this id: it never came, came before the last 1,000 of its webhook, or went to another address."
	case branch != "" && q.repository != "" && len(q.parts) > 0:
		reason, message, remedy = q.unwatched()
	case branch != "":
		reason, message = whyUnwatched, fmt.Sprintf("No app watches branch %s, and no delivery told of it.", branch)
		remedy = &deployerv1.Remedy{Kind: deployerv1.Remedy_CREATE_APP}
	default:
		reason = whyUnseenPush
		message = fmt.Sprintf("Devpilot has not seen commit %s: no delivery told of it, and no watched branch had it when Bitbucket was last asked%s.", short(strings.ToLower(q.req.GetCommit())), q.pollsWords())
	}
	if branch := q.req.GetBranch(); branch != "" && remedy.GetKind() == deployerv1.Remedy_EDIT_RULES {
		return reason, message, remedy // whatever stands in the way, it would not deploy
	}
	if why, said, mends := q.trouble(); why != "" {
		return why, message + " " + said, mends
	}
	return reason, message, remedy
}

// pollsWords says how often the repositories are polled that the commit could be in.
func (q *question) pollsWords() string {
	var of []string
	for _, p := range q.parts {
		if q.wanted(p) {
			of = append(of, p.app.GetRepository())
		}
	}
	if every := q.s.polls(q.req.GetWorkspace(), of...); every != "" {
		return ", which is at least " + every
	}
	return ""
}

// trouble is what keeps Devpilot from hearing of pushes: the connection, Bitbucket, or the webhook; or that
// pushes go to a repository that took another one's name.
func (q *question) trouble() (reason, message string, remedy *deployerv1.Remedy) {
	if t := q.connection.GetPaused(); t != nil {
		return t.GetReason(), sentence(t.GetMessage()), remedyOf(t.GetReason())
	}
	for _, p := range q.parts {
		for _, t := range []*storev1.Trouble{p.index.GetUnreachable(), p.index.GetUnanswered()} {
			if t != nil {
				return t.GetReason(), q.where(p.index.GetFullName()) + sentence(t.GetMessage()), cmp.Or(remedyOf(t.GetReason()), &deployerv1.Remedy{Kind: deployerv1.Remedy_OPEN_INTEGRATION})
			}
		}
	}
	for _, h := range q.hooks {
		if why, said := hookTrouble(h); why != "" {
			return why, q.where(h.GetRepositoryFullName()) + said, q.hookRemedy(h)
		}
	}
	for _, p := range q.parts {
		if was := p.index.GetFormerName(); was != "" {
			return whyRenamed, fmt.Sprintf("What was %s is called %s since %s: a repository that has the name %s now is another one, and its pushes deploy nothing here.",
				was, p.index.GetFullName(), when.UTC(p.index.GetRenamedTime().AsTime()), was), &deployerv1.Remedy{Kind: deployerv1.Remedy_CREATE_APP}
		}
	}
	return "", "", nil
}

// where names a repository where the question may be about others.
func (q *question) where(name string) string {
	if q.repository != "" || name == "" {
		return ""
	}
	return "Of " + name + ": "
}

// hookTrouble is why a webhook does not tell of pushes; empty where it does.
func hookTrouble(h *webhookv1.Webhook) (reason, message string) {
	switch h.GetHealth() {
	case webhookv1.Webhook_HEALTH_UNSPECIFIED, webhookv1.Webhook_REGISTERED, webhookv1.Webhook_NOT_CHECKED:
	case webhookv1.Webhook_INACTIVE, webhookv1.Webhook_URL_CHANGED, webhookv1.Webhook_EVENTS_CHANGED, webhookv1.Webhook_SECRET_CHANGED, webhookv1.Webhook_DELETED,
		webhookv1.Webhook_NOT_ADMIN, webhookv1.Webhook_LIMIT_REACHED, webhookv1.Webhook_DELIVERIES_MISSING:
		return hookReason(h.GetHealth()), sentence(h.GetHealthMessage())
	}
	if h.GetState() == webhookv1.Webhook_NOT_REGISTERED || h.GetState() == webhookv1.Webhook_DRIFTED || h.GetState() == webhookv1.Webhook_LEFT_ON_BITBUCKET {
		return h.GetReason(), sentence(h.GetMessage())
	}
	return "", ""
}
