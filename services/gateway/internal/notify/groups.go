package notify

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// What one cause does to many things is told in one notification that names them. They are found one after the
// other, so that what joins them is told together too, some time later.

const (
	// groupPause is how long after a group was told what has joined it waits to be told.
	groupPause = time.Hour
	// namedInGroup is how many of a group a title names.
	namedInGroup = 5
	// maxGroup is how many of a group are remembered.
	maxGroup = 500
)

// group tells that things are in the same trouble: when the first are, when others have joined them, and when
// none is any more.
func (w *Watcher) group(ctx context.Context, workspace, key string, now []string, begins func([]string) *gatewaystorev1.Notification, ends *gatewaystorev1.Notification) error {
	now = slices.Compact(slices.Sorted(slices.Values(now)))
	now = now[:min(len(now), maxGroup)]
	return w.streak(ctx, workspace, key, func(s *gatewaystorev1.NotificationStreak) error {
		was := s.GetWebhooks()
		joined := slices.ContainsFunc(now, func(m string) bool { return !slices.Contains(was, m) })
		var n *gatewaystorev1.Notification
		switch {
		case len(now) == 0 && len(was) == 0:
			return kv.ErrSkip
		case len(now) == 0:
			n = ends
			n.Id, n.Resolved = idOf(key, "ends", strconv.FormatInt(s.GetCount(), 10)), true
		case joined && (len(was) == 0 || w.cfg.Now().Sub(s.GetTime().AsTime()) >= groupPause):
			s.Count++
			n = begins(now)
			n.Id = idOf(key, "begins", strconv.FormatInt(s.GetCount(), 10))
			s.Time = timestamppb.New(w.cfg.Now())
		default: // those that left are told anew if they come back
			left := slices.DeleteFunc(slices.Clone(was), func(m string) bool { return !slices.Contains(now, m) })
			if len(left) == len(was) {
				return kv.ErrSkip
			}
			s.Webhooks = left
			return nil
		}
		s.Webhooks, s.Outbox = now, append(s.GetOutbox(), n)
		return nil
	})
}

// named are the first of a group, and how many there are beside them.
func named(members []string) string {
	text := strings.Join(members[:min(len(members), namedInGroup)], ", ")
	if more := len(members) - namedInGroup; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// noAdmin is whether a webhook needs somebody because the connected account may not look after it.
func noAdmin(h *webhookv1.Webhook) bool {
	return needsPerson(h) && (h.GetHealth() == webhookv1.Webhook_NOT_ADMIN || apierr.Reason(h.GetReason()) == apierr.ReasonNotRepositoryAdmin)
}

// noAdmins tells of the repositories of which the connected account is no admin.
func (w *Watcher) noAdmins(ctx context.Context, workspace string, hooks []*webhookv1.Webhook) error {
	var names []string
	message := ""
	for _, h := range hooks {
		if noAdmin(h) {
			names, message = append(names, h.GetRepositoryFullName()), h.GetMessage()
			if h.GetHealthMessage() != "" {
				message = h.GetHealthMessage()
			}
		}
	}
	notification := func(title, text string) *gatewaystorev1.Notification {
		return &gatewaystorev1.Notification{
			Event: gatewayv1.NotificationTarget_WEBHOOK_NEEDS_PERSON, Reason: string(apierr.ReasonNotRepositoryAdmin), Title: title, Text: text,
			Path: pathOf(workspace, "settings", "integrations"), Time: timestamppb.New(w.cfg.Now()),
		}
	}
	return w.group(ctx, workspace, streakKey(workspace, "webhooks", "noadmin"), names, func(all []string) *gatewaystorev1.Notification {
		if len(all) == 1 {
			return notification("The webhook of "+all[0]+" needs you", message)
		}
		return notification(fmt.Sprintf("The webhooks of %d repositories need you: %s", len(all), named(all)),
			"The connected account is not an admin of these repositories, so Devpilot cannot register their webhooks, look at them or repair them. Give it the right on Bitbucket, or have an admin add the webhooks by hand: each app's page says how. Until then pushes are found by polling, a little later.")
	}, notification("No webhook needs an admin of its repository any more", "Pushes are told to Devpilot again, or nobody waits for them."))
}

// lostAccess tells of the apps whose repositories the connected account cannot reach.
func (w *Watcher) lostAccess(ctx context.Context, workspace string, apps []*deployerv1.App) error {
	var ids []string
	message, reason := "", ""
	for _, a := range apps {
		for _, warning := range a.GetWarnings() {
			if r := apierr.Reason(warning.GetReason()); r == apierr.ReasonRepositoryNotFound || r == apierr.ReasonAccessRestricted {
				ids, message, reason = append(ids, a.GetId()), warning.GetMessage(), warning.GetReason()
				break
			}
		}
	}
	notification := func(title, text string) *gatewaystorev1.Notification {
		return &gatewaystorev1.Notification{
			Event: gatewayv1.NotificationTarget_CONNECTION, Reason: reason, Title: title, Text: text,
			Path: pathOf(workspace, "settings", "integrations"), Time: timestamppb.New(w.cfg.Now()),
		}
	}
	return w.group(ctx, workspace, streakKey(workspace, "access"), ids, func(all []string) *gatewaystorev1.Notification {
		if len(all) == 1 {
			return notification("The connected account cannot reach the repository of "+all[0], message)
		}
		return notification(fmt.Sprintf("The connected account cannot reach the repositories of %d apps: %s", len(all), named(all)),
			"Nothing is deployed from them until the account has access again, or another one is connected. Each app says why.")
	}, notification("The connected account reaches the repositories of all apps again", "Nothing is left to do."))
}
