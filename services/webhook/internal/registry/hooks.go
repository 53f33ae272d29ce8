package registry

import (
	"context"
	"errors"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/seal"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// Hooks are the calls at Bitbucket that a run makes; *bitbucket.Account has them.
type Hooks interface {
	Hooks(ctx context.Context, ref bitbucket.Ref) ([]bitbucket.Hook, error)
	CreateHook(ctx context.Context, ref bitbucket.Ref, in bitbucket.HookInput) (bitbucket.Hook, error)
	UpdateHook(ctx context.Context, ref bitbucket.Ref, hookUUID string, in bitbucket.HookInput) (bitbucket.Hook, error)
	DeleteHook(ctx context.Context, ref bitbucket.Ref, hookUUID string) error
	// User is asked before it is believed that something is gone.
	User(ctx context.Context) (bitbucket.User, error)
}

// wanted is the hook as it should be.
type wanted struct {
	repository string // UUID
	fullName   string
	url        string
	known      string // UUID of the hook that we registered; "" for none
	registered string // the URL that it has, as far as we know: another one than url after ours changed
	title      string
	secret     seal.Secret
	// checkOnly leaves a hook alone that looks right. Otherwise it is always written, because
	// whether the secret is right cannot be seen (BITBUCKET.md#whose-webhooks).
	checkOnly bool
	// activate switches a hook on that is switched off. Without it such a hook stays off: somebody meant
	// it, since Bitbucket itself never does so (BITBUCKET.md#whose-webhooks).
	activate bool
}

func (w wanted) input(active bool) bitbucket.HookInput {
	return bitbucket.HookInput{Description: w.title, URL: w.url, Active: active, Events: events, Secret: w.secret}
}

// found is what a run found and did; it counts also beside an error.
type found struct {
	uuid    string                   // of our hook; "" when it is not there
	listed  bool                     // the list was read to its end
	drifted bool                     // ours was missing or changed
	written bool                     // the secret was put on Bitbucket
	off     bool                     // ours is switched off, and stays so
	changed []string                 // what was wrong with ours, in words, where we knew it
	finding webhookv1.Webhook_Health // the same, the first of it
	deleted int                      // extras
}

// refs are the ways to name the repository: by its UUID below the Bitbucket workspace's name, which
// may have changed, then by its UUID alone (BITBUCKET.md#one-repository).
func (w wanted) refs() []bitbucket.Ref {
	alone := bitbucket.RefByID("", w.repository, w.fullName)
	workspace, _, err := bitbucket.SplitFullName(w.fullName)
	if err != nil {
		return []bitbucket.Ref{alone}
	}
	return []bitbucket.Ref{{Workspace: workspace, Repository: w.repository, Label: w.fullName}, alone}
}

// list reads all hooks of the repository, and says by which name it was found.
func (w wanted) list(ctx context.Context, h Hooks) (hooks []bitbucket.Hook, ref bitbucket.Ref, err error) {
	for _, ref = range w.refs() {
		hooks, err = h.Hooks(ctx, ref)
		if !bitbucket.IsKind(err, bitbucket.KindNotFound, bitbucket.KindGone) {
			return hooks, ref, err
		}
	}
	return nil, ref, err
}

// ours picks our hooks from a list, the one to keep first: the one we know, else the oldest. All who
// read the same list choose the same.
func (w wanted) ours(hooks []bitbucket.Hook) []bitbucket.Hook {
	var mine []bitbucket.Hook
	for _, h := range hooks {
		if !h.ReadOnly && (h.URL == w.url || w.registered != "" && h.URL == w.registered || w.known != "" && h.UUID == w.known) {
			mine = append(mine, h)
		}
	}
	slices.SortStableFunc(mine, func(a, b bitbucket.Hook) int {
		if (a.UUID == w.known) != (b.UUID == w.known) {
			if a.UUID == w.known {
				return -1
			}
			return 1
		}
		if c := a.CreatedAt.Compare(b.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(a.UUID, b.UUID)
	})
	return mine
}

func (w wanted) isRight(h bitbucket.Hook) bool {
	return h.URL == w.url && len(w.wrong(h)) == 0
}

// wrong says in words what somebody changed about a hook of ours; that it is off is not among it, unless it
// is to be switched on.
func (w wanted) wrong(h bitbucket.Hook) (list []string) {
	if h.URL != w.url && h.URL != w.registered {
		list = append(list, "its URL was changed")
	}
	if !slices.Equal(h.Events, events) {
		list = append(list, "its triggers were changed")
	}
	if !h.SecretSet {
		list = append(list, "its secret was removed")
	}
	if !h.Active && w.activate {
		list = append(list, "it was switched off")
	}
	return list
}

// ensure makes Bitbucket have exactly one hook of ours, as it should be.
func ensure(ctx context.Context, h Hooks, w wanted) (f found, err error) {
	hooks, ref, err := w.list(ctx, h)
	if err != nil {
		return f, err
	}
	f.listed = true
	mine := w.ours(hooks)
	f.changed, f.finding = w.compare(mine), w.finding(mine)
	f.drifted = w.known != "" && (len(mine) == 0 || mine[0].UUID != w.known || !w.isRight(mine[0]))
	if len(mine) > 0 {
		f.uuid = mine[0].UUID
		gone, err := w.put(ctx, h, ref, mine, &f)
		if err != nil || !gone {
			return f, err
		}
		f.uuid, f.drifted, f.off = "", true, false // deleted between the list and the update
		f.finding = webhookv1.Webhook_DELETED
	}
	made, err := h.CreateHook(ctx, ref, w.input(true))
	if err != nil {
		return f, err
	}
	f.uuid, f.written = made.UUID, true
	// Somebody else may have made one at the same moment.
	if hooks, err = h.Hooks(ctx, ref); err != nil {
		return f, err
	}
	w.known = ""
	if mine = w.ours(hooks); len(mine) < 2 {
		return f, nil
	}
	f.uuid = mine[0].UUID
	w.known, w.checkOnly = made.UUID, true // another one needs our secret
	_, err = w.put(ctx, h, ref, mine, &f)
	return f, err
}

// compare says what is not as we left it; nothing where we never had a hook.
func (w wanted) compare(mine []bitbucket.Hook) []string {
	switch {
	case w.known == "":
		return nil
	case len(mine) == 0 || mine[0].UUID != w.known:
		return []string{"it was deleted"}
	}
	return w.wrong(mine[0])
}

// put writes the first of our hooks as it should be and deletes the others. It reports whether
// the first one was gone.
func (w wanted) put(ctx context.Context, h Hooks, ref bitbucket.Ref, mine []bitbucket.Hook, f *found) (gone bool, err error) {
	active := mine[0].Active || w.activate
	f.off = !active
	if !w.checkOnly || mine[0].UUID != w.known || !w.isRight(mine[0]) { // what we did not write has not our secret
		_, err := h.UpdateHook(ctx, ref, mine[0].UUID, w.input(active))
		if bitbucket.IsKind(err, bitbucket.KindNotFound) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		f.written = true
	}
	return false, deleteAll(ctx, h, ref, mine[1:], f)
}

// remove deletes all our hooks from Bitbucket. A hook that is not there is done (BITBUCKET.md#whose-webhooks).
func remove(ctx context.Context, h Hooks, w wanted) (f found, err error) {
	hooks, ref, err := w.list(ctx, h)
	if err != nil {
		return f, err
	}
	f.listed = true
	mine := w.ours(hooks)
	if len(mine) > 0 {
		f.uuid = mine[0].UUID
	}
	if err := deleteAll(ctx, h, ref, mine, &f); err != nil {
		return f, err
	}
	f.uuid = ""
	return f, nil
}

func deleteAll(ctx context.Context, h Hooks, ref bitbucket.Ref, hooks []bitbucket.Hook, f *found) error {
	var errs []error
	for _, extra := range hooks {
		err := h.DeleteHook(ctx, ref, extra.UUID)
		if err != nil && !bitbucket.IsKind(err, bitbucket.KindNotFound) {
			errs = append(errs, err)
			continue
		}
		f.deleted++
	}
	return errors.Join(errs...)
}
