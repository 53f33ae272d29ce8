package e2e

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/allinone"
)

// heard are the subjects of everything that goes over a NATS server.
type heard struct {
	mu       sync.Mutex
	subjects map[string]bool
}

func listen(t *testing.T, server *testkit.NATSServer) (*heard, *nats.Subscription) {
	t.Helper()
	h := &heard{subjects: map[string]bool{}}
	nc, _ := server.Connect()
	sub, err := nc.Subscribe(">", func(m *nats.Msg) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.subjects[m.Subject] = true
	})
	if err != nil {
		t.Fatal(err)
	}
	return h, sub
}

// Two whole products share one NATS and one Redis. They have the same workspaces, apps and server, and run
// the same stories at once: each story counts its deployments, deliveries, events and lines of log, so
// that whatever came over from the other is one too many. And nothing in NATS or Redis has a name that
// is not the one's or the other's.
func TestInstallations_shareNATSAndRedisAndNothingCrosses(t *testing.T) {
	t.Parallel()
	server, redis := testkit.NATS(t), testkit.Redis(t)
	all, sub := listen(t, server)
	names := []string{"alpha", "beta"}
	stacks := map[string]*shared{}
	for _, name := range names {
		s := &shared{planted: map[string]string{}, atOnce: true, stack: startProcess(t, "info", func(s *allinone.Settings) {
			s.NATSURL, s.RedisURL, s.Installation = seal.NewSecret(server.URL()), seal.NewSecret(redis.URL()), name
		})}
		s.owner = newBrowser(t, s.url()).signIn(s.adminToken())
		stacks[name] = s
	}
	t.Run("at once", func(t *testing.T) {
		for _, one := range []scenario{{"main path", mainPath}, {"live streams", liveStreams}, {"rules of pushes", rulesOfPushes}, {"workspaces and roles", tenancy}} {
			for name, s := range stacks {
				t.Run(one.name+" of "+name, func(t *testing.T) {
					t.Parallel()
					one.run(t, s)
				})
			}
		}
	})
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	for subject := range all.subjects {
		if strings.HasPrefix(subject, "$JS.EVENT.") { // what the server tells by itself
			continue
		}
		if !ofOne(names, subject) {
			t.Errorf("somebody used the subject %s", subject)
		}
	}
	for _, part := range []string{".devpilot.push.v1.", ".devpilot.work.v1.", ".devpilot.event.v1.", ".devpilot.log.v1.", ".devpilot.check.v1.", ".devpilot.inbox.v1", "._INBOX."} {
		for _, name := range names {
			if !said(all.subjects, name+part) {
				t.Errorf("nothing was heard of %s%s: has the listener heard all?", name, part)
			}
		}
	}
	storedNames(t, server, redis, names)
}

func said(subjects map[string]bool, prefix string) bool {
	for s := range subjects {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

// ofOne tells that a subject is of one of the installations: its own, or JetStream's with the name of one
// of its streams.
func ofOne(names []string, subject string) bool {
	for _, name := range names {
		if strings.HasPrefix(subject, name+".") || strings.HasPrefix(subject, "$KV."+name+"_") {
			return true
		}
		if strings.HasPrefix(subject, "$JS.") && (strings.Contains(subject, "."+name+"_") || strings.Contains(subject, ".KV_"+name+"_")) {
			return true
		}
	}
	return false
}

// storedNames looks at the names of streams, their subjects, consumers and keys.
func storedNames(t *testing.T, server *testkit.NATSServer, redis *testkit.RedisServer, names []string) {
	t.Helper()
	counts := map[string]int{}
	one := func(what, name, separator string) {
		t.Helper()
		for _, n := range names {
			if strings.HasPrefix(name, n+separator) {
				counts[what+" of "+n]++
				return
			}
		}
		t.Errorf("%s %s is of no installation", what, name)
	}
	js := server.JS()
	streams := js.ListStreams(t.Context())
	for info := range streams.Info() {
		one("stream", strings.TrimPrefix(info.Config.Name, "KV_"), "_")
		for _, subject := range info.Config.Subjects {
			if bucket, ok := strings.CutPrefix(subject, "$KV."); ok {
				one("bucket", bucket, "_")
			} else {
				one("subject", subject, ".")
			}
		}
		s, err := js.Stream(t.Context(), info.Config.Name)
		if err != nil {
			t.Fatal(err)
		}
		consumers := s.ListConsumers(t.Context())
		for c := range consumers.Info() {
			if c.Config.Durable != "" {
				one("consumer", c.Config.Durable, "_")
			}
			for _, filter := range c.Config.FilterSubjects {
				if !ofOne(names, filter) {
					t.Errorf("a consumer of %s wants %s", info.Config.Name, filter)
				}
			}
		}
		if consumers.Err() != nil {
			t.Fatal(consumers.Err())
		}
	}
	if streams.Err() != nil {
		t.Fatal(streams.Err())
	}
	keys, err := redis.Client().Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		one("key", key, ":")
	}
	for _, what := range []string{"stream", "bucket", "subject", "consumer", "key"} {
		if a, b := counts[what+" of "+names[0]], counts[what+" of "+names[1]]; a == 0 || b == 0 || what != "key" && a != b {
			t.Errorf("%s: %d of %s and %d of %s", what, a, names[0], b, names[1])
		}
	}
}

// A product with another keyset, or on another's Redis, ends with a sentence before it serves anything.
func TestInstallations_othersStoresAreRefused(t *testing.T) {
	t.Parallel()
	server, redis, own := testkit.NATS(t), testkit.Redis(t), testkit.NATS(t)
	startProcess(t, "info", func(s *allinone.Settings) {
		s.NATSURL, s.RedisURL = seal.NewSecret(server.URL()), seal.NewSecret(redis.URL())
	})
	for name, c := range map[string]struct{ nats, redis, want string }{
		"another keyset":      {server.URL(), redis.URL(), "the encryption keyset (DEVPILOT_ENCRYPTION_KEYSET_FILE) does not open what is stored in NATS"},
		"the Redis of others": {own.URL(), redis.URL(), "the Redis of DEVPILOT_REDIS_URL is in use by another installation"},
	} {
		settings := allinone.Settings{}
		settings.Listen, settings.OpsListen, settings.Roles, settings.LogFormat = "127.0.0.1:0", "127.0.0.1:0", []string{"api"}, "json"
		settings.DataDir, settings.BitbucketSiteURL, settings.BitbucketAPIURL = t.TempDir(), "http://localhost:1", "http://localhost:1/2.0"
		settings.NATSURL, settings.RedisURL = seal.NewSecret(c.nats), seal.NewSecret(c.redis)
		p, err := allinone.New(t.Context(), settings, testkit.Logger(t).Logger)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // for a process that does not refuse
		err = p.Run(ctx)
		cancel()
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
