package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// each calls fn with all webhooks of a workspace, by the workspace's directory.
func (r *Registry) each(ctx context.Context, workspace string, fn func(*storev1.WebhookRecord) error) error {
	ws, err := r.cfg.Store.Workspace(ctx, workspace)
	if err != nil {
		return err
	}
	for n := ws.GetLastNumber(); n > 0; n-- {
		rec, err := r.cfg.Store.GetByNumber(ctx, workspace, n)
		if errors.Is(err, kv.ErrNotFound) || err == nil && rec.GetNumber() != n {
			continue // a gap, or an entry that lost a race
		}
		if err != nil {
			return err
		}
		if err := fn(rec); err != nil {
			return err
		}
	}
	return nil
}

// ConnectionChanged reads how the workspace's integration stands and does what follows: without
// one its webhooks are left on Bitbucket, with a new one they are ensured again, and those that were refused for
// being outside of what an admin narrowed the workspace to are, once that changed. It may be called any number of
// times.
func (r *Registry) ConnectionChanged(ctx context.Context, workspace string) error {
	connection, err := r.cfg.Connections.Current(ctx, workspace)
	if err != nil {
		return fmt.Errorf("registry: ask how the integration of %s stands: %w", workspace, err)
	}
	known, err := r.cfg.Store.Workspace(ctx, workspace)
	if err != nil {
		return err
	}
	same, narrowed := connection.ID == known.GetConnectionId(), !slices.Equal(connection.NarrowedTo, known.GetNarrowedTo())
	switch {
	case connection.ID == "":
		_, err = r.Leave(ctx, workspace, time.Time{})
		return err
	case same && !narrowed:
		return nil
	}
	err = r.each(ctx, workspace, func(rec *storev1.WebhookRecord) error {
		if same && rec.GetWork().GetErrorReason() != string(apierr.ReasonWorkspaceExcluded) {
			return nil
		}
		return r.resume(ctx, rec)
	})
	if err != nil {
		return err
	}
	// Only now, so that whoever dies on the way begins again.
	return r.cfg.Store.UpdateWorkspace(ctx, workspace, func(ws *storev1.WorkspaceRecord) error {
		ws.NarrowedTo = connection.NarrowedTo
		if !same {
			ws.ConnectionId, ws.ConnectionTime = connection.ID, timestamppb.New(r.cfg.Now())
		}
		return nil
	})
}

// resume has a webhook worked on with the new connection: made, or found again, where apps watch
// the repository; removed where Bitbucket still has one that nobody uses.
func (r *Registry) resume(ctx context.Context, rec *storev1.WebhookRecord) error {
	if len(rec.GetWatches()) == 0 && rec.GetState() != webhookv1.Webhook_LEFT_ON_BITBUCKET {
		return nil
	}
	_, err := r.cfg.Store.Update(ctx, rec.GetWorkspace(), rec.GetId(), func(cur *storev1.WebhookRecord) error {
		switch {
		case len(cur.GetWatches()) > 0:
			cur.Dismissed = false
			if s := cur.GetState(); s == webhookv1.Webhook_LEFT_ON_BITBUCKET || s == webhookv1.Webhook_NOT_REGISTERED {
				cur.State, cur.Reason, cur.Message = webhookv1.Webhook_PENDING, "", ""
			}
		case cur.GetState() == webhookv1.Webhook_LEFT_ON_BITBUCKET:
		default:
			return kv.ErrSkip
		}
		r.want(cur, false)
		r.touch(cur)
		return nil
	})
	return err
}

