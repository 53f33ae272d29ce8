package stream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
)

// process is one that opens streams and buckets with its own idea of replicas.
type process struct {
	js       jetstream.JetStream
	registry *prometheus.Registry
	logs     *testkit.Logs
}

func newProcess(t *testing.T, js jetstream.JetStream, replicas int) *process {
	t.Helper()
	p := &process{registry: prometheus.NewRegistry(), logs: testkit.Logger(t)}
	replication, err := stream.NewReplication(p.registry)
	if err != nil {
		t.Fatal(err)
	}
	p.js = kv.NewSession(js, stream.Settings{Replicas: replicas, Replication: replication})
	return p
}

type strs = kv.Bucket[wrapperspb.StringValue, *wrapperspb.StringValue]

// open opens a stream with a consumer and a bucket with an inventory.
func (p *process) open(t *testing.T) *strs {
	t.Helper()
	opts := stream.Options{Logger: p.logs.Logger}
	if _, err := stream.Ensure(t.Context(), p.js, stream.Pushes, opts); err != nil {
		t.Fatal(err)
	}
	consumer := jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy}
	if _, err := stream.EnsureConsumer(t.Context(), p.js, stream.PushesStream, consumer, 1); err != nil {
		t.Fatal(err)
	}
	b, err := kv.Open[wrapperspb.StringValue](t.Context(), p.js, kv.Config{Name: "webhook-b", Inventory: "webhook", Logger: p.logs.Logger})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// gauge is the value of a metric of a stream.
func (p *process) gauge(t *testing.T, name, stream string) float64 {
	t.Helper()
	families, err := p.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetValue() == stream }) {
				return m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("no %s of %s", name, stream)
	return 0
}

func (p *process) warnings() int { return strings.Count(p.logs.Text(), "another number of replicas") }

// replicated is nil when every stream and every durable consumer has so many replicas that are up to date.
func replicated(ctx context.Context, js jetstream.JetStream, want int) error {
	seen := 0
	list := js.ListStreams(ctx)
	for info := range list.Info() {
		seen++
		if info.Config.Replicas != want || !current(info.Cluster, want) {
			return fmt.Errorf("%s has %d replicas: %+v", info.Config.Name, info.Config.Replicas, info.Cluster)
		}
		s, err := js.Stream(ctx, info.Config.Name)
		if err != nil {
			return err
		}
		consumers := s.ListConsumers(ctx)
		for c := range consumers.Info() {
			if c.Config.Durable != "" && !current(c.Cluster, want) { // others end with who reads
				return fmt.Errorf("consumer %s of %s: %+v", c.Name, info.Config.Name, c.Cluster)
			}
		}
		if consumers.Err() != nil {
			return consumers.Err()
		}
	}
	if seen == 0 && list.Err() == nil {
		return errors.New("no streams")
	}
	return list.Err()
}

func current(c *jetstream.ClusterInfo, want int) bool {
	if want == 1 && c == nil {
		return true
	}
	return c != nil && c.Leader != "" && len(c.Replicas) == want-1 &&
		!slices.ContainsFunc(c.Replicas, func(p *jetstream.PeerInfo) bool { return !p.Current })
}

const moment = 20 * time.Second

