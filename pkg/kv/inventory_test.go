package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
)

var counted = kv.Config{Name: "apps", Inventory: "test"}

func reopen(t *testing.T, s *testkit.NATSServer) (*stringBucket, error) {
	t.Helper()
	return kv.Open[wrapperspb.StringValue](t.Context(), s.JS(), counted)
}

// listed waits until the inventory has n live keys.
func listed(t *testing.T, s *testkit.NATSServer, n int) {
	t.Helper()
	testkit.Eventually(t, 20*time.Second, func() error {
		got, err := kv.InventoryKeys(t.Context(), s.JS(), counted)
		if err == nil && len(got) != n {
			err = fmt.Errorf("%d keys listed, not %d", len(got), n)
		}
		return err
	})
}

// blocks are the files that hold the bucket's messages.
func blocks(t *testing.T, s *testkit.NATSServer, bucket string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.StoreDir(), "$G", "streams", kv.StreamName(bucket), "msgs", "*.blk"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no blocks of %s: %v", bucket, err)
	}
	return found
}

// flip turns six bytes of a file over, at a share of its length.
func flip(t *testing.T, path string, share float64) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := int(share * float64(len(data)-6))
	for i := range 6 {
		data[at+i] ^= 0xff
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestInventory_damagedFilesAreMissedAtStart(t *testing.T) {
	t.Parallel()
	damages := map[string]func(t *testing.T, s *testkit.NATSServer){
		"the stream's directory is gone": func(t *testing.T, s *testkit.NATSServer) {
			if err := os.RemoveAll(filepath.Join(s.StoreDir(), "$G", "streams", kv.StreamName(counted.Name))); err != nil {
				t.Fatal(err)
			}
		},
		"its messages are gone": func(t *testing.T, s *testkit.NATSServer) {
			for _, b := range blocks(t, s, counted.Name) {
				if err := os.Remove(b); err != nil {
					t.Fatal(err)
				}
			}
		},
		"the file was cut short": func(t *testing.T, s *testkit.NATSServer) {
			b := blocks(t, s, counted.Name)[0]
			info, err := os.Stat(b)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(b, info.Size()/2); err != nil {
				t.Fatal(err)
			}
		},
	}
	for _, share := range []float64{0, 0.25, 0.5, 0.9, 1} {
		damages[fmt.Sprintf("six bytes flipped at %v of a file", share)] = func(t *testing.T, s *testkit.NATSServer) {
			flip(t, blocks(t, s, counted.Name)[0], share)
		}
	}
	for name, damage := range damages {
		for _, index := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, index %v", name, index), func(t *testing.T) {
				t.Parallel()
				s := testkit.NATS(t)
				b, err := reopen(t, s)
				if err != nil {
					t.Fatal(err)
				}
				for i := range 12 {
					if _, err := b.Create(t.Context(), fmt.Sprintf("acme.app%d", i), str(strings.Repeat("x", 300))); err != nil {
						t.Fatal(err)
					}
				}
				listed(t, s, 12)
				s.Stop()
				if !index { // as after a kill: the server reads all of its files
					dropIndex(t, s)
				}
				damage(t, s)
				s.Start()
				_, err = reopen(t, s)
				var loss *kv.LossError
				if !errors.As(err, &loss) {
					t.Fatalf("opened: %v", err)
				}
				if loss.Bucket != "apps" || loss.Known != 12 || loss.Lost < 1 || loss.Lost > 12 || !strings.Contains(loss.Error(), "devpilot accept-loss apps") {
					t.Fatalf("%+v", loss)
				}
				if !errors.Is(err, stream.ErrTemporary) || apierr.From(kv.ToAPI(err)).Reason() != apierr.ReasonStorageUnavailable {
					t.Fatalf("the loss looks to callers like %v", kv.ToAPI(err))
				}
				lost := loss.Lost
				if n, err := kv.AcceptLoss(t.Context(), s.JS(), "apps"); err != nil || n != lost {
					t.Fatalf("accepted %d of %d: %v", n, lost, err)
				}
				if _, err := reopen(t, s); err != nil {
					t.Fatalf("after the loss was accepted: %v", err)
				}
			})
		}
	}
}

