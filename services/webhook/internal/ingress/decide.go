package ingress

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/pushes"
)

// decide answers a verified delivery from the request alone (and from what never changes about the
// webhook). Which branches are watched is for the wording only: whether a push deploys is decided
// later, by the deployer.
func decide(event string, body []byte, rec *storev1.WebhookRecord) *answer {
	switch event {
	case hook.EventPush:
	case "":
		return refuse(http.StatusBadRequest, "event", "The header X-Event-Key is missing, so this is not a delivery of Bitbucket.")
	case hook.EventPing:
		return accept(http.StatusOK, "ping", "The webhook works.")
	default:
		return accept(http.StatusOK, "event", fmt.Sprintf("Devpilot does nothing on %s; only on %s.", short(event), hook.EventPush))
	}
	push, err := hook.Parse(body)
	if err != nil {
		what := "The body is not a push as Bitbucket describes it."
		if errors.Is(err, hook.ErrNotJSON) {
			what = "The body is not JSON."
		}
		return &answer{status: http.StatusBadRequest, reason: "body", Message: what, err: err}
	}
	a := decidePush(push, rec)
	a.push = pushes.Stored(push)
	return a
}

func decidePush(push hook.Push, rec *storev1.WebhookRecord) *answer {
	name := short(rec.GetRepositoryFullName())
	switch {
	case push.Repository.UUID != "" && push.Repository.UUID != rec.GetRepository():
		return accept(http.StatusOK, "repository", fmt.Sprintf(
			"This webhook is for %s; a push to %s does nothing.", name, short(push.Repository.FullName)))
	case rec.GetState() == webhookv1.Webhook_LEFT_ON_BITBUCKET:
		a := accept(http.StatusOK, "disconnected", fmt.Sprintf(
			"Bitbucket is disconnected in Devpilot, or no app uses %s any more; the push does nothing. Delete this webhook, or connect Bitbucket again.", name))
		a.Branches = branches(push)
		return a
	case len(push.Changes) == 0 && push.Unreadable == 0:
		return watched(accept(http.StatusAccepted, "empty", "A push without a list of changes: Devpilot asks Bitbucket for its branches."), rec)
	}
	a := accept(http.StatusAccepted, "push", "Stored: "+summary(push)+".")
	a.Branches = branches(push)
	return watched(a, rec)
}

// maxNames is how many branches an answer names.
const maxNames = 10

// summary says in words what arrived.
func summary(push hook.Push) string {
	var parts []string
	for _, c := range push.Changes {
		if len(parts) == maxNames {
			parts = append(parts, fmt.Sprintf("%d more", len(push.Changes)-maxNames))
			break
		}
		ref := c.Ref()
		what := "updated"
		switch {
		case c.New == nil:
			what = "deleted"
		case c.Old == nil:
			what = "created"
		case c.Forced:
			what = "force-pushed"
		}
		parts = append(parts, fmt.Sprintf("%s %s %s", ref.Kind, short(ref.Name), what))
	}
	if push.Unreadable > 0 {
		parts = append(parts, fmt.Sprintf("%d unreadable", push.Unreadable))
	}
	return strings.Join(parts, ", ")
}

// branches lists the names of the branches that changed.
func branches(push hook.Push) []string {
	var names []string
	for _, c := range push.Changes {
		if ref := c.Ref(); ref.Kind == hook.Branch && len(names) < maxNames && !slices.Contains(names, short(ref.Name)) {
			names = append(names, short(ref.Name))
		}
	}
	return names
}

// watched adds which branches are watched, from the copy that the deployer handed over.
func watched(a *answer, rec *storev1.WebhookRecord) *answer {
	for _, w := range rec.GetWatches() {
		if name := short(w.GetBranch()); len(a.Watched) < maxNames && !slices.Contains(a.Watched, name) {
			a.Watched = append(a.Watched, name)
		}
	}
	return a
}
