package stream_test

import (
	"slices"
	"testing"

	"devpilot.io/bitbucket/pkg/stream"
)

func TestAllows(t *testing.T) {
	for _, c := range []struct {
		pattern, subject string
		want             bool
	}{
		{"a.b", "a.b", true}, {"a.b", "a.c", false}, {"a.b", "a", false}, {"a", "a.b", false},
		{"a.*", "a.b", true}, {"a.*", "a.*", true}, {"a.*", "a.>", false}, {"a.*", "a.b.c", false},
		{"a.>", "a.b.c", true}, {"a.>", "a.>", true}, {"a.>", "a.*", true}, {"a.>", "a", false}, {">", "a", true}, {"a.b", "a.*", false}, {"a.b", "a.>", false},
	} {
		if stream.Allows([]string{"other", c.pattern}, c.subject) != c.want {
			t.Errorf("%s allows %s: %v", c.pattern, c.subject, !c.want)
		}
	}
}

// What a service may follows from what it does, in the names of its installation.
func TestPermissions_ofAnInstallation(t *testing.T) {
	a := stream.Access{
		Buckets: []string{"web-pages"}, Asks: []string{"devpilot.check.v1.>"},
		Streams: []stream.Usage{{Stream: "DEVPILOT_INBOX", Publishes: []string{"devpilot.inbox.v1"}, Consumers: []string{"router"}, Purges: true}, {Stream: "DEVPILOT_PUSHES", Publishes: []string{"devpilot.push.v1"}}},
	}
	p := a.Permissions("acme", "web")
	for _, subject := range []string{
		"$KV.acme_web-pages.key", "$JS.API.STREAM.MSG.GET.KV_acme_web-pages", "$JS.API.CONSUMER.CREATE.KV_acme_web-pages.x.$KV.acme_web-pages.>",
		"acme.devpilot.inbox.v1", "acme.devpilot.check.v1.default", "acme.devpilot.dead.v1.S.c.1", "$JS.API.STREAM.PURGE.acme_DEVPILOT_INBOX",
		"$JS.API.CONSUMER.MSG.NEXT.acme_DEVPILOT_INBOX.acme_router", "$JS.ACK.acme_DEVPILOT_INBOX.acme_router.1.2.3.4.5",
		"$JS.API.STREAM.MSG.GET.acme_DEVPILOT_INBOX", // for the age of the first message that waits
	} {
		if !stream.Allows(p.Publish, subject) {
			t.Errorf("%s is not allowed", subject)
		}
	}
	for _, subject := range []string{
		"$KV.web-pages.key", "$KV.beta_web-pages.key", "devpilot.inbox.v1", "$JS.API.STREAM.DELETE.acme_DEVPILOT_INBOX", "$JS.API.STREAM.PURGE.KV_acme_web-pages",
		"$JS.API.CONSUMER.MSG.NEXT.acme_DEVPILOT_INBOX.acme_other", "$JS.API.STREAM.MSG.GET.acme_DEVPILOT_PUSHES", "acme._INBOX.web.1",
	} {
		if stream.Allows(p.Publish, subject) {
			t.Errorf("%s is allowed", subject)
		}
	}
	if !slices.Equal(p.Subscribe, []string{"acme._INBOX.web.>"}) {
		t.Errorf("it listens to %v", p.Subscribe)
	}
}