// A damaged file gives an older value back where it still holds one. The newest revisions are in the
// inventory when a process has stopped, however soon after they were written.
func TestFlush_anOlderValueThatCameBackIsALoss(t *testing.T) {
	t.Parallel()
	for _, index := range []bool{true, false} {
		t.Run(fmt.Sprintf("index %v", index), func(t *testing.T) {
			t.Parallel()
			s := testkit.NATS(t)
			nc, js, err := stream.Connect(s.URL(), "writer")
			if err != nil {
				t.Fatal(err)
			}
			session := kv.NewSession(js, stream.Settings{})
			b, err := kv.Open[wrapperspb.StringValue](t.Context(), session, counted)
			if err != nil {
				t.Fatal(err)
			}
			var rev uint64
			for _, value := range []string{"one", "two", "three"} {
				if rev, err = b.CompareAndSet(t.Context(), "acme.web", str(strings.Repeat(value, 100)), rev); err != nil {
					t.Fatal(err)
				}
			}
			if err := session.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			nc.Close()
			s.Stop()
			if !index {
				dropIndex(t, s)
			}
			file := blocks(t, s, counted.Name)[0]
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			flip(t, file, float64(bytes.LastIndex(data, []byte("three")))/float64(len(data)-6))
			s.Start()
			_, err = reopen(t, s)
			var loss *kv.LossError
			if !errors.As(err, &loss) || loss.Lost != 1 {
				t.Fatalf("opened: %v", err)
			}
		})
	}
}

