package backup_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/allinone"
	"devpilot.io/bitbucket/services/allinone/backup"
)

func quiet(int, int, string, uint64) {}

func session(t *testing.T, js jetstream.JetStream, name stream.Installation) *kv.Session {
	t.Helper()
	return kv.NewSession(js, stream.Settings{Installation: name})
}

// begun is an installation whose record is there.
func begun(t *testing.T, s *kv.Session, keyset *seal.Keyset) *kv.Session {
	t.Helper()
	_, err := installation.Open(t.Context(), installation.Config{JS: s, Redis: testkit.Redis(t).Client(), Keysets: seal.Shared(keyset, allinone.Sealers()...), Logger: logs.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func save(t *testing.T, s *kv.Session) (dir string, m *backup.Manifest) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "backup")
	m, err := backup.Save(t.Context(), s, dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return dir, m
}

func restore(ctx context.Context, s *kv.Session, dir string, keyset *seal.Keyset, again bool) error {
	r, err := backup.Verify(dir, stream.InstallationOf(s), seal.Shared(keyset, allinone.Sealers()...), quiet)
	if err != nil {
		return err
	}
	r.Again = again
	_, err = r.Run(ctx, s, quiet)
	return err
}

type strs = kv.Bucket[wrapperspb.StringValue, *wrapperspb.StringValue]

func bucket(t *testing.T, s *kv.Session, name string) *strs {
	t.Helper()
	b, err := kv.Open[wrapperspb.StringValue](t.Context(), s, kv.Config{Name: name, Inventory: "gateway"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A bucket whose every record is replaced while it is read loses none, at the revisions that it had, and its
// inventory agrees. NATS's own snapshot leaves out what was replaced.
func TestSave_bucketUnderWrites(t *testing.T) {
	t.Parallel()
	const keys = 3000
	keyset, s := testkit.Keyset(t), session(t, testkit.JS(t), "acme")
	begun(t, s, keyset)
	b := bucket(t, s, "gateway_workspaces")
	for i := range keys {
		if _, err := b.Create(t.Context(), fmt.Sprint("k", i), wrapperspb.String("first")); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	ended, written := make(chan struct{}), atomic.Int64{}
	go func() {
		defer close(ended)
		for i := 0; ctx.Err() == nil; i++ {
			_, _, err := b.Update(context.WithoutCancel(ctx), fmt.Sprint("k", i%keys), func(*wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
				return wrapperspb.String(fmt.Sprint(i)), nil
			})
			if err != nil {
				t.Error(err)
				return
			}
			written.Add(1)
		}
	}()
	testkit.Eventually(t, time.Minute, func() error {
		if written.Load() == 0 {
			return errors.New("nothing is written yet")
		}
		return nil
	})
	before := written.Load()
	dir, _ := save(t, s)
	if written.Load() == before {
		t.Error("nothing was written while the bucket was read")
	}
	stop()
	<-ended
	to := session(t, testkit.JS(t), "acme")
	if err := restore(t.Context(), to, dir, keyset, false); err != nil {
		t.Fatal(err)
	}
	restored := bucket(t, to, "gateway_workspaces") // refuses where its inventory knows more
	for i := range keys {
		v, rev, err := restored.Get(t.Context(), fmt.Sprint("k", i))
		if err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		now, newer, err := b.Get(t.Context(), fmt.Sprint("k", i))
		if err != nil {
			t.Fatal(err)
		}
		if rev > newer || rev == newer && v.GetValue() != now.GetValue() {
			t.Errorf("record %d is %v at %d, and was %v at %d", i, v, rev, now, newer)
		}
	}
}

// Streams come back with their sequences, queues with what was not handled, and who follows on disk goes on where
// everything was acknowledged.
func TestRestore_streamsQueuesAndConsumers(t *testing.T) {
	t.Parallel()
	keyset, s := testkit.Keyset(t), session(t, testkit.JS(t), "acme")
	begun(t, s, keyset)
	if _, err := stream.Ensure(t.Context(), s, stream.Events, stream.Options{}); err != nil {
		t.Fatal(err)
	}
	queue := stream.Queue(stream.Limits("DEVPILOT_OUTCOMES", "", "devpilot.outcome.v1.>", 0))
	if _, err := stream.Ensure(t.Context(), s, queue, stream.Options{}); err != nil {
		t.Fatal(err)
	}
	publish := stream.Publisher{JS: s}
	for i := range 10 {
		for _, subject := range []string{"devpilot.event.v1.auth.ws.integration", "devpilot.outcome.v1.x"} {
			if _, err := publish.Publish(t.Context(), &nats.Msg{Subject: subject, Data: []byte{byte(i)}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	consumer, err := stream.EnsureConsumer(t.Context(), s, stream.EventsStream, jetstream.ConsumerConfig{Durable: "follower", AckPolicy: jetstream.AckExplicitPolicy}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		m, err := consumer.Next()
		if err != nil {
			t.Fatal(err)
		}
		if err := m.DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	dir, _ := save(t, s)
	to := session(t, testkit.JS(t), "acme")
	if err := restore(t.Context(), to, dir, keyset, false); err != nil {
		t.Fatal(err)
	}
	again, err := to.Consumer(t.Context(), "acme_"+stream.EventsStream, "acme_follower")
	if err != nil {
		t.Fatal(err)
	}
	m, err := again.Next()
	if err != nil {
		t.Fatal(err)
	}
	if meta, err := m.Metadata(); err != nil || meta.Sequence.Stream != 5 || m.Data()[0] != 4 || m.Subject() != "acme.devpilot.event.v1.auth.ws.integration" {
		t.Errorf("the follower goes on at %v of %s, %v", meta, m.Subject(), err)
	}
	q, err := to.Stream(t.Context(), "acme_DEVPILOT_OUTCOMES")
	if err != nil || q.CachedInfo().State.Msgs != 10 || q.CachedInfo().Config.Retention != jetstream.WorkQueuePolicy {
		t.Errorf("the queue: %+v, %v", q.CachedInfo(), err)
	}
}

// What is not whole, of another installation, or not opened by the keyset is refused before anything is made.
func TestVerify_refusesAndChangesNothing(t *testing.T) {
	t.Parallel()
	keyset, s := testkit.Keyset(t), session(t, testkit.JS(t), "acme")
	begun(t, s, keyset)
	dir, m := save(t, s)
	file := filepath.Join(dir, m.Streams[len(m.Streams)-1].File)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	to := session(t, testkit.JS(t), "acme")
	refused := func(what, want string, keyset *seal.Keyset) {
		t.Helper()
		if err := restore(t.Context(), to, dir, keyset, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
		for name := range to.StreamNames(t.Context()).Name() {
			t.Errorf("%s: %s was made", what, name)
		}
	}
	refused("another keyset", installation.ErrKeyset.Error(), testkit.Keyset(t))
	put := func(data []byte) {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(whole[:len(whole)-1])
	refused("a file that was cut short", "was cut short", keyset)
	changed := slices.Clone(whole)
	changed[len(changed)/2] ^= 1
	put(changed)
	refused("a file that was changed", "is not as it was written", keyset)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	refused("a file that is gone", "is missing", keyset)
	put(whole)
	if _, err := backup.Verify(dir, "beta", seal.Shared(keyset, allinone.Sealers()...), quiet); err == nil || !strings.Contains(err.Error(), "is of the installation acme") {
		t.Errorf("another name: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "manifest.json")); err != nil {
		t.Fatal(err)
	}
	refused("a backup that was killed", "is no whole backup", keyset)
	if _, err := backup.Save(t.Context(), s, dir, quiet); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("a backup over another: %v", err)
	}
}

// Installations beside it are neither saved nor touched, and one that is there is never overwritten.
func TestRestore_besideOthers(t *testing.T) {
	t.Parallel()
	js := testkit.JS(t)
	for _, name := range []stream.Installation{"", "acme", "gateway"} {
		keyset, s := testkit.Keyset(t), session(t, js, name)
		begun(t, s, keyset)
		bucket(t, s, "gateway_workspaces")
		dir, m := save(t, s)
		for _, one := range m.Streams {
			if bare, own := name.BareStream(one.Name); !own || strings.Count(bare, "gateway") > 1 || name == "" && strings.Contains(bare, "acme") {
				t.Errorf("%q saved %s", name, one.Name)
			}
		}
		if err := restore(t.Context(), s, dir, keyset, false); err == nil || !strings.Contains(err.Error(), "a restore overwrites nothing") {
			t.Errorf("over %q: %v", name, err)
		}
		if err := restore(t.Context(), s, dir, keyset, true); err == nil || !strings.Contains(err.Error(), "a restore overwrites nothing") {
			t.Errorf("over %q, although nothing was interrupted: %v", name, err)
		}
	}
}

// No process starts on half of a backup, and a restore begins anew when it is told to.
func TestRestore_interrupted(t *testing.T) {
	t.Parallel()
	keyset, s := testkit.Keyset(t), session(t, testkit.JS(t), "")
	begun(t, s, keyset)
	bucket(t, s, "gateway_workspaces")
	dir, _ := save(t, s)
	to := session(t, testkit.JS(t), "")
	r, err := backup.Verify(dir, "", seal.Shared(keyset, allinone.Sealers()...), quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, die := context.WithCancel(t.Context())
	_, err = r.Run(ctx, to, func(which, _ int, _ string, _ uint64) {
		if which == 2 {
			die()
		}
	})
	if err == nil {
		t.Fatal("it was not interrupted")
	}
	_, err = installation.Open(t.Context(), installation.Config{JS: to, Redis: testkit.Redis(t).Client(), Keysets: seal.Shared(keyset, allinone.Sealers()...), Logger: logs.Discard()})
	if !errors.Is(err, installation.ErrRestoring) {
		t.Errorf("a start on half of it: %v", err)
	}
	if err := restore(t.Context(), to, dir, keyset, false); err == nil || !strings.Contains(err.Error(), "--again") {
		t.Errorf("once more: %v", err)
	}
	if err := restore(t.Context(), to, dir, keyset, true); err != nil {
		t.Fatal(err)
	}
	begun(t, to, keyset)
}

var inTable = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")

// Every stream and bucket that there is has its place in the order, and none is named that is not.
func TestStreams_areAllOfTheReference(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join("..", "..", "REFERENCE.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(raw), "\n## Buckets\n")
	buckets, rest, _ := strings.Cut(text, "\n## Streams\n")
	streams, _, _ := strings.Cut(rest, "\n## ")
	var want []string
	for _, m := range inTable.FindAllStringSubmatch(buckets, -1) {
		want = append(want, kv.StreamName(m[1]))
	}
	for _, m := range inTable.FindAllStringSubmatch(streams, -1) {
		want = append(want, m[1])
	}
	got := append(backup.Streams(), backup.Passing()...)
	slices.Sort(want)
	slices.Sort(got)
	if len(want) < 40 || !slices.Equal(got, want) {
		t.Errorf("a backup knows\n%v\nand there are\n%v", got, want)
	}
}

// A backup of a cluster comes back on one server and the other way round, with the replicas that there can be.
func TestRestore_onAnotherNumberOfServers(t *testing.T) {
	t.Parallel()
	keyset := testkit.Keyset(t)
	_, three := testkit.Cluster(t, 3, 8<<30).Connect()
	_, again := testkit.Cluster(t, 3, 8<<30).Connect()
	sources := map[int]*kv.Session{3: session(t, three, "acme"), 1: session(t, testkit.JS(t), "acme")}
	targets := map[int]*kv.Session{3: session(t, testkit.JS(t), "acme"), 1: session(t, again, "acme")}
	for servers, from := range sources {
		to, replicas := targets[servers], 4-servers
		begun(t, from, keyset)
		b := bucket(t, from, "gateway_workspaces")
		rev, err := b.Create(t.Context(), "one", wrapperspb.String("value"))
		if err != nil {
			t.Fatal(err)
		}
		dir, _ := save(t, from)
		if err := restore(t.Context(), to, dir, keyset, false); err != nil {
			t.Fatalf("from %d servers: %v", servers, err)
		}
		s, err := to.Stream(t.Context(), "KV_acme_gateway_workspaces")
		if err != nil || s.CachedInfo().Config.Replicas != replicas {
			t.Errorf("from %d servers: %d replicas, not %d, %v", servers, s.CachedInfo().Config.Replicas, replicas, err)
		}
		if v, got, err := bucket(t, to, "gateway_workspaces").Get(t.Context(), "one"); err != nil || got != rev || v.GetValue() != "value" {
			t.Errorf("from %d servers: %v at %d, %v", servers, v, got, err)
		}
	}
}
