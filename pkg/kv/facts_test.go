package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
)

func streamConfig(t *testing.T, js jetstream.JetStream, bucket string) jetstream.StreamConfig {
	t.Helper()
	s, err := js.Stream(t.Context(), kv.StreamName(bucket))
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().Config
}

// DESIGN.md#jetstream: buckets allow direct gets by default, and then reads right after an
// acknowledged write may be old.
func TestFact_bucketsNeverAllowDirectGets(t *testing.T) {
	s := testkit.NATS(t)
	js := s.JS()
	for _, cfg := range []kv.Config{{Name: "plain"}, {Name: "erase", SecureErase: true}, {Name: "ttl", TTL: true}, {Name: "bounded", MaxBytes: 1 << 20}} {
		openStrings(t, s, cfg)
		if c := streamConfig(t, js, cfg.Name); c.AllowDirect || c.MirrorDirect {
			t.Errorf("%s allows direct gets", cfg.Name)
		}
		turnDirectOn(t, js, cfg.Name)
		openStrings(t, s, cfg)
		if c := streamConfig(t, js, cfg.Name); c.AllowDirect {
			t.Errorf("%s allows direct gets after it was opened again", cfg.Name)
		}
	}
}

// turnDirectOn does to a bucket what nats.go's CreateOrUpdateKeyValue does.
func turnDirectOn(t *testing.T, js jetstream.JetStream, bucket string) {
	t.Helper()
	cfg := streamConfig(t, js, bucket)
	cfg.AllowDirect = true
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

func TestFact_createOrUpdateKeyValueTurnsDirectGetsOn(t *testing.T) {
	s := testkit.NATS(t)
	js := s.JS()
	openStrings(t, s, kv.Config{Name: "b"})
	if _, err := js.CreateOrUpdateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "b", History: 1, LimitMarkerTTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if !streamConfig(t, js, "b").AllowDirect {
		t.Fatal("it leaves them off: buckets need not be made by our own hand any more")
	}
}

// A bucket handle asks the leader even when somebody turned direct gets on behind its back.
func TestFact_anOpenBucketGoesOnAskingTheLeader(t *testing.T) {
	s := testkit.NATS(t)
	nc, js := s.Connect()
	b := openStrings(t, s, kv.Config{Name: "b"})
	if _, err := b.Create(t.Context(), "k", str("x")); err != nil {
		t.Fatal(err)
	}
	turnDirectOn(t, js, "b")
	direct, err := nc.SubscribeSync("$JS.API.DIRECT.GET.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Get(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, err := direct.Pending(); err != nil || n != 0 {
		t.Fatalf("%d direct gets, %v", n, err)
	}
}

// No request walks a bucket: a get is one question, a write one message, whatever the bucket holds.
func TestFact_noRequestWalksABucket(t *testing.T) {
	s := testkit.NATS(t)
	nc, _ := s.Connect()
	b := openStrings(t, s, kv.Config{Name: "b"})
	for i := range 100 {
		if _, err := b.Create(t.Context(), fmt.Sprintf("other.%d", i), str("x")); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	var asked []string
	sub, err := nc.Subscribe("$JS.API.>", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, m.Subject)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	rev, err := b.Create(t.Context(), "k", str("1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.CompareAndSet(t.Context(), "k", str("2"), rev); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Update(t.Context(), "k", func(*wrapperspb.StringValue) (*wrapperspb.StringValue, error) { return str("3"), nil }); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Get(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), "k", 0); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := sub.Drain(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 5*time.Second, func() error {
		if sub.IsValid() {
			return errors.New("still draining")
		}
		return nil
	})
	mu.Lock()
	defer mu.Unlock()
	// One get each for Get and Delete; Create and CompareAndSet need none, and Update none of what was written here.
	if len(asked) != 2 {
		t.Errorf("%d API calls: %v", len(asked), asked)
	}
	for _, subject := range asked {
		if subject != "$JS.API.STREAM.MSG.GET.KV_b" {
			t.Errorf("asked %s", subject)
		}
	}
}

// onDisk counts the files under dir that hold the bytes.
func onDisk(t *testing.T, dir string, what string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if bytes.Contains(data, []byte(what)) {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Replaced and deleted values stay in the block files, unless they are erased.
func TestFact_replacedValuesStayOnDiskUnlessErased(t *testing.T) {
	for _, erase := range []bool{false, true} {
		t.Run(fmt.Sprintf("erase=%v", erase), func(t *testing.T) {
			s := testkit.NATS(t)
			b := openStrings(t, s, kv.Config{Name: "b", SecureErase: erase})
			const first, second, third = "first-refresh-token", "second-refresh-token", "third-refresh-token"
			rev, err := b.Create(t.Context(), "k", str(first))
			if err != nil {
				t.Fatal(err)
			}
			if len(onDisk(t, s.StoreDir(), first)) == 0 {
				t.Fatal("the value is not where this test looks for it")
			}
			if erase {
				_, err = b.CompareAndSetErasing(t.Context(), "k", str(second), rev)
			} else {
				_, err = b.CompareAndSet(t.Context(), "k", str(second), rev)
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err = b.Update(t.Context(), "k", func(*wrapperspb.StringValue) (*wrapperspb.StringValue, error) { return str(third), nil }); err != nil {
				t.Fatal(err)
			}
			if err := b.Delete(t.Context(), "k", 0); err != nil {
				t.Fatal(err)
			}
			s.Restart() // everything that was in the server's memory is in the files now
			for _, token := range []string{first, second, third} {
				found := onDisk(t, s.StoreDir(), token)
				if erase && len(found) > 0 {
					t.Errorf("%s is still in %v", token, found)
				}
				if !erase && len(found) == 0 {
					t.Errorf("%s is gone without being erased: SecureErase is not needed any more", token)
				}
			}
		})
	}
}

func TestErase_leavesNothing(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "b", SecureErase: true})
	if err := b.Erase(t.Context(), "k"); err != nil {
		t.Fatalf("erase of nothing: %v", err)
	}
	if _, err := b.Create(t.Context(), "k", str("planted-token")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create(t.Context(), "k2", str("other-value")); err != nil {
		t.Fatal(err)
	}
	if err := b.Erase(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Get(t.Context(), "k"); !errors.Is(err, kv.ErrNotFound) {
		t.Fatalf("get: %v", err)
	}
	if v, _, err := b.Get(t.Context(), "k2"); err != nil || v.GetValue() != "other-value" {
		t.Fatalf("the neighbour was erased too: %v, %v", v, err)
	}
	s.Restart()
	if found := onDisk(t, s.StoreDir(), "planted-token"); len(found) > 0 {
		t.Fatalf("still in %v", found)
	}
	testkit.Eventually(t, 10*time.Second, func() error {
		if err := b.Erase(t.Context(), "k"); err != nil {
			return fmt.Errorf("second erase: %w", err)
		}
		_, err := b.Create(t.Context(), "k", str("reconnected"))
		return err
	})
}

// A process may die between a write and its erase: the next Open finishes the work.
func TestOpen_erasesWhatADeadProcessLeft(t *testing.T) {
	s := testkit.NATS(t)
	js := s.JS()
	cfg := kv.Config{Name: "b", SecureErase: true}
	openStrings(t, s, cfg)
	for _, v := range []string{"left-over-1", "left-over-2", "newest"} {
		if _, err := js.Publish(t.Context(), "$KV.b.k", append([]byte{10, byte(len(v))}, v...)); err != nil {
			t.Fatal(err)
		}
	}
	b := openStrings(t, s, cfg)
	if v, _, err := b.Get(t.Context(), "k"); err != nil || v.GetValue() != "newest" {
		t.Fatalf("%v, %v", v, err)
	}
	for _, v := range []string{"left-over-1", "left-over-2"} {
		if found := onDisk(t, s.StoreDir(), v); len(found) > 0 {
			t.Errorf("%s is still in %v", v, found)
		}
	}
	if len(onDisk(t, s.StoreDir(), "newest")) == 0 {
		t.Error("the live value is gone")
	}
}

func TestErase_needsABucketThatErases(t *testing.T) {
	b := openStrings(t, testkit.NATS(t), kv.Config{Name: "b"})
	if err := b.Erase(t.Context(), "k"); err == nil {
		t.Error("erased in a bucket that cannot")
	}
	if _, err := b.CompareAndSetErasing(t.Context(), "k", str("x"), 0); err == nil {
		t.Error("erased in a bucket that cannot")
	}
}

// A key's TTL can be set only at Create, and an update removes it: such buckets refuse updates.
func TestFact_anUpdateRemovesAKeysTTL(t *testing.T) {
	s := testkit.NATS(t)
	js := s.JS()
	b := openStrings(t, s, kv.Config{Name: "b", TTL: true})
	rev, err := b.Create(t.Context(), "updated", str("x"), kv.TTL(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create(t.Context(), "kept", str("x"), kv.TTL(time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.CompareAndSet(t.Context(), "kept", str("y"), rev+1); !errors.Is(err, kv.ErrCreateOnly) {
		t.Fatalf("update: %v", err)
	}
	if _, _, err := b.Update(t.Context(), "kept", func(c *wrapperspb.StringValue) (*wrapperspb.StringValue, error) { return c, nil }); !errors.Is(err, kv.ErrCreateOnly) {
		t.Fatalf("update: %v", err)
	}
	// What an update would do.
	raw, err := js.KeyValue(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Update(t.Context(), "updated", []byte("y"), rev); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 10*time.Second, func() error {
		if _, _, err := b.Get(t.Context(), "kept"); !errors.Is(err, kv.ErrNotFound) {
			return fmt.Errorf("the key that was left alone has not expired: %w", err)
		}
		return nil
	})
	if _, err := raw.Get(t.Context(), "updated"); err != nil {
		t.Fatalf("an updated key keeps its TTL now: %v", err)
	}
	if _, err := b.Create(t.Context(), "kept", str("again"), kv.TTL(time.Minute)); err != nil {
		t.Fatalf("create after expiry: %v", err)
	}
	if err := b.Delete(t.Context(), "kept", 0); err != nil {
		t.Fatal(err)
	}
}

func TestTTL_needsABucketOfItsKind(t *testing.T) {
	s := testkit.NATS(t)
	if _, err := openStrings(t, s, kv.Config{Name: "b"}).Create(t.Context(), "k", str("x"), kv.TTL(time.Minute)); err == nil {
		t.Error("a bucket without TTL took one")
	}
	if _, err := openStrings(t, s, kv.Config{Name: "ttl", TTL: true}).Create(t.Context(), "k", str("x"), kv.TTL(time.Millisecond)); err == nil {
		t.Error("took a TTL below a second, which the server cannot keep")
	}
}

// Keys take [A-Za-z0-9_-/=.] only.
func TestFact_theAlphabetOfKeys(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "b"})
	for _, key := range []string{"a", "a.b", "A_-/=x", "ws.feature/login", "0"} {
		if _, err := b.Create(t.Context(), key, str("x")); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
	for _, key := range []string{"", ".", "a..b", ".a", "a.", "a b", "a*b", "a>b", "*", ">", "ä", "a:b", "a@b", "a%2Fb", "{85d0}", "a+b", "$a", `a"b`, "a\nb", strings.Repeat("a", 3000)} {
		if _, err := b.Create(t.Context(), key, str("x")); !errors.Is(err, kv.ErrBadKey) {
			t.Errorf("%q: %v", key, err)
		}
		if _, _, err := b.Get(t.Context(), key); !errors.Is(err, kv.ErrBadKey) {
			t.Errorf("get %q: %v", key, err)
		}
		if err := b.Delete(t.Context(), key, 0); !errors.Is(err, kv.ErrBadKey) {
			t.Errorf("delete %q: %v", key, err)
		}
	}
}

// An older replica's settings never overwrite newer ones, for buckets as for streams.
func TestFact_olderReplicaLeavesABucketsSettingsAlone(t *testing.T) {
	s := testkit.NATS(t)
	js := s.JS()
	openStrings(t, s, kv.Config{Name: "b", Version: 2, MaxBytes: 2 << 20})
	old := openStrings(t, s, kv.Config{Name: "b", Version: 1, MaxBytes: 1 << 20})
	if got := streamConfig(t, js, "b").MaxBytes; got != 2<<20 {
		t.Fatalf("MaxBytes %d", got)
	}
	if _, err := old.Create(t.Context(), "k", str("x")); err != nil {
		t.Fatalf("the older replica cannot work: %v", err)
	}
}

// A bucket at its limit refuses; it does not forget.
func TestBucket_fullRefusesWrites(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "b", MaxBytes: 64 << 10})
	if _, err := b.Create(t.Context(), "first", str("kept")); err != nil {
		t.Fatal(err)
	}
	var err error
	for i := range 100 {
		if _, err = b.Create(t.Context(), fmt.Sprintf("k%d", i), str(strings.Repeat("x", 4<<10))); err != nil {
			break
		}
	}
	if !errors.Is(err, kv.ErrUnavailable) || !errors.Is(err, stream.ErrTemporary) {
		t.Fatalf("full bucket: %v", err)
	}
	if _, _, err := b.Get(t.Context(), "first"); err != nil {
		t.Fatalf("the oldest record: %v", err)
	}
}

func TestBucket_valueTooLarge(t *testing.T) {
	b := openStrings(t, testkit.NATS(t), kv.Config{Name: "b"})
	if _, err := b.Create(t.Context(), "k", str(strings.Repeat("x", 9<<20))); !errors.Is(err, kv.ErrTooLarge) || errors.Is(err, kv.ErrUnavailable) {
		t.Fatalf("%.200v", err)
	}
	// Tokens of thousands of characters are normal, and a large record comes back whole.
	large := strings.Repeat("token", 200_000)
	if _, err := b.Create(t.Context(), "large", str(large)); err != nil {
		t.Fatal(err)
	}
	if v, _, err := b.Get(t.Context(), "large"); err != nil || v.GetValue() != large {
		t.Fatalf("%d bytes, %v", len(v.GetValue()), err)
	}
}
