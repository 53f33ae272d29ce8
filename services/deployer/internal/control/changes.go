package control

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// tellRecords is how often changes of apps and deployments are told: the states that a deployment hurries
// through between are nothing anybody could read, and each event costs a write here and a reading there.
const tellRecords = 250 * time.Millisecond

// relay publishes the changes of a bucket whose keys are <workspace>.<app>[.<number>].
func (c *Control) relay(ctx context.Context, bucket, kind string) error {
	return kv.RelayChanges(ctx, c.cfg.JS, kv.RelayConfig{
		Bucket: bucket, Service: "deployer", Logger: c.cfg.Logger, Metrics: c.cfg.Metrics,
		Describe: func(key string, _ bool) (workspace, k, id string, ok bool) {
			workspace, rest, found := strings.Cut(key, ".")
			return workspace, kind, strings.ReplaceAll(rest, ".", "/"), found
		},
		Every: tellRecords, Position: c.cfg.Records.Store.Position("changes-" + bucket),
	})
}

// tellValues is how often changes of lanes and repositories are told.
const tellValues = time.Second

// relayValues publishes those changes of a bucket that describe finds in its values.
func (c *Control) relayValues(ctx context.Context, bucket string, describe func(key string, value []byte) (workspace, kind, id string, ok bool)) error {
	return kv.RelayChanges(ctx, c.cfg.JS, kv.RelayConfig{
		Bucket: bucket, Service: "deployer", Logger: c.cfg.Logger, Metrics: c.cfg.Metrics,
		Describe:      func(string, bool) (workspace, kind, id string, ok bool) { return "", "", "", false },
		DescribeValue: describe, Every: tellValues, Position: c.cfg.Records.Store.Position("changes-" + bucket),
	})
}

// describeLane tells of an app whose branch was pushed to or polled. While a deployment runs or waits,
// its record tells. What is settled may be behind: the reconciler counts by how much.
func (c *Control) describeLane(ctx context.Context) func(key string, value []byte) (workspace, kind, id string, ok bool) {
	return func(key string, value []byte) (workspace, kind, id string, ok bool) {
		var l storev1.Lane
		if err := proto.Unmarshal(value, &l); err != nil || l.GetRunning() != nil || lane.Upcoming(&l) != nil || l.GetRetired() {
			return "", "", "", false
		}
		if workspace, id, ok = strings.Cut(key, "."); ok {
			c.reconciler.Settled(ctx, lane.Key{Workspace: workspace, App: id}, &l)
		}
		return workspace, "app", id, ok
	}
}

// describeRepository tells that what is known of a repository has changed, such as whether it can be
// reached.
func describeRepository(_ string, value []byte) (workspace, kind, id string, ok bool) {
	var idx storev1.RepositoryIndex
	if err := proto.Unmarshal(value, &idx); err != nil || len(idx.GetWatches()) == 0 {
		return "", "", "", false
	}
	return idx.GetWorkspace(), "repository", idx.GetRepository(), true
}
