package sealed_test

import (
	"context"
	"errors"
	"testing"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/sealed"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/installation/store/v1"
)

// place has the sealed text of a record, and the id as one that stays where it is "stays".
func place(cfg kv.Config) sealed.Place {
	return sealed.In(cfg, func(key string, rec *storev1.Installation) []sealed.Value {
		v := sealed.Value{Sealed: &rec.SealedCanary, Associated: []byte(key)}
		if rec.GetId() == "stays" {
			v.Stays = "what stays"
		}
		return []sealed.Value{v}
	})
}

func mustSeal(t *testing.T, k *seal.Keyset, text, bound string) []byte {
	t.Helper()
	b, err := k.Seal([]byte(text), []byte(bound))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What an earlier key sealed is sealed anew and holds what it held; what stays, what is sealed already and what a lost key sealed is left. An
// interrupted run is gone on with.
func TestRenew_sealsAnewWhatEarlierKeysSealed(t *testing.T) {
	js := kv.NewSession(testkit.JS(t), stream.Settings{})
	old, cfg := testkit.Keyset(t), kv.Config{Name: "some-records"}
	added, id, err := old.AddKey()
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := added.Added(); !ok || got != id || len(added.Earlier()) != 0 || added.Primary() != old.Primary() {
		t.Fatalf("after adding: %v %v", got, added.Earlier())
	}
	now, err := added.Promote(id)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := now.Added(); ok || len(now.Earlier()) != 1 || now.Earlier()[0] != old.Primary() {
		t.Fatalf("after promoting: %v", now.Earlier())
	}
	b, err := kv.Open[storev1.Installation](t.Context(), js, cfg)
	if err != nil {
		t.Fatal(err)
	}
	foreign := testkit.Keyset(t)
	for key, rec := range map[string]*storev1.Installation{
		"a": {SealedCanary: mustSeal(t, old, "a", "a")}, "b": {SealedCanary: mustSeal(t, old, "b", "b")}, "c": {SealedCanary: mustSeal(t, now, "c", "c")},
		"d": {SealedCanary: mustSeal(t, old, "d", "d"), Id: "stays"}, "e": {SealedCanary: mustSeal(t, foreign, "e", "e")},
	} {
		if _, err := b.Create(t.Context(), key, rec); err != nil {
			t.Fatal(err)
		}
	}
	count := func() map[uint32]int {
		t.Helper()
		n := map[uint32]int{}
		err := place(cfg).Count(t.Context(), js, func(key uint32, stays string) {
			if stays == "" {
				n[key]++
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(); n[old.Primary()] != 2 || n[id] != 1 || n[foreign.Primary()] != 1 {
		t.Fatalf("before: %v", n)
	}
	// It is interrupted by the first record.
	ctx, stop := context.WithCancel(t.Context())
	if err := place(cfg).Renew(ctx, js, now, stop); err == nil {
		t.Error("an interrupted run says that it is whole")
	}
	if n := count(); n[old.Primary()] != 1 {
		t.Errorf("after the interrupted run: %v", n)
	}
	told := 0
	if err := place(cfg).Renew(t.Context(), js, now, func() { told++ }); err != nil || told != 1 {
		t.Errorf("the second run: %d, %v", told, err)
	}
	if n := count(); n[old.Primary()] != 0 || n[id] != 3 || n[foreign.Primary()] != 1 {
		t.Errorf("after: %v", n)
	}
	alone, err := now.DropKey(old.Primary())
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]error{"a": nil, "b": nil, "c": nil, "d": seal.ErrOpen, "e": seal.ErrOpen} {
		rec, _, err := b.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		text, err := alone.Open(rec.GetSealedCanary(), []byte(key))
		if !errors.Is(err, want) || want == nil && string(text) != key {
			t.Errorf("%s: %q, %v", key, text, err)
		}
	}
}
