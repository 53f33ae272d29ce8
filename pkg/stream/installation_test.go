package stream_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
)

func TestInstallation_names(t *testing.T) {
	const acme = stream.Installation("acme")
	for _, c := range []struct{ bare, want string }{{"DEVPILOT_INBOX", "acme_DEVPILOT_INBOX"}, {"KV_webhook-webhooks", "KV_acme_webhook-webhooks"}, {"router", "acme_router"}} {
		if got := acme.Stream(c.bare); got != c.want {
			t.Errorf("stream %s: %s", c.bare, got)
		}
		if bare, ok := acme.BareStream(c.want); bare != c.bare || !ok {
			t.Errorf("bare stream of %s: %s, %v", c.want, bare, ok)
		}
		for _, other := range []stream.Installation{"acme-2", "acm", "beta"} {
			if bare, ok := other.BareStream(c.want); ok {
				t.Errorf("%s takes %s for its own: %s", other, c.want, bare)
			}
		}
	}
	for _, c := range []struct{ bare, want string }{{"devpilot.push.v1.acme.r", "acme.devpilot.push.v1.acme.r"}, {"$KV.b.k.l", "$KV.acme_b.k.l"}, {"$KV.b.>", "$KV.acme_b.>"}} {
		if got := acme.Subject(c.bare); got != c.want || acme.Bare(got) != c.bare {
			t.Errorf("subject %s: %s, and back %s", c.bare, got, acme.Bare(got))
		}
		if none := stream.Installation(""); none.Subject(c.bare) != c.bare || none.Bare(c.bare) != c.bare {
			t.Errorf("without a name: %s", none.Subject(c.bare))
		}
	}
}

func TestNewInstallation_refusesOthers(t *testing.T) {
	for _, good := range []string{"", "a", "acme", "acme-2", "team-eu-1"} {
		if i, err := stream.NewInstallation(good); err != nil || string(i) != good {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"Acme", "2acme", "-a", "a_b", "a.b", "a b", "*", ">", "ä", "a/b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"} {
		if _, err := stream.NewInstallation(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// What one installation publishes, the other with the same bare names does not get; dead letters too stay
// where they belong, and a handler is told bare names.
func TestConsume_ofItsOwnInstallation(t *testing.T) {
	js := testkit.JS(t)
	for _, name := range []stream.Installation{"alpha", "beta", ""} {
		own := kv.NewSession(js, stream.Settings{Installation: name})
		if _, err := stream.Ensure(t.Context(), own, stream.Pushes, stream.Options{}); err != nil {
			t.Fatal(err)
		}
		subject, err := stream.PushSubject("acme", "repo-of-"+string(name)+"x")
		if err != nil {
			t.Fatal(err)
		}
		msg := &nats.Msg{Subject: subject, Data: []byte(name)}
		for range 2 { // as a repeat is: the message is not changed by being published
			if _, err := (stream.Publisher{JS: own}).Publish(t.Context(), msg, jetstream.WithMsgID("same")); err != nil {
				t.Fatal(err)
			}
		}
		if msg.Subject != subject {
			t.Fatalf("the caller's message is to %s now", msg.Subject)
		}
	}
	for _, name := range []stream.Installation{"alpha", "beta", ""} {
		own := kv.NewSession(js, stream.Settings{Installation: name})
		var got seen
		c := consume(t, stream.ConsumeConfig{
			JS: own, Stream: stream.PushesStream, Durable: "c", Filters: []string{stream.AllPushes},
			Handle: func(ctx context.Context, m stream.Msg) error {
				got.add(m)
				if _, _, err := stream.ParsePushSubject(m.Subject); err != nil || m.Stream != stream.PushesStream {
					t.Errorf("%q was handed %s of %s", name, m.Subject, m.Stream)
				}
				return stream.Park("for the test")
			},
		})
		testkit.Eventually(t, 20*time.Second, func() error {
			s, err := js.Stream(t.Context(), name.Stream(stream.DeadLettersStream))
			if err != nil {
				return err
			}
			_, err = s.GetLastMsgForSubject(t.Context(), name.Subject("devpilot.dead.v1.DEVPILOT_PUSHES.c.1"))
			return err
		})
		c.stop(t)
		if data := got.data(); len(data) != 1 || data[0] != string(name) {
			t.Errorf("%q got %q", name, data)
		}
	}
}
