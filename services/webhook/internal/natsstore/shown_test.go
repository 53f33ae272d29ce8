package natsstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/testkit"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
)

const wait = 15 * time.Second

// process is a store as a process of its own has it, with copies that can be stopped.
func process(t *testing.T, nats *testkit.NATSServer) (s *natsstore.Store, freeze func()) {
	t.Helper()
	_, js := nats.Connect()
	s = natsstore.New(js, testkit.Logger(t).Logger, nil)
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.RunCopies(ctx) }()
	stopped := false
	freeze = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(freeze)
	return s, freeze
}

func ensure(t *testing.T, s *natsstore.Store, repository string) *storev1.WebhookRecord {
	t.Helper()
	rec, err := s.Ensure(t.Context(), ws, repository, func() string { return "id-" + repository }, func(*storev1.WebhookRecord) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// asked counts what the leaders are asked while fn runs.
func asked(t *testing.T, nats *testkit.NATSServer, fn func()) (subjects []string) {
	t.Helper()
	nc, _ := nats.Connect()
	sub, err := nc.SubscribeSync("$JS.API.STREAM.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	fn()
	const end = "$JS.API.STREAM.END"
	if err := nc.Publish(end, nil); err != nil { // comes after what was asked
		t.Fatal(err)
	}
	for {
		m, err := sub.NextMsg(wait)
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject == end {
			return subjects
		}
		subjects = append(subjects, m.Subject)
	}
}

// Showing costs the leader one question, however many webhooks there are.
func TestShown_asksTheLeaderOnceForAll(t *testing.T) {
	nats := testkit.NATS(t)
	s, _ := process(t, nats)
	var repositories []string
	for i := range 50 {
		repositories = append(repositories, fmt.Sprintf("repo-%02d", i))
		ensure(t, s, repositories[i])
	}
	show := func() error {
		recs, err := s.Shown(t.Context(), ws, repositories)
		if err == nil && len(recs) != len(repositories) {
			err = fmt.Errorf("%d webhooks, want %d", len(recs), len(repositories))
		}
		for i, rec := range recs {
			if rec.GetRepository() != repositories[i] {
				return fmt.Errorf("webhook %d is of %s", i, rec.GetRepository())
			}
			if _, _, err := s.Stand(t.Context(), ws, rec.GetId()); err != nil {
				return err
			}
		}
		return err
	}
	testkit.Eventually(t, wait, func() (err error) { // until the copies have made their first pass
		if got := asked(t, nats, func() { err = show() }); err == nil && len(got) > 1 {
			err = fmt.Errorf("%d questions, want one: %s", len(got), strings.Join(got, ", "))
		}
		return err
	})
}

// A copy that stands still is a copy that lags: what another process writes is shown all the same.
func TestShown_afterAWriteOnALaggingCopy(t *testing.T) {
	nats := testkit.NATS(t)
	s, freeze := process(t, nats)
	other, _ := process(t, nats)
	web := ensure(t, other, "web")
	testkit.Eventually(t, wait, func() error {
		recs, err := s.Shown(t.Context(), ws, []string{"web", "none"})
		if err == nil && len(recs) != 1 {
			err = fmt.Errorf("%v", recs)
		}
		return err
	})
	freeze()
	verified := timestamppb.New(time.Unix(1700000000, 0))
	if _, err := other.Update(t.Context(), ws, web.GetId(), func(rec *storev1.WebhookRecord) error {
		rec.RepositoryFullName = "acme/web"
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	ensure(t, other, "shop")
	recs, err := s.Shown(t.Context(), ws, []string{"web", "shop"})
	if err != nil || len(recs) != 2 || recs[0].GetRepositoryFullName() != "acme/web" || recs[1].GetRepository() != "shop" {
		t.Fatalf("%v, %v", recs, err)
	}
	// What this process wrote itself it shows, too.
	if err := s.UpdateLedger(t.Context(), ws, web.GetId(), func(l *storev1.LedgerRecord) error {
		l.LastVerifiedTime = verified
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if ledger, _, err := s.Stand(t.Context(), ws, web.GetId()); err != nil || !ledger.GetLastVerifiedTime().AsTime().Equal(verified.AsTime()) {
		t.Fatalf("%v, %v", ledger, err)
	}
}

// An index entry never changes, so that finding a webhook is one question; a webhook as it was a moment ago
// is none.
func TestFind_asksTheLeaderForTheWebhookAlone(t *testing.T) {
	nats := testkit.NATS(t)
	s, _ := process(t, nats)
	rec := ensure(t, s, "repo")
	for _, c := range []struct {
		how  string
		most int
		find func() (*storev1.WebhookRecord, error)
	}{
		{"by id", 1, func() (*storev1.WebhookRecord, error) { return s.GetByID(t.Context(), rec.GetId()) }},
		{"by repository", 1, func() (*storev1.WebhookRecord, error) { return s.GetByRepository(t.Context(), ws, "repo") }},
		{"lately", 0, func() (*storev1.WebhookRecord, error) { return s.Lately(t.Context(), ws, rec.GetId()) }},
	} {
		testkit.Eventually(t, wait, func() (err error) { // until the copies have made their first pass
			var found *storev1.WebhookRecord
			got := asked(t, nats, func() { found, err = c.find() })
			if err == nil && (found.GetId() != rec.GetId() || len(got) > c.most) {
				err = fmt.Errorf("%s: %v with %d questions, want %d: %s", c.how, found, len(got), c.most, strings.Join(got, ", "))
			}
			return err
		})
	}
	// What the copies do not have is asked for before it is said not to be there.
	theirs, stop := process(t, nats)
	stop()
	for _, find := range []func() (*storev1.WebhookRecord, error){
		func() (*storev1.WebhookRecord, error) { return theirs.GetByRepository(t.Context(), ws, "late") },
		func() (*storev1.WebhookRecord, error) { return theirs.Lately(t.Context(), ws, "id-late") },
	} {
		if _, err := find(); !errors.Is(err, kv.ErrNotFound) {
			t.Fatalf("before there is one: %v", err)
		}
	}
	ensure(t, s, "late")
	for _, find := range []func() (*storev1.WebhookRecord, error){
		func() (*storev1.WebhookRecord, error) { return theirs.GetByRepository(t.Context(), ws, "late") },
		func() (*storev1.WebhookRecord, error) { return theirs.Lately(t.Context(), ws, "id-late") },
		func() (*storev1.WebhookRecord, error) { return theirs.GetByID(t.Context(), "id-late") },
	} {
		if found, err := find(); err != nil || found.GetRepository() != "late" {
			t.Errorf("of a copy that is behind: %v, %v", found, err)
		}
	}
}
