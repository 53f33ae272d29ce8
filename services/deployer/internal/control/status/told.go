package status

import (
	"context"
	"fmt"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// Told is what a connection told Bitbucket of a deployment as it stands, in the words that Bitbucket
// shows; empty when nothing was, or that is forgotten: it is remembered for a day.
func (s *Sender) Told(ctx context.Context, k lane.Key, rec *storev1.Deployment, connection string) string {
	w, ok := want(rec)
	if !ok || connection == "" {
		return ""
	}
	l := update{Sender: s, key: k, number: rec.GetDeployment().GetNumber()}
	if mark := l.mark(rec, w, connection); !l.sent.has(mark) && !l.marked(ctx, mark) {
		return ""
	}
	return w.description
}

// mark is the key under which it is remembered that a status was sent.
func (l update) mark(rec *storev1.Deployment, w wanted, connection string) string {
	return kv.EncodeKey(l.key.Workspace, l.key.App, fmt.Sprint(rec.GetGeneration()), fmt.Sprint(l.number), string(w.state), w.hash, connection)
}
