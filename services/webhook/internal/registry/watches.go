package registry

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// maxWatches is how many watches of a repository are kept. They decide by being there or not;
// beyond that they are for the wording of answers.
const maxWatches = 500

// WatchSet is the full set of watches of one repository, as the deployer hands it over.
type WatchSet struct {
	Workspace  string
	Repository string // UUID, normalised
	FullName   string // may be empty
	Place      string // UUID of the Bitbucket workspace that it is in; may be empty
	Watches    []*webhookv1.Watch
	Version    int64 // an older set never replaces a newer one
	Wait       bool  // for Bitbucket's answer, as long as the context lasts
}

// SetWatches takes a set over, and has the hook at Bitbucket made or removed where that follows. It
// returns the webhook, or nil where there is none and none is needed.
func (r *Registry) SetWatches(ctx context.Context, set WatchSet) (*storev1.WebhookRecord, error) {
	set.Watches = tidy(set.Watches)
	rec, err := r.cfg.Store.LatelyByRepository(ctx, set.Workspace, set.Repository) // only its id counts
	switch {
	case errors.Is(err, kv.ErrNotFound) && len(set.Watches) == 0:
		return nil, nil
	case errors.Is(err, kv.ErrNotFound):
		rec, err = r.create(ctx, set)
	}
	if err != nil {
		return nil, err
	}
	var number int64
	rec, err = r.cfg.Store.Update(ctx, set.Workspace, rec.GetId(), func(cur *storev1.WebhookRecord) error {
		number = 0
		changed, work := r.take(cur, set)
		if work {
			number = r.want(cur, false)
		}
		if !changed {
			return kv.ErrSkip
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if number == 0 {
		number = rec.GetWork().GetWanted()
	}
	if set.Wait {
		rec, _, err = r.wait(ctx, rec, number)
		return rec, err
	}
	r.schedule.now(rec.GetWorkspace(), rec.GetId())
	return rec, nil
}

// tidy orders a set, so that equal sets are equal records.
func tidy(watches []*webhookv1.Watch) []*webhookv1.Watch {
	out := slices.Clone(watches)
	compare := func(a, b *webhookv1.Watch) int {
		return cmp.Or(cmp.Compare(a.GetBranch(), b.GetBranch()), cmp.Compare(a.GetApp(), b.GetApp()))
	}
	slices.SortFunc(out, compare)
	out = slices.CompactFunc(out, func(a, b *webhookv1.Watch) bool { return compare(a, b) == 0 })
	return out[:min(len(out), maxWatches)]
}

func (r *Registry) create(ctx context.Context, set WatchSet) (*storev1.WebhookRecord, error) {
	return r.cfg.Store.Ensure(ctx, set.Workspace, set.Repository, NewID, func(rec *storev1.WebhookRecord) (err error) {
		now := r.cfg.Now()
		rec.RepositoryFullName = set.FullName
		rec.State = webhookv1.Webhook_PENDING
		rec.CreateTime, rec.UpdateTime = timestamppb.New(now), timestamppb.New(now)
		rec.Secret, err = r.cfg.Vault.fresh(rec, now)
		return err
	})
}

// take writes a set into the record. work tells that something is to be done at Bitbucket.
func (r *Registry) take(rec *storev1.WebhookRecord, set WatchSet) (changed, work bool) {
	if set.Version < rec.GetWatchesVersion() {
		return false, false
	}
	had, has := len(rec.GetWatches()) > 0, len(set.Watches) > 0
	same := slices.EqualFunc(rec.GetWatches(), set.Watches, func(a, b *webhookv1.Watch) bool {
		return a.GetApp() == b.GetApp() && a.GetBranch() == b.GetBranch()
	})
	moved := set.Place != "" && set.Place != rec.GetBitbucketWorkspace()
	renamed := set.FullName != "" && set.FullName != rec.GetRepositoryFullName()
	if same && !renamed && !moved && set.Version == rec.GetWatchesVersion() {
		return false, false
	}
	if !same || renamed {
		r.touch(rec)
	}
	rec.Watches, rec.WatchesVersion = set.Watches, set.Version
	if moved {
		rec.BitbucketWorkspace = set.Place
	}
	if renamed {
		rename(rec, set.FullName)
	}
	switch {
	case has && !had:
		rec.Dismissed = false
		_ = activate(rec) // it has no error: somebody wants the webhook now
		// What was left at Bitbucket counts again, unless nobody is connected.
		left := rec.GetState() == webhookv1.Webhook_LEFT_ON_BITBUCKET && rec.GetReason() != string(apierr.ReasonNotConnected)
		if s := rec.GetState(); left || s == webhookv1.Webhook_REMOVED || s == webhookv1.Webhook_NOT_REGISTERED {
			rec.State, rec.Reason, rec.Message = webhookv1.Webhook_PENDING, "", ""
		}
		return true, true
	case had && !has:
		return true, true
	case moved && rec.GetReason() == string(apierr.ReasonWorkspaceExcluded):
		return true, true // it may be within now
	}
	return true, false
}

// Batch returns the webhooks of repositories; those that have none are left out.
func (r *Registry) Batch(ctx context.Context, workspace string, repositories []string) ([]*storev1.WebhookRecord, error) {
	return r.cfg.Store.Shown(ctx, workspace, repositories)
}
