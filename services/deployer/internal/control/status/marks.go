package status

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// The bucket has two kinds of entries, each of which ends by itself after a day:
//
//	<workspace>.<app>.<generation>.<number>.<state>.<hash>.<connection>   the status was sent; empty
//	<workspace>.<app>.<generation>.<number>                               "<hash> <connection>" that is told to be in progress
//
// Both are only aids: what cannot be written or read costs a call, or leaves an INPROGRESS behind.

// marked tells whether another process, or an earlier one, has sent the status.
func (l update) marked(ctx context.Context, mark string) bool {
	if _, _, err := l.marks.Get(ctx, mark); err != nil {
		return false // not there, or not to be had: at worst it is sent twice
	}
	l.sent.add(mark)
	return true
}

func (l update) remember(ctx context.Context, mark string) {
	l.sent.add(mark)
	l.put(ctx, mark, "")
}

func (l update) put(ctx context.Context, key, value string) {
	_, err := l.marks.Create(ctx, key, wrapperspb.String(value), kv.TTL(markLife))
	if err != nil && !errors.Is(err, kv.ErrExists) {
		l.cfg.Logger.DebugContext(ctx, "commit status not remembered", logs.Err(err))
	}
}

func (l update) openKey(rec *storev1.Deployment) string {
	return kv.EncodeKey(l.key.Workspace, l.key.App, fmt.Sprint(rec.GetGeneration()), fmt.Sprint(l.number))
}

// open notes, before it is told, that a commit is in progress.
func (l update) open(ctx context.Context, rec *storev1.Deployment, w wanted, t target) {
	l.put(ctx, l.openKey(rec), w.hash+" "+t.connection)
}

// close ends what is told to be in progress of another commit: an attempt that was interrupted may
// be followed by one that takes a newer commit. An error means that the event is to come again.
func (l update) close(ctx context.Context, rec *storev1.Deployment, w wanted, t target) error {
	key := l.openKey(rec)
	v, rev, err := l.marks.Get(ctx, key)
	if err != nil {
		return nil //nolint:nilerr // nothing is open, or it is not to be had
	}
	hash, connection, _ := strings.Cut(v.GetValue(), " ")
	if hash == w.hash {
		return nil
	}
	if connection == t.connection {
		former := wanted{state: bitbucket.BuildStopped, hash: hash, branch: w.branch, description: fmt.Sprintf("Deployment #%d went on with %s", l.number, bitbucket.ShortHash(w.hash))}
		if outdated, err := l.outdated(ctx, former); err != nil {
			return err
		} else if !outdated {
			if _, err := l.send(ctx, former, t); err != nil {
				return err
			}
		}
	}
	if err := l.marks.Delete(ctx, key, rev); err != nil && !errors.Is(err, kv.ErrConflict) && !errors.Is(err, kv.ErrNotFound) {
		return fmt.Errorf("status: forget what was in progress: %w", err)
	}
	return nil
}
