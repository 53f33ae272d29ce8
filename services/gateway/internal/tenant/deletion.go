package tenant

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/rpc"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

// Closed says whether a workspace lets anybody in. It stands in the team, which every request reads.
type Closed int

// How a workspace may stand.
const (
	Open Closed = iota
	Deleting
	Deleted
)

func closedOf(t *gatewaystorev1.Team) Closed {
	switch {
	case t.GetDeleted():
		return Deleted
	case t.GetClosed():
		return Deleting
	}
	return Open
}

// Err is what a caller of a closed workspace is told; nil for one that is open.
func (c Closed) Err(workspace string) error {
	switch c {
	case Deleting:
		return apierr.Newf(apierr.ReasonWorkspaceBeingDeleted, "The workspace %q is being deleted. Nothing in it can be read or changed any more.", workspace)
	case Deleted:
		return WorkspaceNotFound(workspace)
	case Open:
	}
	return nil
}

// Closed is how the workspace stands, by its own record.
func (w Workspace) Closed() Closed {
	switch {
	case w.GetDeleted():
		return Deleted
	case w.GetDeleteTime() != nil:
		return Deleting
	}
	return Open
}

// Delete asks for a workspace's deletion, which internal/deletion carries out; WORKSPACE_NOT_FOUND, ETAG_MISMATCH. A
// repeat finds it being deleted. The note that somebody has to go on comes first, so that whoever dies after the
// decision is followed.
func (s *Store) Delete(ctx context.Context, id, etag string, by Subject, role identity.Role) (Workspace, error) {
	if !rpc.ValidWorkspace(id) {
		return Workspace{}, WorkspaceNotFound(id)
	}
	for {
		w, rev, err := s.workspaces.Get(ctx, id)
		if errors.Is(err, kv.ErrNotFound) || err == nil && w.GetDeleted() {
			return Workspace{}, WorkspaceNotFound(id)
		}
		if err != nil {
			return Workspace{}, kv.ToAPI(err)
		}
		if w.GetDeleteTime() == nil && etag != "" && etag != etagOf(rev) {
			return Workspace{}, apierr.New(apierr.ReasonEtagMismatch, "Somebody else changed the workspace meanwhile. Load it again and decide anew.")
		}
		_, err = s.deletions.Create(ctx, id, &gatewaystorev1.Deletion{BeginTime: timestamppb.New(s.now())})
		if err != nil && !errors.Is(err, kv.ErrExists) {
			return Workspace{}, kv.ToAPI(err)
		}
		if w.GetDeleteTime() == nil {
			w.DeleteTime, w.DeletedBy = timestamppb.New(s.now()), by.Label
			rev, err = s.workspaces.CompareAndSet(ctx, id, w, rev)
			if errors.Is(err, kv.ErrConflict) {
				continue
			}
			if err != nil {
				return Workspace{}, kv.ToAPI(err)
			}
		}
		return Workspace{Workspace: w, Role: role, ETag: etagOf(rev)}, s.Close(ctx, id)
	}
}

// WatchDeletions calls fn for each workspace whose deletion somebody has to go on with, until ctx is done.
func (s *Store) WatchDeletions(ctx context.Context, fn func(workspace string, begun time.Time)) error {
	return s.deletions.Watch(ctx, ">", func(key string, d *gatewaystorev1.Deletion, _ uint64) error {
		if d != nil {
			fn(key, d.GetBeginTime().AsTime())
		}
		return nil
	})
}

// Marked is the record of a workspace whose deletion was asked for, read from the leader; nil for one that is there,
// or never was.
func (s *Store) Marked(ctx context.Context, id string) (*gatewaystorev1.Workspace, error) {
	w, _, err := s.workspaces.Get(ctx, id)
	if errors.Is(err, kv.ErrNotFound) || err == nil && w.GetDeleteTime() == nil {
		return nil, nil
	}
	return w, kv.ToAPI(err)
}