// Leave marks all webhooks of a workspace as left on Bitbucket after its integration was removed,
// and returns those that Bitbucket still has. before, when not zero, is when it was removed: if
// the workspace was connected again since, nothing is marked.
func (r *Registry) Leave(ctx context.Context, workspace string, before time.Time) ([]*storev1.WebhookRecord, error) {
	ws, err := r.cfg.Store.Workspace(ctx, workspace)
	if err != nil {
		return nil, err
	}
	if !before.IsZero() && ws.GetConnectionId() != "" && ws.GetConnectionTime().AsTime().After(before) {
		// That is when we looked; what we saw then may be older than the removal.
		if connection, err := r.cfg.Connections.Current(ctx, workspace); err != nil || connection.ID != "" {
			return nil, err
		}
	}
	var left []*storev1.WebhookRecord
	err = r.each(ctx, workspace, func(rec *storev1.WebhookRecord) error {
		rec, err := r.cfg.Store.Update(ctx, workspace, rec.GetId(), r.leave)
		if err != nil {
			return err
		}
		if rec.GetState() == webhookv1.Webhook_LEFT_ON_BITBUCKET && !rec.GetDismissed() {
			left = append(left, rec)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if ws.GetConnectionId() == "" {
		return left, nil
	}
	r.cfg.Logger.InfoContext(ctx, "webhooks left on bitbucket", slog.String(logs.KeyWorkspace, workspace), slog.Int(logs.KeyCount, len(left)))
	return left, r.cfg.Store.UpdateWorkspace(ctx, workspace, func(ws *storev1.WorkspaceRecord) error {
		ws.ConnectionId, ws.ConnectionTime = "", timestamppb.New(r.cfg.Now())
		return nil
	})
}

const leftMessage = "Bitbucket was disconnected in Devpilot. The webhook is still at Bitbucket, and its deliveries do nothing. Delete it there, or connect Bitbucket again."

// leave marks one webhook.
func (r *Registry) leave(rec *storev1.WebhookRecord) error {
	state, message := webhookv1.Webhook_NOT_REGISTERED, "Bitbucket is not connected. Connect it under Integrations; the webhook is then registered by itself."
	if mayExist(rec) || rec.GetLease() != nil {
		state, message = webhookv1.Webhook_LEFT_ON_BITBUCKET, leftMessage
	}
	switch {
	case rec.GetState() == webhookv1.Webhook_REMOVED,
		rec.GetState() == webhookv1.Webhook_LEFT_ON_BITBUCKET, // whatever left it there first
		rec.GetState() == state && rec.GetReason() == string(apierr.ReasonNotConnected):
		return kv.ErrSkip
	}
	rec.State, rec.Reason, rec.Message = state, string(apierr.ReasonNotConnected), message
	// Whoever works on it works with a connection that is gone: its result does not count.
	rec.Lease = nil
	rec.Epoch++
	if w := rec.GetWork(); w != nil {
		w.Done, w.DueTime, w.Attempts = w.GetWanted(), nil, 0
		w.ErrorReason, w.ErrorMessage = string(apierr.ReasonNotConnected), message
	}
	r.touch(rec)
	return nil
}

// Verified notes that a delivery with a right signature came: a webhook that we did not register
// was added by hand, and a secret that was rotated is in use. fullName, when not empty, is the
// repository's name today.
func (r *Registry) Verified(ctx context.Context, rec *storev1.WebhookRecord, fullName string, secretVersion int32) (*storev1.WebhookRecord, error) {
	if !r.learns(rec, fullName, secretVersion) {
		return rec, nil
	}
	return r.cfg.Store.Update(ctx, rec.GetWorkspace(), rec.GetId(), func(cur *storev1.WebhookRecord) error {
		if !r.learns(cur, fullName, secretVersion) {
			return kv.ErrSkip
		}
		if newName(cur, fullName) {
			rename(cur, fullName)
		}
		if secretVersion == cur.GetSecret().GetVersion() {
			ConfirmSecret(cur, r.cfg.Now())
		}
		if byOthers(cur) {
			cur.State, cur.Reason = webhookv1.Webhook_MANUAL, ""
		}
		if cur.GetState() == webhookv1.Webhook_MANUAL {
			cur.Message, cur.RegisteredUrl = manualMessage(cur), r.cfg.View.Address.URL(cur.GetId())
		}
		if switchedOff(cur) {
			r.suspect(cur)
		}
		r.touch(cur)
		return nil
	})
}

// learns reports whether a verified delivery tells something new.
func (r *Registry) learns(rec *storev1.WebhookRecord, fullName string, secretVersion int32) bool {
	return byOthers(rec) ||
		switchedOff(rec) && !planned(rec) ||
		newName(rec, fullName) ||
		secretVersion == rec.GetSecret().GetVersion() &&
			(rec.GetSecret().GetConfirmTime() == nil || rec.GetOldSecret() != nil && rec.GetOldSecretExpireTime() == nil)
}

// newName reports whether a delivery tells a name that the repository did not have yet. One that it had
// comes with a delivery of yesterday; if it has it again, the deployer says so.
func newName(rec *storev1.WebhookRecord, fullName string) bool {
	return fullName != "" && fullName != rec.GetRepositoryFullName() && !slices.Contains(rec.GetFormerNames(), fullName)
}

// maxFormerNames is how many former names are kept.
const maxFormerNames = 8

// rename gives the record another name.
func rename(rec *storev1.WebhookRecord, fullName string) {
	names := slices.DeleteFunc(slices.Clone(rec.GetFormerNames()), func(n string) bool { return n == fullName })
	if was := rec.GetRepositoryFullName(); was != "" {
		names = append(names, was)
	}
	rec.FormerNames, rec.RepositoryFullName = names[max(0, len(names)-maxFormerNames):], fullName
}

// byOthers reports whether a hook that signs its deliveries must have been added by hand: we have
// none at Bitbucket.
func byOthers(rec *storev1.WebhookRecord) bool {
	return rec.GetState() == webhookv1.Webhook_NOT_REGISTERED && rec.GetReason() != string(apierr.ReasonNotConnected) ||
		rec.GetState() == webhookv1.Webhook_DRIFTED && rec.GetBitbucketUuid() == ""
}
