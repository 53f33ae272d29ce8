package kv_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
)

func describe(key string, _ bool) (workspace, kind, id string, ok bool) {
	parts, err := kv.DecodeKey(key)
	if err != nil || len(parts) != 3 || parts[0] == "internal" {
		return "", "", "", false
	}
	return parts[1], parts[0], parts[2], true
}

// events collects the change events of a test's server.
type events struct {
	mu  sync.Mutex
	all []*eventsv1.ChangeEvent
}

func collect(t *testing.T, js jetstream.JetStream) *events {
	t.Helper()
	e := &events{}
	background(t, func(ctx context.Context) error {
		return stream.Consume(ctx, stream.ConsumeConfig{
			JS: js, Stream: stream.EventsStream, Durable: "test", Logger: testkit.Logger(t).Logger,
			Handle: func(_ context.Context, m stream.Msg) error {
				ev := &eventsv1.ChangeEvent{}
				if err := proto.Unmarshal(m.Data, ev); err != nil {
					return err
				}
				service, workspace, kind, err := stream.ParseEventSubject(m.Subject)
				if err != nil || service != ev.GetService() || workspace != ev.GetWorkspace() || kind != ev.GetKind() {
					t.Errorf("%s tells of %v", m.Subject, ev)
				}
				e.mu.Lock()
				defer e.mu.Unlock()
				e.all = append(e.all, ev)
				return nil
			},
		})
	})
	return e
}

func (e *events) last(kind, id string) (*eventsv1.ChangeEvent, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := len(e.all) - 1; i >= 0; i-- {
		if ev := e.all[i]; ev.GetKind() == kind && ev.GetId() == id {
			return ev, nil
		}
	}
	return nil, fmt.Errorf("no event of %s %s among %d", kind, id, len(e.all))
}

func TestRelayChanges_tellsOfEveryRecord(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "apps"})
	before := time.Now()
	put(t, b, "app.acme-inc.early", "stored before the relay ran")
	put(t, b, "internal.acme-inc.lease", "nobody else's business")
	run := func() (stop func()) {
		js := s.JS()
		return background(t, func(ctx context.Context) error {
			return kv.RelayChanges(ctx, js, kv.RelayConfig{Bucket: "apps", Service: "deployer", Describe: describe, Logger: testkit.Logger(t).Logger})
		})
	}
	stop := run()
	e := collect(t, s.JS())
	tells := func(id string, deleted bool, rev uint64) func() error {
		return func() error {
			ev, err := e.last("app", id)
			if err != nil {
				return err
			}
			if ev.GetDeleted() != deleted || ev.GetRevision() != rev || ev.GetService() != "deployer" || ev.GetWorkspace() != "acme-inc" {
				return fmt.Errorf("last event %v, want deleted %v at %d", ev, deleted, rev)
			}
			if at := ev.GetTime().AsTime(); at.Before(before.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
				return fmt.Errorf("stored at %v", at)
			}
			return nil
		}
	}
	testkit.Eventually(t, wait, tells("early", false, 1))

	rev, err := b.Create(t.Context(), "app.acme-inc.web", str("1"))
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, wait, tells("web", false, rev))
	if err := b.Delete(t.Context(), "app.acme-inc.web", rev); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, wait, tells("web", true, rev+1))

	// The record is the outbox: what changes while no relay runs, or NATS restarts, is told later.
	stop()
	if rev, err = b.Create(t.Context(), "app.acme-inc.late", str("1")); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	run()
	testkit.Eventually(t, wait, tells("late", false, rev))
	if _, err := e.last("internal", "lease"); err == nil {
		t.Fatal("told of a record that Describe leaves out")
	}
}

func TestRelayChanges_aKeyThatMakesNoSubjectIsParked(t *testing.T) {
	s := testkit.NATS(t)
	js := s.JS()
	b := openStrings(t, s, kv.Config{Name: "apps"})
	put(t, b, "app.bad.web", "secret-value")
	put(t, b, "app.acme-inc.web", "x")
	background(t, func(ctx context.Context) error {
		return kv.RelayChanges(ctx, js, kv.RelayConfig{Bucket: "apps", Service: "deployer", Logger: testkit.Logger(t).Logger,
			Describe: func(key string, deleted bool) (string, string, string, bool) {
				ws, kind, id, ok := describe(key, deleted)
				return strings.ReplaceAll(ws, "bad", "not.a.token"), kind, id, ok
			}})
	})
	e := collect(t, s.JS())
	testkit.Eventually(t, wait, func() error {
		_, err := e.last("app", "web")
		return err
	})
	testkit.Eventually(t, wait, func() error {
		st, err := js.Stream(t.Context(), stream.DeadLettersStream)
		if err == nil && st.CachedInfo().State.Msgs != 1 {
			err = fmt.Errorf("%d dead letters", st.CachedInfo().State.Msgs)
		}
		return err
	})
	if found := onDisk(t, filepath.Join(s.StoreDir(), "$G", "streams", stream.DeadLettersStream), "secret-value"); len(found) > 0 {
		t.Errorf("the dead letter copied the record's value: %v", found)
	}
}

