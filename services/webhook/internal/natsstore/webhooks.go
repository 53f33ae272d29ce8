package natsstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"devpilot.io/bitbucket/pkg/kv"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
)

func keyByID(id string) string               { return kv.EncodeKey("i", id) }
func keyByRepository(ws, repo string) string { return kv.EncodeKey("r", ws, repo) }
func keyByNumber(ws string, n int32) string  { return kv.EncodeKey("n", ws, strconv.Itoa(int(n))) }
func workspaceKey(workspace string) string   { return kv.EncodeKey(workspace) }

// Get reads a webhook from the leader; kv.ErrNotFound when there is none.
func (s *Store) Get(ctx context.Context, workspace, id string) (*storev1.WebhookRecord, error) {
	b, err := s.buckets()
	if err != nil {
		return nil, err
	}
	rec, _, err := b.webhooks.Get(ctx, WebhookKey(workspace, id))
	return rec, err
}

// GetByID reads a webhook of which only the id is known, from the leader. An index entry never changes: only
// one that the copy does not have is asked of the leader, too.
func (s *Store) GetByID(ctx context.Context, id string) (*storev1.WebhookRecord, error) {
	b, err := s.buckets()
	if err != nil {
		return nil, err
	}
	at, err := latelyOr(ctx, b.copies.index, b.index, keyByID(id))
	if err != nil {
		return nil, err
	}
	rec, _, err := b.webhooks.Get(ctx, WebhookKey(at.GetWorkspace(), id))
	return rec, err
}

// GetByRepository reads the webhook of a repository, as GetByID does.
func (s *Store) GetByRepository(ctx context.Context, workspace, repository string) (*storev1.WebhookRecord, error) {
	b, err := s.buckets()
	if err != nil {
		return nil, err
	}
	at, err := latelyOr(ctx, b.copies.index, b.index, keyByRepository(workspace, repository))
	if err != nil {
		return nil, err
	}
	rec, _, err := b.webhooks.Get(ctx, WebhookKey(workspace, at.GetWebhook()))
	return rec, err
}

// Update changes a webhook by compare-and-set; see kv.Bucket.Update. change gets a record that
// exists; a webhook that does not is kv.ErrNotFound.
func (s *Store) Update(ctx context.Context, workspace, id string, change func(*storev1.WebhookRecord) error) (*storev1.WebhookRecord, error) {
	b, err := s.buckets()
	if err != nil {
		return nil, err
	}
	rec, _, err := b.webhooks.Update(ctx, WebhookKey(workspace, id), func(cur *storev1.WebhookRecord) (*storev1.WebhookRecord, error) {
		if cur == nil {
			return nil, fmt.Errorf("%w: webhook %s/%s", kv.ErrNotFound, workspace, id)
		}
		return cur, change(cur)
	})
	return rec, err
}

// Ensure returns the webhook of a repository, and makes it when there is none: with the id that
// newID gives and as initial completes it. Of several callers at once all get the same webhook. A
// caller that dies on the way leaves at worst index entries that lead nowhere; the next one
// finishes what it began.
func (s *Store) Ensure(ctx context.Context, workspace, repository string, newID func() string, initial func(*storev1.WebhookRecord) error) (*storev1.WebhookRecord, error) {
	b, err := s.buckets()
	if err != nil {
		return nil, err
	}
	at, _, err := b.index.Get(ctx, keyByRepository(workspace, repository))
	if errors.Is(err, kv.ErrNotFound) {
		at, err = s.claim(ctx, b, workspace, repository, newID())
	}
	if err != nil {
		return nil, err
	}
	key := WebhookKey(workspace, at.GetWebhook())
	rec, _, err := b.webhooks.Get(ctx, key)
	if !errors.Is(err, kv.ErrNotFound) {
		return rec, err
	}
	rec = &storev1.WebhookRecord{Id: at.GetWebhook(), Workspace: workspace, Repository: repository, Number: at.GetNumber()}
	if err := initial(rec); err != nil {
		return nil, err
	}
	_, err = b.webhooks.Create(ctx, key, rec)
	if errors.Is(err, kv.ErrExists) {
		rec, _, err = b.webhooks.Get(ctx, key)
	}
	return rec, err
}

// claim writes the ways to find a webhook that is about to be made. The entry by repository comes
// last and decides which of several callers' webhooks it is.
func (s *Store) claim(ctx context.Context, b *buckets, workspace, repository, id string) (*storev1.IndexRecord, error) {
	ws, _, err := b.workspaces.Update(ctx, workspaceKey(workspace), func(cur *storev1.WorkspaceRecord) (*storev1.WorkspaceRecord, error) {
		if cur == nil {
			cur = &storev1.WorkspaceRecord{}
		}
		cur.LastNumber++
		return cur, nil
	})
	if err != nil {
		return nil, err
	}
	at := &storev1.IndexRecord{Workspace: workspace, Repository: repository, Webhook: id, Number: ws.GetLastNumber()}
	if _, err := b.index.Create(ctx, keyByID(id), at); err != nil {
		return nil, err
	}
	if _, err := b.index.Create(ctx, keyByNumber(workspace, at.GetNumber()), at); err != nil {
		return nil, err
	}
	_, err = b.index.Create(ctx, keyByRepository(workspace, repository), at)
	if errors.Is(err, kv.ErrExists) {
		at, _, err = b.index.Get(ctx, keyByRepository(workspace, repository))
	}
	return at, err
}

// Workspace reads what is known of a workspace; an empty record when nothing is.
func (s *Store) Workspace(ctx context.Context, workspace string) (*storev1.WorkspaceRecord, error) {
	b, err := s.buckets()
	if err != nil {
		return nil, err
	}
	rec, _, err := b.workspaces.Get(ctx, workspaceKey(workspace))
	if errors.Is(err, kv.ErrNotFound) {
		return &storev1.WorkspaceRecord{}, nil
	}
	return rec, err
}

// UpdateWorkspace changes what is known of a workspace by compare-and-set.
func (s *Store) UpdateWorkspace(ctx context.Context, workspace string, change func(*storev1.WorkspaceRecord) error) error {
	b, err := s.buckets()
	if err != nil {
		return err
	}
	_, _, err = b.workspaces.Update(ctx, workspaceKey(workspace), func(cur *storev1.WorkspaceRecord) (*storev1.WorkspaceRecord, error) {
		if cur == nil {
			cur = &storev1.WorkspaceRecord{}
		}
		return cur, change(cur)
	})
	return err
}

// GetByNumber reads the webhook at a place of the workspace's directory. kv.ErrNotFound is normal:
// callers that raced, or died, leave gaps.
func (s *Store) GetByNumber(ctx context.Context, workspace string, number int32) (*storev1.WebhookRecord, error) {
	b, err := s.buckets()
	if err != nil {
		return nil, err
	}
	at, err := latelyOr(ctx, b.copies.index, b.index, keyByNumber(workspace, number))
	if err != nil {
		return nil, err
	}
	rec, _, err := b.webhooks.Get(ctx, WebhookKey(workspace, at.GetWebhook()))
	if err != nil {
		return nil, err
	}
	return rec, nil
}
