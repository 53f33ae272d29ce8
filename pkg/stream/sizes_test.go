package stream_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"devpilot.io/bitbucket/pkg/engine"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
)

// sized is a process that opens streams with its own idea of what they take together.
type sized struct {
	js   jetstream.JetStream
	logs *testkit.Logs
}

func newSized(t *testing.T, js jetstream.JetStream, mib int64, name stream.Installation) *sized {
	t.Helper()
	replication, err := stream.NewReplication(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return &sized{kv.NewSession(js, stream.Settings{Installation: name, Bytes: mib << 20, Replication: replication}), testkit.Logger(t)}
}

// open makes all streams that have a share, or those that are named.
func (p *sized) open(t *testing.T, only ...string) error {
	for _, s := range stream.Shares() {
		if len(only) > 0 && !slices.Contains(only, s.Stream) {
			continue
		}
		def := stream.Limits(s.Stream, "", strings.ToLower(s.Stream), 0)
		if _, err := stream.Ensure(t.Context(), p.js, def, stream.Options{Logger: p.logs.Logger}); err != nil {
			return err
		}
	}
	return nil
}

func (p *sized) warnings() int {
	return strings.Count(p.logs.Text(), "is larger than the DEVPILOT_STREAMS_MIB")
}

// mib is how much a stream may take, in MiB.
func mib(t *testing.T, js jetstream.JetStream, name string) int64 {
	t.Helper()
	s, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().Config.MaxBytes >> 20
}

// nothingStays fails when a stream is left that has no share.
func nothingStays(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	list := js.StreamNames(t.Context())
	for name := range list.Name() {
		if !strings.HasPrefix(name, "DEVPILOT_") {
			t.Errorf("%s stays", name)
		}
	}
	if list.Err() != nil {
		t.Error(list.Err())
	}
}

func store(t *testing.T, mib int64) jetstream.JetStream {
	t.Helper()
	return testkit.NATSWith(t, engine.NATSConfig{MaxStore: mib << 20, CanaryInterval: -1}).JS()
}

func TestShares_areAllOfOne(t *testing.T) {
	var bytes int64
	for _, s := range stream.Shares() {
		bytes += s.Of
		if s.Why == "" {
			t.Errorf("%s has no reason", s.Stream)
		}
	}
	if bytes != 32 {
		t.Errorf("the shares are %d of 32", bytes)
	}
}

// A store that cannot hold the whole is one sentence with what is needed and what is there, whoever makes
// the stream that does not fit, and for good.
func TestEnsure_aStoreThatIsTooSmallIsRefusedWithNumbers(t *testing.T) {
	js := store(t, 2048)
	err := newSized(t, js, 0, "").open(t)
	if !errors.Is(err, stream.ErrNoRoom) || !errors.Is(err, stream.ErrPermanent) {
		t.Fatalf("the default in 2 GiB: %v", err)
	}
	for _, part := range []string{"needs 4352 MiB, 4096 for its streams (DEVPILOT_STREAMS_MIB) and 256 for records, and the store has 2048 MiB", "give NATS a larger store", "to 1792 or less"} {
		if strings.Count(err.Error(), part) != 1 {
			t.Errorf("%q is not once in: %v", part, err)
		}
	}
	nothingStays(t, js)
	if err := newSized(t, js, 1792, "").open(t); err != nil {
		t.Fatalf("a setting that fits: %v", err)
	}
	for name, want := range map[string]int64{stream.LogsStream: 1792 / 2, stream.InboxStream: 1792 / 4, stream.EventsStream: 1792 / 32} {
		if got := mib(t, js, name); got != want {
			t.Errorf("%s has %d MiB, want %d", name, got, want)
		}
	}
	err = newSized(t, js, 4096, "").open(t)
	if !errors.Is(err, stream.ErrPermanent) || !strings.Contains(err.Error(), "needs 4352 MiB, 4096 for its streams (DEVPILOT_STREAMS_MIB) and 256 for records, and the store has 2048 MiB") {
		t.Fatalf("raised beyond the store: %v", err)
	}
	if got := mib(t, js, stream.LogsStream); got != 896 {
		t.Errorf("a raise that was refused left %d MiB", got)
	}
	if err := newSized(t, js, 1792, "").open(t); err != nil {
		t.Fatalf("streams that are there need no room: %v", err)
	}
}

// A larger setting raises what is there, also what was made small by hand or by an older version; a
// smaller one lowers nothing and says so, once.
func TestEnsure_sizesAreRaisedAndNeverLowered(t *testing.T) {
	js := store(t, 8192)
	if err := newSized(t, js, 1024, "").open(t); err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), stream.LogsStream)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.MaxBytes = 16 << 20
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	more := newSized(t, js, 4096, "")
	if err := more.open(t); err != nil || more.warnings() != 0 {
		t.Fatalf("raise: %v, %d warnings", err, more.warnings())
	}
	for name, want := range map[string]int64{stream.LogsStream: 2048, stream.InboxStream: 1024, stream.PushesStream: 512, stream.WorkStream: 128} {
		if got := mib(t, js, name); got != want {
			t.Errorf("%s has %d MiB, want %d", name, got, want)
		}
	}
	less := newSized(t, js, 512, "")
	if err := less.open(t); err != nil || less.warnings() != 1 {
		t.Fatalf("a smaller setting: %v, %d warnings of it", err, less.warnings())
	}
	if got := mib(t, js, stream.LogsStream); got != 2048 {
		t.Errorf("a smaller setting left %d MiB", got)
	}
	fit, err := stream.Measure(t.Context(), less.js)
	if err != nil || fit.Needs() != 4352<<20 || fit.Missing != 0 || fit.Has() != fit.Needs() || len(fit.Larger) != len(stream.Shares()) {
		t.Errorf("%+v, %v", fit, err)
	}
	nothingStays(t, js)
}

