package kv_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
)

// A loss of one of two installations is the business of that one: it is told by the name in NATS, and the
// other can neither see nor accept it.
func TestAcceptLoss_ofItsOwnInstallation(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	js := s.JS()
	own, none := kv.NewSession(js, stream.Settings{Installation: "acme"}), kv.NewSession(js, stream.Settings{})
	for _, session := range []*kv.Session{own, none} {
		b, err := kv.Open[wrapperspb.StringValue](t.Context(), session, counted)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Create(t.Context(), "k", str("x")); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, 20*time.Second, func() error {
			if keys, err := kv.InventoryKeys(t.Context(), session, counted); err != nil || len(keys) != 1 {
				return fmt.Errorf("keys %v, %w", keys, err)
			}
			return nil
		})
	}
	if err := js.DeleteStream(t.Context(), "KV_acme_apps"); err != nil {
		t.Fatal(err)
	}
	var loss *kv.LossError
	if _, err := kv.Open[wrapperspb.StringValue](t.Context(), own, counted); !errors.As(err, &loss) || !strings.Contains(err.Error(), "stream KV_acme_apps") {
		t.Fatalf("opened: %v", err)
	}
	if n, err := kv.AcceptLoss(t.Context(), none, "apps"); err != nil || n != 0 {
		t.Errorf("the other one accepted %d, %v", n, err)
	}
	if _, err := kv.Open[wrapperspb.StringValue](t.Context(), own, counted); !errors.As(err, &loss) {
		t.Fatalf("opened after the other one accepted: %v", err)
	}
	if n, err := kv.AcceptLoss(t.Context(), own, "apps"); err != nil || n != 1 {
		t.Errorf("accepted %d, %v", n, err)
	}
	if _, err := kv.Open[wrapperspb.StringValue](t.Context(), own, counted); err != nil {
		t.Errorf("after the loss was accepted: %v", err)
	}
}