// One process that says nothing of replicas, and one that wants fewer, leave three where there are three:
// whichever server is lost then, nothing of what was acknowledged is.
func TestEnsure_neverLowersReplicas(t *testing.T) {
	cluster := testkit.Cluster(t, 3, 8<<30)
	_, js := cluster.Connect()
	three := newProcess(t, js, 0)
	three.open(t)
	testkit.Eventually(t, moment, func() error { return replicated(t.Context(), js, 3) })
	if got := three.warnings(); got != 0 {
		t.Errorf("%d warnings where all is as wished", got)
	}
	var last *strs
	for _, replicas := range []int{1, 0} {
		p := newProcess(t, js, replicas)
		last = p.open(t)
		if err := replicated(t.Context(), js, 3); err != nil {
			t.Fatalf("after a process that wishes %d: %v", replicas, err)
		}
		if replicas == 1 && p.warnings() != 1 || replicas == 0 && p.warnings() != 0 {
			t.Errorf("%d warnings of a process that wishes %d", p.warnings(), replicas)
		}
		wish := float64(replicas)
		if replicas == 0 {
			wish = 3
		}
		for _, name := range []string{stream.PushesStream, kv.StreamName("webhook-b"), kv.StreamName("webhook-inventory")} {
			if found, wished := p.gauge(t, "devpilot_stream_replicas", name), p.gauge(t, "devpilot_stream_replicas_wished", name); found != 3 || wished != wish {
				t.Errorf("%s, process that wishes %d: metrics say %v of %v", name, replicas, found, wished)
			}
		}
	}
	const pushes = 50
	for i := range pushes {
		if _, err := js.Publish(t.Context(), fmt.Sprintf("devpilot.push.v1.acme.%d", i), []byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := last.Create(t.Context(), fmt.Sprintf("k%d", i), wrapperspb.String("x")); err != nil {
			t.Fatal(err)
		}
	}
	s, err := js.Stream(t.Context(), stream.PushesStream)
	if err != nil {
		t.Fatal(err)
	}
	cluster.KillNamed(s.CachedInfo().Cluster.Leader)
	testkit.Eventually(t, moment, func() error {
		s, err := js.Stream(t.Context(), stream.PushesStream)
		if err == nil && s.CachedInfo().State.Msgs != pushes {
			t.Fatalf("%d pushes are left of %d", s.CachedInfo().State.Msgs, pushes)
		}
		return err
	})
	for i := range pushes {
		testkit.Eventually(t, moment, func() error {
			_, _, err := last.Get(t.Context(), fmt.Sprintf("k%d", i))
			return err
		})
	}
}

// What was made while the cluster was one server, or by somebody who wanted one replica, is raised.
func TestEnsure_raisesReplicas(t *testing.T) {
	_, js := testkit.Cluster(t, 3, 8<<30).Connect()
	newProcess(t, js, 1).open(t)
	testkit.Eventually(t, moment, func() error { return replicated(t.Context(), js, 1) })
	p := newProcess(t, js, 0)
	p.open(t)
	testkit.Eventually(t, moment, func() error { return replicated(t.Context(), js, 3) })
	if found := p.gauge(t, "devpilot_stream_replicas", stream.PushesStream); found != 3 {
		t.Errorf("the metric says %v", found)
	}
}

// Where nothing is said, there are as many as the servers can hold; what they cannot hold is refused in a
// sentence, for good where there is no cluster.
func TestEnsure_replicasThatServersCanHold(t *testing.T) {
	_, single := testkit.NATS(t).Connect()
	_, two := testkit.Cluster(t, 2, 8<<30).Connect()
	for name, js := range map[string]jetstream.JetStream{"a single server": single, "a cluster of two": two} {
		p := newProcess(t, js, 0)
		p.open(t)
		testkit.Eventually(t, moment, func() error { return replicated(t.Context(), js, 1) })
		if p.warnings() != 0 || p.gauge(t, "devpilot_stream_replicas_wished", stream.PushesStream) != 1 {
			t.Errorf("%s: %d warnings, more is wished than can be", name, p.warnings())
		}
		more := newProcess(t, js, 3)
		more.open(t)
		if more.warnings() != 1 {
			t.Errorf("%s: %d warnings of a process that wishes 3", name, more.warnings())
		}
		_, err := stream.Ensure(t.Context(), more.js, stream.DeadLetters, stream.Options{})
		if err == nil || !strings.Contains(err.Error(), "cannot have 3 replicas on") || !strings.Contains(err.Error(), "DEVPILOT_NATS_REPLICAS") {
			t.Errorf("%s: a new stream with 3: %v", name, err)
		}
		if forGood := errors.Is(err, stream.ErrPermanent); forGood != (name == "a single server") {
			t.Errorf("%s: for good: %v", name, forGood)
		}
	}
}