// Services that start together with different numbers end at the larger, whoever was first, and each that
// had another one says so.
func TestEnsure_servicesThatDisagreeGetTheLarger(t *testing.T) {
	js := store(t, 8192)
	a, b := newSized(t, js, 1024, ""), newSized(t, js, 2048, "")
	var wg sync.WaitGroup
	for _, p := range []*sized{a, b} {
		wg.Go(func() {
			if err := p.open(t); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, s := range stream.Shares() {
		if got, want := mib(t, js, s.Stream), 2048/32*s.Of; got != want {
			t.Errorf("%s has %d MiB, want %d", s.Stream, got, want)
		}
	}
	again := newSized(t, js, 1024, "")
	if err := again.open(t); err != nil || again.warnings() != 1 || b.warnings() != 0 {
		t.Errorf("%v, %d and %d warnings", err, again.warnings(), b.warnings())
	}
}

// Processes that start and measure at once are not in each other's way, also where it just fits. Another
// installation on the same store gets what is left.
func TestEnsure_manyAtOnceWhereItJustFits(t *testing.T) {
	js := store(t, 1024+256)
	var wg sync.WaitGroup
	for range 3 {
		p := newSized(t, js, 1024, "one")
		for _, s := range stream.Shares() {
			wg.Go(func() {
				if err := p.open(t, s.Stream); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			if _, err := stream.Measure(t.Context(), p.js); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	err := newSized(t, js, 320, "two").open(t)
	if err == nil || !strings.Contains(err.Error(), "needs 576 MiB, 320 for its streams (DEVPILOT_STREAMS_MIB) and 256 for records, and the store has 256 MiB") {
		t.Errorf("another one: %v", err)
	}
}

// What a process left behind that died while it measured is in nobody's way for long.
func TestMeasure_forgetsWhatWasLeftBehind(t *testing.T) {
	t.Parallel()
	js := store(t, 1024+256)
	left := jetstream.StreamConfig{Name: "ROOM_left", Subjects: []string{"devpilot.room.v1.left"}, MaxBytes: 1024 << 20}
	if _, err := js.CreateStream(t.Context(), left); err != nil {
		t.Fatal(err)
	}
	if err := newSized(t, js, 1024, "").open(t); err != nil {
		t.Error(err)
	}
	nothingStays(t, js)
}

// A start that failed leaves no stream that is too large for the setting that fits; one that holds
// something is left as it is.
func TestEnsure_emptyStreamsOfAFailedStartAreMadeSmaller(t *testing.T) {
	for name, used := range map[string]bool{"empty": false, "used": true} {
		js := store(t, 2048)
		if err := newSized(t, js, 3008, "").open(t); !errors.Is(err, stream.ErrNoRoom) || mib(t, js, stream.LogsStream) != 1504 {
			t.Fatalf("%s: %v", name, err)
		}
		if used {
			if _, err := js.Publish(t.Context(), strings.ToLower(stream.LogsStream), []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		err, want := newSized(t, js, 1728, "").open(t), int64(864)
		if used {
			want = 1504
		}
		if got := mib(t, js, stream.LogsStream); got != want || errors.Is(err, stream.ErrNoRoom) != used {
			t.Errorf("%s: %v, logs of %d MiB", name, err, got)
		}
	}
}

// Buckets have no share, and keep what they are opened with.
func TestEnsure_bucketsHaveNoShare(t *testing.T) {
	js := store(t, 1024)
	def := stream.Definition{Version: 1, Config: jetstream.StreamConfig{Name: "KV_b", Subjects: []string{"$KV.b.>"}, MaxBytes: -1}}
	s, err := stream.Ensure(t.Context(), newSized(t, js, 512, "").js, def, stream.Options{})
	if err != nil || s.CachedInfo().Config.MaxBytes != -1 {
		t.Errorf("%v, %v", s, err)
	}
	def = stream.Definition{Version: 1, Config: jetstream.StreamConfig{Name: "large", Subjects: []string{"large"}, MaxBytes: 2 << 30}}
	if _, err := stream.Ensure(t.Context(), newSized(t, js, 512, "").js, def, stream.Options{}); !errors.Is(err, stream.ErrNoRoom) || !strings.Contains(err.Error(), "no room for the stream large of 2048 MiB") {
		t.Errorf("one without a share that is too large: %v", err)
	}
}
