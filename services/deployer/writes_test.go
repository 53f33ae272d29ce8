package deployer_test

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"
	"devpilot.io/bitbucket/services/deployer/internal/record/streams"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// followed are the streams that a deployment writes to, and their consumers; each of them hears of it
// several times.
var followed = map[string]string{
	"KV_deployer-apps": "changes", "KV_deployer-deployments": "changes", "KV_deployer-lanes": "changes", "KV_deployer-repositories": "changes",
	stream.EventsStream: "deployer-statuses", streams.WorkStream: "server-default", streams.OutcomesStream: "webhook",
}

// Whoever follows what a deployment writes keeps no state of its own on disk: it would be written, and
// synced, for each message that is handed out and each that is acknowledged.
func TestDeployment_isFollowedWithoutWrites(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.PublicURL = "https://devpilot.example.com" })
	b.repo.Commit("main", "first", map[string]string{"index.html": "1"})
	b.create("web", web(true))
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	for in, durable := range followed {
		var info *jetstream.ConsumerInfo
		testkit.Eventually(t, timeout, func() error {
			c, err := b.keyset.JS.Consumer(t.Context(), in, durable)
			if err != nil {
				return fmt.Errorf("%s of %s: %w", durable, in, err)
			}
			info = c.CachedInfo()
			return nil
		})
		if !info.Config.MemoryStorage {
			t.Errorf("%s of %s keeps its state on disk", durable, in)
		}
	}
}

// written is how many messages a stream has taken.
func (b *bench) written(name string) uint64 {
	b.t.Helper()
	s, err := b.keyset.JS.Stream(b.t.Context(), name)
	if err != nil {
		b.t.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq
}

// laneAndCount is the lane of the app web, and how many messages its stream had taken by then.
func (b *bench) laneAndCount(lanes string) (*storev1.Lane, uint64) {
	b.t.Helper()
	for {
		before := b.written(lanes)
		l, _, err := b.stores().Lanes.Get(b.t.Context(), "acme-inc.web")
		if err != nil {
			b.t.Fatal(err)
		}
		if b.written(lanes) == before {
			return l, before
		}
	}
}

// decided is what a lane says apart from what is to be told of it and whether it is watched over.
func decided(l *storev1.Lane) *storev1.Lane {
	l = proto.CloneOf(l)
	l.Outbox, l.OutboxSeq, l.RecordsRevision, l.Armed = nil, 0, 0, false
	return l
}

// A lane is written for its decisions: that a push is to be deployed, that its deployment begins, with
// which commit, and how it ended, and once more when all of that is told. What is told webhook at once is
// stored nowhere else.
func TestDeployment_writesItsLaneForDecisionsOnly(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "first", map[string]string{"index.html": "1"})
	b.create("web", web(true))
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	lanes := kv.StreamName(store.LanesBucket)
	cleared := func() error {
		l, _, err := b.stores().Lanes.Get(t.Context(), "acme-inc.web")
		if err == nil && (len(l.GetOutbox()) > 0 || l.GetRunning() != nil || l.GetWaiting() != nil) {
			err = fmt.Errorf("the lane is not done: %v", l)
		}
		return err
	}
	testkit.Eventually(t, timeout, cleared)
	nc, _ := b.nats.Connect()
	sub, err := nc.SubscribeSync("$KV." + store.LanesBucket + ".>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	was, before := b.laneAndCount(lanes)
	_, delivery := b.push("2")
	b.await("web", 2, deployerv1.Deployment_COMPLETED)
	b.awaitSaid(delivery, "Deployed as #2")
	testkit.Eventually(t, timeout, cleared)
	var decisions []*storev1.Lane
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	came, _, err := sub.Pending()
	if err != nil {
		t.Fatal(err)
	}
	for i := int(b.written(lanes) - before); i < came; i++ { // written before the lane was read
		if _, err := sub.NextMsg(timeout); err != nil {
			t.Fatal(err)
		}
	}
	for range b.written(lanes) - before {
		m, err := sub.NextMsg(timeout)
		if err != nil {
			t.Fatal(err)
		}
		is := &storev1.Lane{}
		if err := proto.Unmarshal(m.Data, is); err != nil {
			t.Fatal(err)
		}
		// What was told is crossed out with the next decision, or by itself, in one go or in several.
		switch {
		case !proto.Equal(decided(is), decided(was)):
			decisions = append(decisions, decided(is))
		case was.GetArmed() && !is.GetArmed(): // the watch over its work ends some seconds after it was done
		case len(is.GetOutbox()) >= len(was.GetOutbox()):
			t.Errorf("the lane was written for nothing: %v", is)
		}
		was = is
	}
	if len(decisions) != 4 {
		t.Errorf("the lane was written for %d decisions:", len(decisions))
		for _, lane := range decisions {
			t.Log(lane)
		}
	}
	if n := b.written(streams.OutcomesStream); n > 0 {
		t.Errorf("%d messages of outcomes were stored while webhook answers", n)
	}
}
