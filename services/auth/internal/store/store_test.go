package store_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/testkit"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	"devpilot.io/bitbucket/services/auth/internal/store"
)

func TestTokens_openOnlyWhereTheyWereSealed(t *testing.T) {
	tokens := store.NewTokens(testkit.Keyset(t))
	long := seal.NewSecret(strings.Repeat("token.with/odd=chars ", 500)) // no ceiling: 10,000 characters
	access, err := tokens.SealAccess("acme", long)
	if err != nil {
		t.Fatal(err)
	}
	refresh, id, err := tokens.SealRefresh("acme", long)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tokens.OpenAccess("acme", access); err != nil || !got.Equal(long) {
		t.Errorf("access: %v", err)
	}
	if got, err := tokens.OpenRefresh("acme", refresh); err != nil || !got.Equal(long) {
		t.Errorf("refresh: %v", err)
	}
	wrong := map[string]func() error{
		"another workspace's": func() error { _, err := tokens.OpenAccess("other", access); return err },
		"another field's":     func() error { _, err := tokens.OpenRefresh("acme", access); return err },
		"another keyset's":    func() error { _, err := store.NewTokens(testkit.Keyset(t)).OpenAccess("acme", access); return err },
		"a changed one":       func() error { _, err := tokens.OpenAccess("acme", append([]byte{1}, access...)); return err },
	}
	for name, open := range wrong {
		if err := open(); !errors.Is(err, seal.ErrOpen) {
			t.Errorf("%s: %v", name, err)
		}
	}
	again, same, err := tokens.SealRefresh("acme", long)
	if err != nil || !bytes.Equal(id, same) || bytes.Equal(refresh, again) {
		t.Error("equal tokens must have equal ids and different seals")
	}
	if _, other, err := tokens.SealRefresh("acme", seal.NewSecret("another")); err != nil || bytes.Equal(id, other) {
		t.Error("different tokens must have different ids")
	}
}

func TestKey_roundTrip(t *testing.T) {
	for _, ws := range []string{"a", "acme-inc", "0"} {
		if got, ok := store.WorkspaceOf(store.Key(ws)); !ok || got != ws {
			t.Errorf("%s became %s", ws, got)
		}
	}
	for _, key := range []string{"", "acme", "acme.github", "acme.bitbucket.x"} {
		if ws, ok := store.WorkspaceOf(key); ok {
			t.Errorf("%q is the key of %q", key, ws)
		}
	}
}

func TestIntegrations(t *testing.T) {
	ctx, log := t.Context(), testkit.Logger(t)
	js := testkit.JS(t)
	s := store.NewIntegrations(js, log.Logger)
	if _, _, err := s.Get(ctx, "acme"); !errors.Is(err, kv.ErrUnavailable) || s.Ready() == nil {
		t.Errorf("before it is open: %v", err)
	}
	if err := s.Open(ctx); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Get(ctx, "acme"); !errors.Is(err, kv.ErrNotFound) {
		t.Errorf("nothing there: %v", err)
	}
	rec := &authstorev1.Integration{Workspace: "acme", ConnectionId: "one"}
	_, rev, err := s.Update(ctx, "acme", func(cur *authstorev1.Integration) (*authstorev1.Integration, error) {
		if cur != nil {
			t.Error("something was there")
		}
		return rec, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, at, err := s.Get(ctx, "acme"); err != nil || at != rev || !proto.Equal(got, rec) {
		t.Errorf("%v at %d: %v", got, at, err)
	}
	next, err := s.CompareAndSet(ctx, "acme", &authstorev1.Integration{Workspace: "acme", ConnectionId: "two"}, rev)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CompareAndSet(ctx, "acme", rec, rev); !errors.Is(err, kv.ErrConflict) {
		t.Errorf("an old revision: %v", err)
	}
	if err := s.Remove(ctx, "acme", rev); !errors.Is(err, kv.ErrConflict) {
		t.Errorf("removed at an old revision: %v", err)
	}
	var all []string
	for ws, err := range s.Workspaces(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, ws)
	}
	if !slices.Equal(all, []string{"acme"}) {
		t.Errorf("%v", all)
	}
	if err := s.Remove(ctx, "acme", next); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CompareAndSet(ctx, "acme", rec, next); !errors.Is(err, kv.ErrConflict) {
		t.Errorf("written back after the removal: %v", err)
	}
	if err := s.Erase(ctx, "acme"); err != nil {
		t.Errorf("erased again: %v", err)
	}
}

func TestSchedules(t *testing.T) {
	ctx, log := t.Context(), testkit.Logger(t)
	s := store.NewSchedules(testkit.JS(t), log.Logger)
	if s.Ready(ctx) == nil {
		t.Error("ready before it is watched")
	}
	if err := s.Open(ctx); err != nil {
		t.Fatal(err)
	}
	set := func(ws string, v *authstorev1.Schedule) {
		t.Helper()
		if err := s.Update(ctx, ws, func(*authstorev1.Schedule) *authstorev1.Schedule { return v }); err != nil {
			t.Fatal(err)
		}
	}
	set("before", &authstorev1.Schedule{Workspace: "before"})
	type change struct {
		ws   string
		gone bool
	}
	seen := make(chan change, 16)
	go func() {
		_ = s.Watch(ctx, func(ws string, v *authstorev1.Schedule) { seen <- change{ws, v == nil} })
	}()
	next := func() change {
		t.Helper()
		select {
		case c := <-seen:
			return c
		case <-time.After(30 * time.Second):
			t.Fatal("no change was seen")
			return change{}
		}
	}
	if c := next(); c != (change{"before", false}) {
		t.Errorf("%v", c)
	}
	testkit.Eventually(t, 30*time.Second, func() error { return s.Ready(ctx) })
	set("acme", &authstorev1.Schedule{Workspace: "acme", DueTime: timestamppb.Now()})
	set("acme", nil)
	set("acme", nil)                                          // again: nothing to remove
	set("before", &authstorev1.Schedule{Workspace: "before"}) // unchanged: nothing to write
	set("last", &authstorev1.Schedule{Workspace: "last"})     // after which nothing else was seen
	for _, want := range []change{{"acme", false}, {"acme", true}, {"last", false}} {
		if c := next(); c != want {
			t.Errorf("saw %v, want %v", c, want)
		}
	}
	// Two at a time: both changes are kept.
	done := make(chan error, 2)
	for range 2 {
		go func() {
			done <- s.Update(ctx, "count", func(cur *authstorev1.Schedule) *authstorev1.Schedule {
				if cur == nil {
					cur = &authstorev1.Schedule{Workspace: "count"}
				}
				cur.Revision++
				return cur
			})
		}()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	err := s.Update(ctx, "count", func(cur *authstorev1.Schedule) *authstorev1.Schedule {
		if cur.GetRevision() != 2 {
			t.Errorf("counted %d", cur.GetRevision())
		}
		return cur
	})
	if err != nil {
		t.Error(err)
	}
}