// Close has nobody let into the workspace any more, from the next request on, and open invitations withdrawn.
func (s *Store) Close(ctx context.Context, id string) error {
	_, err := s.changeTeam(ctx, id, func(t *gatewaystorev1.Team) error {
		if t.GetClosed() && len(t.GetInvitations()) == 0 {
			return kv.ErrSkip
		}
		t.Closed, t.Invitations = true, nil
		return nil
	})
	return err
}

// Progress is how a deletion goes.
type Progress struct {
	Waits string // for what, in a sentence; empty for nothing
	Left  []*gatewaystorev1.LeftWebhook
	Away  []string // servers
}

// Note keeps how a deletion goes where people see it. What is left is added to what was.
func (s *Store) Note(ctx context.Context, id string, p Progress) error {
	_, _, err := s.workspaces.Update(ctx, id, func(w *gatewaystorev1.Workspace) (*gatewaystorev1.Workspace, error) {
		if w == nil {
			return nil, kv.ErrSkip
		}
		before := proto.CloneOf(w)
		w.Progress, w.ServersAway = p.Waits, p.Away
		for _, l := range p.Left {
			if !slices.ContainsFunc(w.WebhooksLeft, func(k *gatewaystorev1.LeftWebhook) bool {
				return k.GetRepositoryFullName() == l.GetRepositoryFullName()
			}) {
				w.WebhooksLeft = append(w.WebhooksLeft, l)
			}
		}
		if proto.Equal(before, w) {
			return nil, kv.ErrSkip
		}
		return w, nil
	})
	return kv.ToAPI(err)
}

// Finish deletes what the gateway has of a workspace that is empty otherwise: keys, proof, and all members but its
// owners, whose sessions live on. The record stays, so that its id is not given out again.
func (s *Store) Finish(ctx context.Context, id string) error {
	if err := s.deleteKeys(ctx, id); err != nil {
		return err
	}
	if err := s.proofs.Delete(ctx, id, 0); err != nil && !errors.Is(err, kv.ErrNotFound) {
		return kv.ToAPI(err)
	}
	if err := s.dismiss(ctx, id); err != nil {
		return err
	}
	_, _, err := s.workspaces.Update(ctx, id, func(w *gatewaystorev1.Workspace) (*gatewaystorev1.Workspace, error) {
		if w == nil || w.GetDeleted() {
			return nil, kv.ErrSkip
		}
		w.Deleted, w.Progress = true, ""
		return w, nil
	})
	if err != nil {
		return kv.ToAPI(err)
	}
	return s.Undelete(ctx, id)
}

// Undelete drops the note that somebody has to go on.
func (s *Store) Undelete(ctx context.Context, id string) error {
	if err := s.deletions.Delete(ctx, id, 0); err != nil && !errors.Is(err, kv.ErrNotFound) {
		return kv.ToAPI(err)
	}
	return nil
}

func (s *Store) deleteKeys(ctx context.Context, workspace string) error {
	keys, _, err := s.ListKeys(ctx, workspace, "", maxKeys)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if err := s.DeleteKey(ctx, workspace, k.GetId()); err != nil && !apierr.Has(err, apierr.ReasonAPIKeyNotFound) {
			return err
		}
	}
	if err := s.keyLists.Delete(ctx, workspace, 0); err != nil && !errors.Is(err, kv.ErrNotFound) {
		return kv.ToAPI(err)
	}
	return nil
}

// dismiss takes the workspace from all who do not own it. The lists come first: an entry without a member shows
// nothing, and who dies on the way finds the members again.
func (s *Store) dismiss(ctx context.Context, workspace string) error {
	t, err := s.Team(ctx, workspace)
	if err != nil {
		return err
	}
	for _, m := range t.GetMembers() {
		if RoleOf(m) == identity.RoleOwner {
			continue
		}
		if err := s.unlistWorkspace(ctx, m.GetSubject(), workspace); err != nil {
			return err
		}
	}
	_, err = s.changeTeam(ctx, workspace, func(t *gatewaystorev1.Team) error {
		t.Closed, t.Deleted, t.Invitations, t.Removed = true, true, nil, nil
		t.Members = slices.DeleteFunc(t.Members, func(m *gatewaystorev1.TeamMember) bool { return RoleOf(m) != identity.RoleOwner })
		return nil
	})
	return err
}
