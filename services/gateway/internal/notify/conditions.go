package notify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/when"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

// escapes are the control sequences of ECMA-48 that colour a log.
var escapes = regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-Z\\-_])`)

const (
	// refusedFor is how long refreshing fails for any reason before it is told; one that was refused is
	// told at once.
	refusedFor = 10 * time.Minute
	// clockEvery is how often one of the replicas checks what only time brings.
	clockEvery = time.Minute
	// expiresWithin is how long before its end a key's expiry is told.
	expiresWithin = 7 * 24 * time.Hour
	listPage      = 200 // of what is listed
)

// integration checks the connection to Bitbucket.
func (w *Watcher) integration(ctx context.Context, workspace string) error {
	if !w.wanted(workspace, "", gatewayv1.NotificationTarget_CONNECTION) {
		return nil
	}
	ctx, err := w.as(ctx, workspace)
	if err != nil {
		return err
	}
	return w.trouble(ctx, workspace, streakKey(workspace, kindIntegration), func() (look, error) {
		resp, err := w.cfg.Auth.GetIntegration(ctx, &authv1.GetIntegrationRequest{Workspace: workspace})
		if err != nil {
			return look{}, err
		}
		e := resp.GetIntegration().GetLastError()
		name, title := w.broken(resp.GetIntegration())
		notification := func(title, text string) *gatewaystorev1.Notification {
			return &gatewaystorev1.Notification{
				Event: gatewayv1.NotificationTarget_CONNECTION, Reason: e.GetReason(), Title: title, Text: text,
				Path: pathOf(workspace, "settings", "integrations"), Time: timestamppb.New(w.cfg.Now()),
			}
		}
		return look{name, notification(title, cmp.Or(e.GetMessage(), resp.GetIntegration().GetWarning())), notification("The connection to Bitbucket works again", "Nothing is left to do.")}, nil
	})
}

// broken names the trouble of a connection, empty for none, and says what it is. Failing and broken are
// told apart: the one becomes the other.
func (w *Watcher) broken(i *authv1.Integration) (instance, title string) {
	e := i.GetLastError()
	switch i.GetState() {
	case authv1.Integration_RECONNECT_REQUIRED:
		return "broken " + i.GetConnectionId(), "The connection to Bitbucket is broken: connect again"
	case authv1.Integration_REFRESH_FAILING:
		refused := e.GetReason() == "RECONNECT_REQUIRED" || e.GetReason() == "CONSUMER_REFUSED"
		if refused || w.cfg.Now().Sub(e.GetSinceTime().AsTime()) >= refusedFor {
			return "failing " + i.GetConnectionId(), "The connection to Bitbucket is about to break"
		}
	case authv1.Integration_STATE_UNSPECIFIED, authv1.Integration_NOT_CONNECTED, authv1.Integration_CONNECTED:
	}
	if i.GetWarning() != "" {
		return "left " + i.GetConnectionId(), "Who connected Bitbucket is no longer a member"
	}
	return "", ""
}

// webhook checks a webhook.
func (w *Watcher) webhook(ctx context.Context, workspace, id string) error {
	if !w.wanted(workspace, "", gatewayv1.NotificationTarget_WEBHOOK_NEEDS_PERSON) {
		return nil
	}
	ctx, err := w.as(ctx, workspace)
	if err != nil {
		return err
	}
	return w.trouble(ctx, workspace, streakKey(workspace, kindWebhook, id), func() (look, error) {
		resp, err := w.cfg.Webhook.GetWebhook(ctx, &webhookv1.GetWebhookRequest{Workspace: workspace, Webhook: id})
		if err != nil {
			return look{}, err
		}
		h, name := resp.GetWebhook(), ""
		if noAdmin(h) { // of those the clock tells, all together
			return look{}, kv.ErrSkip
		}
		if needsPerson(h) {
			name = strings.TrimSpace(h.GetState().String() + " " + h.GetReason())
			if unlisted(h) {
				name += " " + h.GetHealth().String()
			}
		}
		message := h.GetMessage()
		if h.GetHealthMessage() != "" {
			message = h.GetHealthMessage()
		}
		notification := func(title, text string) *gatewaystorev1.Notification {
			return &gatewaystorev1.Notification{
				Event: gatewayv1.NotificationTarget_WEBHOOK_NEEDS_PERSON, Reason: h.GetReason(), Title: title, Text: text,
				Path: pathOf(workspace, "apps"), Time: timestamppb.New(w.cfg.Now()),
			}
		}
		repository := h.GetRepositoryFullName()
		return look{
			name, notification("The webhook of "+repository+" needs you", message),
			notification("The webhook of "+repository+" needs nobody any more", "Pushes are told to Devpilot again, or nobody waits for them."),
		}, nil
	})
}

// needsPerson is whether a webhook stays as it is until somebody does something. One that has steps to do by
// hand does, also while Devpilot goes on asking whether it may; any other that it tries again by itself does
// not. Without a public URL or a connection it is not the webhook that needs somebody.
func needsPerson(h *webhookv1.Webhook) bool {
	if unlisted(h) {
		return true
	}
	reason := apierr.Reason(h.GetReason())
	switch h.GetState() {
	case webhookv1.Webhook_MANUAL:
		return len(h.GetManualSteps()) > 0
	case webhookv1.Webhook_NOT_REGISTERED, webhookv1.Webhook_DRIFTED:
		if reason == apierr.ReasonNoPublicURL || reason == apierr.ReasonNotConnected {
			return false
		}
		return len(h.GetManualSteps()) > 0 || reason == apierr.ReasonWebhookDeactivated || h.GetRetryTime() == nil
	case webhookv1.Webhook_STATE_UNSPECIFIED, webhookv1.Webhook_PENDING, webhookv1.Webhook_ACTIVE, webhookv1.Webhook_LEFT_ON_BITBUCKET, webhookv1.Webhook_REMOVED:
	}
	return false
}

// unlisted is whether a webhook that stands well by its state needs somebody all the same: it was added by
// hand, and so nobody else can put it right, or Devpilot may not look after it any more.
func unlisted(h *webhookv1.Webhook) bool {
	switch h.GetHealth() {
	case webhookv1.Webhook_SECRET_CHANGED, webhookv1.Webhook_DELIVERIES_MISSING:
		return h.GetState() == webhookv1.Webhook_MANUAL
	case webhookv1.Webhook_NOT_ADMIN, webhookv1.Webhook_LIMIT_REACHED:
		return h.GetState() == webhookv1.Webhook_ACTIVE
	default:
		return false
	}
}

// webhooks checks those webhooks that need somebody or did when it last checked: a refused delivery, and
// one that came at last, change nothing of a webhook that an event would tell of.
func (w *Watcher) webhooks(ctx context.Context, workspace string) error {
	as, err := w.as(ctx, workspace)
	if err != nil {
		return err
	}
	resp, err := w.cfg.Webhook.ListWebhooks(as, &webhookv1.ListWebhooksRequest{Workspace: workspace, PageSize: listPage, OrderBy: "health"})
	if err != nil {
		return err
	}
	key := streakKey(workspace, "webhooks")
	last, _, err := w.cfg.Store.streaks.Get(ctx, key)
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return err
	}
	if err := w.noAdmins(as, workspace, resp.GetWebhooks()); err != nil {
		return err
	}
	var now []string
	for _, h := range resp.GetWebhooks() {
		if needsPerson(h) && !noAdmin(h) {
			now = append(now, h.GetId())
		}
	}
	slices.Sort(now)
	both := slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(now), last.GetWebhooks()...))))
	for _, id := range both {
		if err := w.webhook(ctx, workspace, id); err != nil {
			return err
		}
	}
	if slices.Equal(now, last.GetWebhooks()) {
		return nil
	}
	_, _, err = w.cfg.Store.streaks.Update(ctx, key, func(*gatewaystorev1.NotificationStreak) (*gatewaystorev1.NotificationStreak, error) {
		return &gatewaystorev1.NotificationStreak{Webhooks: now}, nil
	})
	return err
}

// clock has one of the replicas check what only time brings, every minute.
func (w *Watcher) clock(ctx context.Context) error {
	var last time.Time // that any replica looked
	t := time.NewTicker(tickWhileWaiting)
	defer t.Stop()
	for {
		if w.cfg.Now().Sub(last) >= clockEvery {
			at, err := w.round(ctx)
			if err != nil && ctx.Err() == nil {
				w.cfg.Logger.WarnContext(ctx, "not all that time brings was checked", logs.Err(err))
			}
			last = at
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// round looks, when it is time and no other replica does. It returns when that was last done.
func (w *Watcher) round(ctx context.Context) (last time.Time, err error) {
	st, now, mine := w.cfg.Store, w.cfg.Now(), false
	behind, expiring, connection := st.workspaces(gatewayv1.NotificationTarget_APP_BEHIND), st.workspaces(gatewayv1.NotificationTarget_KEY_EXPIRING), st.workspaces(gatewayv1.NotificationTarget_CONNECTION)
	webhooks, certificate := st.workspaces(gatewayv1.NotificationTarget_WEBHOOK_NEEDS_PERSON), st.workspaces(gatewayv1.NotificationTarget_CERTIFICATE_EXPIRING)
	if len(behind)+len(expiring)+len(connection)+len(webhooks)+len(certificate) == 0 {
		return time.Time{}, nil
	}
	s, _, err := st.streaks.Update(ctx, "clock", func(s *gatewaystorev1.NotificationStreak) (*gatewaystorev1.NotificationStreak, error) {
		mine = s.GetTime() == nil || now.Sub(s.GetTime().AsTime()) >= clockEvery
		if !mine {
			return nil, kv.ErrSkip
		}
		return &gatewaystorev1.NotificationStreak{Time: timestamppb.New(now)}, nil
	})
	if err != nil || !mine {
		return s.GetTime().AsTime(), err
	}
	var errs []error
	for _, workspace := range slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(behind), connection...)))) {
		errs = append(errs, w.apps(ctx, workspace, slices.Contains(behind, workspace), slices.Contains(connection, workspace)))
	}
	for _, workspace := range expiring {
		errs = append(errs, w.expiring(ctx, workspace))
	}
	for _, workspace := range connection {
		errs = append(errs, w.integration(ctx, workspace))
	}
	for _, workspace := range webhooks {
		errs = append(errs, w.webhooks(ctx, workspace))
	}
	for _, workspace := range certificate {
		errs = append(errs, w.certificate(ctx, workspace))
	}
	return now, errors.Join(errs...)
}

// apps tells of apps whose branch's newest commit has not been live for long, and of those whose repositories
// cannot be reached.
func (w *Watcher) apps(ctx context.Context, workspace string, behind, connection bool) error {
	ctx, err := w.as(ctx, workspace)
	if err != nil {
		return err
	}
	list, err := w.cfg.Store.read(ctx, workspace)
	if err != nil {
		return err
	}
	var all []*deployerv1.App
	for page := ""; ; {
		resp, err := w.cfg.Deployer.ListApps(ctx, &deployerv1.ListAppsRequest{Workspace: workspace, PageSize: listPage, PageToken: page})
		if err != nil {
			return err
		}
		all = append(all, resp.GetApps()...)
		if page = resp.GetNextPageToken(); page == "" {
			break
		}
	}
	for _, a := range all {
		if !behind {
			break
		}
		if err := w.behindOne(ctx, workspace, list, a); err != nil {
			return err
		}
	}
	if !connection {
		return nil
	}
	return w.lostAccess(ctx, workspace, all)
}

// behindOne puts it into the queues at once: each target has its own time, and a queue takes each
// commit once.
func (w *Watcher) behindOne(ctx context.Context, workspace string, list *gatewaystorev1.NotificationTargets, a *deployerv1.App) error {
	s := a.GetSync()
	if s.GetState() != deployerv1.Sync_BEHIND || s.GetCommit() == "" || s.GetSince() == nil {
		return nil
	}
	// With the same commit it is behind anew once something else is live.
	episode := fmt.Sprintf("%s %d", s.GetCommit(), a.GetLive().GetNumber())
	for _, t := range active(list) {
		p := t.GetPublic()
		wait := time.Duration(p.GetBehindMinutes()) * time.Minute
		if !wantsOne(p, a.GetId(), gatewayv1.NotificationTarget_APP_BEHIND) || w.cfg.Now().Sub(s.GetSince().AsTime()) < wait {
			continue
		}
		err := w.streak(ctx, workspace, streakKey(workspace, "behind", a.GetId(), p.GetId()), func(streak *gatewaystorev1.NotificationStreak) error {
			if streak.GetTrouble() == episode {
				return kv.ErrSkip
			}
			streak.Trouble = episode
			streak.Outbox = append(streak.GetOutbox(), &gatewaystorev1.Notification{
				Id: idOf(workspace, a.GetId(), p.GetId(), episode, "behind"), Event: gatewayv1.NotificationTarget_APP_BEHIND, Target: p.GetId(),
				App: a.GetId(), Deployment: s.GetDeployment(), Branch: s.GetBranch(), Commit: s.GetCommit(), Reason: s.GetReason(),
				Title: fmt.Sprintf("%s: %s at %s has not been live for %d minutes", a.GetId(), s.GetBranch(), bitbucket.ShortHash(s.GetCommit()), p.GetBehindMinutes()),
				Text:  behindText(s), Path: pathOf(workspace, "apps", a.GetId()), Time: timestamppb.New(w.cfg.Now()),
			})
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// behindText says why a branch is not live and, where that was counted, by how much it is ahead.
func behindText(s *deployerv1.Sync) string {
	switch n := s.GetCommits(); {
	case s.GetDiverged():
		return fmt.Sprintf("%s does not contain what is live. %s", s.GetBranch(), s.GetMessage())
	case n == 1:
		return fmt.Sprintf("%s is 1 commit ahead of what is live. %s", s.GetBranch(), s.GetMessage())
	case n > 1:
		return fmt.Sprintf("%s is %d commits ahead of what is live. %s", s.GetBranch(), n, s.GetMessage())
	}
	return s.GetMessage()
}

// expiring tells of API keys that expire soon, once for each.
func (w *Watcher) expiring(ctx context.Context, workspace string) error {
	now := w.cfg.Now()
	for after := ""; ; {
		keys, more, err := w.cfg.Keys.ListKeys(ctx, workspace, after, listPage)
		if err != nil {
			return err
		}
		for _, k := range keys {
			after = tenant.KeyCursor(k)
			end := k.GetExpireTime().AsTime()
			if k.GetExpireTime() == nil || !now.Before(end) || end.Sub(now) > expiresWithin {
				continue
			}
			err := w.trouble(ctx, workspace, streakKey(workspace, "key", k.GetId()), func() (look, error) {
				return look{trouble: "expires", begins: &gatewaystorev1.Notification{
					Event: gatewayv1.NotificationTarget_KEY_EXPIRING, Title: fmt.Sprintf("API key %q expires soon", k.GetLabel()),
					Text: fmt.Sprintf("It works until %s. Make another and give it to the program that uses this one.", when.UTC(end)),
					Path: pathOf(workspace, "settings", "integrations"), Time: timestamppb.New(now),
				}}, nil
			})
			if err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
	}
}