func dropIndex(t *testing.T, s *testkit.NATSServer) {
	t.Helper()
	err := filepath.WalkDir(s.StoreDir(), func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "index.db" {
			err = os.Remove(p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A message that vanishes under a running server is a loss, not a record that never was; and
// nothing is written in its place.
func TestInventory_aLossWhileRunningIsNoAbsence(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	b, err := reopen(t, s)
	if err != nil {
		t.Fatal(err)
	}
	rev, err := b.Create(t.Context(), "acme.web", str("one"))
	if err != nil {
		t.Fatal(err)
	}
	listed(t, s, 1)
	st, err := s.JS().Stream(t.Context(), b.StreamName())
	if err != nil {
		t.Fatal(err)
	}
	cfg := st.CachedInfo().Config
	if cfg.DenyDelete {
		t.Log("messages of the bucket cannot be deleted by API: the stream is purged instead")
	}
	if err := st.Purge(t.Context()); err != nil {
		t.Fatalf("lose revision %d: %v", rev, err)
	}
	if err := b.Intact(); err != nil {
		t.Fatalf("before anybody looked: %v", err)
	}
	for what, err := range map[string]error{
		"get":    second(b.Get(t.Context(), "acme.web")),
		"create": only(b.Create(t.Context(), "acme.web", str("two"))),
		"set":    only(b.CompareAndSet(t.Context(), "acme.web", str("two"), 0)),
		"delete": b.Delete(t.Context(), "acme.web", 0),
		"update": second(b.Update(t.Context(), "acme.web", func(cur *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
			if cur == nil { // it may be made of what this process wrote, which the store then refuses
				t.Error("an update was made of nothing")
			}
			return cur, nil
		})),
	} {
		if !errors.Is(err, kv.ErrLost) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, _, err := b.Get(t.Context(), "acme.other"); !errors.Is(err, kv.ErrNotFound) {
		t.Errorf("what never was: %v", err)
	}
	if err := b.Intact(); !errors.Is(err, kv.ErrLost) {
		t.Errorf("after the loss was met: %v", err)
	}
}

func only[A any](_ A, err error) error           { return err }
func second[A, B any](_ A, _ B, err error) error { return err }

// What people delete is no loss, whoever deletes it and however soon all stops.
func TestInventory_deletedAndChangedIsNoLoss(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	one, err := reopen(t, s)
	if err != nil {
		t.Fatal(err)
	}
	other, err := reopen(t, s)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		key := fmt.Sprintf("acme.app%d", i)
		if _, err := one.Create(t.Context(), key, str("1")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := other.Update(t.Context(), key, func(v *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
			return str(v.GetValue() + "2"), nil
		}); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := other.Delete(t.Context(), key, 0); err != nil {
				t.Fatal(err)
			}
			if _, _, err := one.Get(t.Context(), key); !errors.Is(err, kv.ErrNotFound) {
				t.Fatalf("deleted by another process: %v", err)
			}
		}
		if i%4 == 0 {
			if _, err := one.Create(t.Context(), key, str("again")); err != nil {
				t.Fatal(err)
			}
		}
	}
	listed(t, s, 8)
	s.Restart()
	b, err := reopen(t, s)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range b.Keys(t.Context(), ">") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 8 || b.Intact() != nil {
		t.Fatalf("%d keys, %v", n, b.Intact())
	}
}

// A bucket from before its inventory is taken as it is, and is guarded from then on.
func TestInventory_ofABucketThatIsOlder(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	old := openStrings(t, s, kv.Config{Name: counted.Name})
	for i := range 5 {
		if _, err := old.Create(t.Context(), fmt.Sprintf("acme.app%d", i), str("1")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := reopen(t, s); err != nil {
		t.Fatal(err)
	}
	listed(t, s, 5)
	s.Stop()
	flip(t, blocks(t, s, counted.Name)[0], 0.3)
	s.Start()
	if _, err := reopen(t, s); !errors.Is(err, kv.ErrLost) {
		t.Fatalf("opened: %v", err)
	}
}

// Damage to the inventory itself stops nobody: it is filled again from the bucket.
func TestInventory_damagedItself(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	b, err := reopen(t, s)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if _, err := b.Create(t.Context(), fmt.Sprintf("acme.app%d", i), str("1")); err != nil {
			t.Fatal(err)
		}
	}
	listed(t, s, 5)
	s.Stop()
	flip(t, blocks(t, s, counted.Inventory+"-inventory")[0], 0.1)
	s.Start()
	if _, err := reopen(t, s); err != nil {
		t.Fatal(err)
	}
	listed(t, s, 5)
}

// inventoryWrites is how often the inventory was written so far.
func inventoryWrites(t *testing.T, s *testkit.NATSServer) uint64 {
	t.Helper()
	st, err := s.JS().Stream(t.Context(), kv.StreamName("test-inventory"))
	if err != nil {
		t.Fatal(err)
	}
	return st.CachedInfo().State.LastSeq
}

// TestInventory_keysOfAMomentAreOneWrite: how many records the inventory is spread over does not make many
// keys that are new cost as many writes, and where they are noted first they are missed like anywhere.
func TestInventory_keysOfAMomentAreOneWrite(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	b, err := reopen(t, s)
	if err != nil {
		t.Fatal(err)
	}
	const keys = 1000
	before, began := inventoryWrites(t, s), time.Now()
	var creators errgroup.Group
	for from := range 10 {
		creators.Go(func() error {
			for i := range keys / 10 {
				if _, err := b.Create(t.Context(), fmt.Sprint("k", from, "-", i), str("v")); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := creators.Wait(); err != nil {
		t.Fatal(err)
	}
	listed(t, s, keys)
	// One for each moment, and one for each of the 64 records whenever 512 keys are moved there.
	most := uint64(time.Since(began)/(500*time.Millisecond)) + 1 + (keys/512+1)*(64+1)
	if n := inventoryWrites(t, s) - before; n > most {
		t.Errorf("%d writes for %d keys, want %d at most", n, keys, most)
	}

	// A key that is deleted is named by no record any more, the latest of all too.
	for _, key := range []string{"k0-0", "k9-99"} {
		if err := b.Delete(t.Context(), key, 0); err != nil {
			t.Fatal(err)
		}
	}
	listed(t, s, keys-2)
	if _, err := reopen(t, s); err != nil {
		t.Errorf("after the deletions: %v", err)
	}
}