func TestRelayChanges_mayReadTheValue(t *testing.T) {
	s := testkit.NATS(t)
	js := s.JS()
	b := openStrings(t, s, kv.Config{Name: "deliveries"})
	put(t, b, "delivery.acme-inc.slot-1", "number-7")
	background(t, func(ctx context.Context) error {
		return kv.RelayChanges(ctx, js, kv.RelayConfig{Bucket: "deliveries", Service: "webhook", Describe: describe, Logger: testkit.Logger(t).Logger,
			DescribeValue: func(key string, value []byte) (string, string, string, bool) {
				v := &wrapperspb.StringValue{}
				if err := proto.Unmarshal(value, v); err != nil {
					return "", "", "", false
				}
				ws, kind, _, ok := describe(key, false)
				return ws, kind, v.GetValue(), ok
			}})
	})
	e := collect(t, s.JS())
	testkit.Eventually(t, wait, func() error {
		_, err := e.last("delivery", "number-7")
		return err
	})
	if err := b.Delete(t.Context(), "delivery.acme-inc.slot-1", 0); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, wait, func() error { // a key that is gone has no value to read
		_, err := e.last("delivery", "slot-1")
		return err
	})
}

// TestRelayChanges_tellsOfAGroupOnce: records that whoever follows reads together anyway.
func TestRelayChanges_tellsOfAGroupOnce(t *testing.T) {
	s := testkit.NATS(t)
	js := s.JS()
	b := openStrings(t, s, kv.Config{Name: "pages"})
	const changes = 200
	for i := range changes {
		put(t, b, fmt.Sprintf("page.acme-inc.%d", i), "x")
	}
	put(t, b, "internal.acme-inc.lease", "x") // the newest of its group is nobody else's business
	background(t, func(ctx context.Context) error {
		return kv.RelayChanges(ctx, js, kv.RelayConfig{Bucket: "pages", Service: "webhook", Describe: describe, Logger: testkit.Logger(t).Logger,
			Group: func(string) string { return "all" }})
	})
	e := collect(t, s.JS())
	testkit.Eventually(t, wait, func() error {
		_, err := e.last("page", fmt.Sprint(changes-1))
		return err
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.all) > changes/10 {
		t.Errorf("%d events for %d changes of one group", len(e.all), changes)
	}
}

// TestRelayChanges_tellsOfABurstTwice: the first change at once, and what followed together.
func TestRelayChanges_tellsOfABurstTwice(t *testing.T) {
	s := testkit.NATS(t)
	js := s.JS()
	b := openStrings(t, s, kv.Config{Name: "apps"})
	background(t, func(ctx context.Context) error {
		return kv.RelayChanges(ctx, js, kv.RelayConfig{Bucket: "apps", Service: "deployer", Describe: describe, Logger: testkit.Logger(t).Logger, Every: 5 * time.Second})
	})
	e := collect(t, s.JS())
	put(t, b, "app.acme-inc.web", "0")
	testkit.Eventually(t, wait, func() error {
		_, err := e.last("app", "web")
		return err
	})
	for i := range 20 { // one after the other, as the states of a deployment come
		put(t, b, "app.acme-inc.web", fmt.Sprint(i+1))
	}
	testkit.Eventually(t, wait, func() error {
		ev, err := e.last("app", "web")
		if err == nil && ev.GetRevision() < 21 {
			err = fmt.Errorf("the last event is %v", ev)
		}
		return err
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.all) != 2 {
		t.Errorf("%d events for a first change and 20 that followed it, want 2", len(e.all))
	}
}

func TestRelayChanges_refusesAnIncompleteConfiguration(t *testing.T) {
	if err := kv.RelayChanges(t.Context(), testkit.JS(t), kv.RelayConfig{Bucket: "apps"}); err == nil {
		t.Fatal("accepted")
	}
}

func TestToAPI(t *testing.T) {
	public := apierr.New(apierr.ReasonAppNotFound, "There is no app called web.")
	for _, c := range []struct {
		err  error
		want apierr.Reason
	}{
		{fmt.Errorf("%w: get: timeout", kv.ErrUnavailable), apierr.ReasonStorageUnavailable},
		{fmt.Errorf("%w: get: %w", kv.ErrUnavailable, context.DeadlineExceeded), apierr.ReasonStorageUnavailable},
		{fmt.Errorf("%w: k", kv.ErrConflict), apierr.ReasonEtagMismatch},
		{fmt.Errorf("app: %w", public), apierr.ReasonAppNotFound},
		{errors.New("anything else"), apierr.ReasonInternal},
		{kv.ErrNotFound, apierr.ReasonInternal},
	} {
		err := kv.ToAPI(c.err)
		if got := apierr.ReasonOf(err); got != c.want {
			t.Errorf("%v: %s, want %s", c.err, got, c.want)
		}
		if !errors.Is(err, c.err) {
			t.Errorf("%v: the cause is lost", c.err)
		}
		if strings.Contains(apierr.From(err).Message(), "timeout") {
			t.Errorf("%v: the public message tells of the store", c.err)
		}
	}
	if kv.ToAPI(nil) != nil {
		t.Error("nil became an error")
	}
}
