package installation_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/installation/store/v1"
)

func keyset(t *testing.T) *seal.Keyset {
	t.Helper()
	k, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// named is a JetStream and a Redis as an installation called name has them.
func named(t *testing.T, js jetstream.JetStream, url, name string, k *seal.Keyset) installation.Config {
	t.Helper()
	client, err := redisx.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() }) // it may be closed by the test
	redisx.Prefix(client, name)
	return installation.Config{
		JS: kv.NewSession(js, stream.Settings{Installation: stream.Installation(name)}), Redis: client, Keysets: seal.Shared(k, "auth"), Logger: testkit.Logger(t).Logger,
	}
}

func open(t *testing.T, cfg installation.Config) *installation.Installation {
	t.Helper()
	i, err := installation.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// All processes of an installation find the same id, also those that start together on empty stores.
func TestOpen_oneIDForAll(t *testing.T) {
	js, redis, k := testkit.JS(t), testkit.Redis(t), keyset(t)
	var ids sync.Map
	var all sync.WaitGroup
	for range 5 {
		cfg := named(t, js, redis.URL(), "", k)
		all.Go(func() {
			i, err := installation.Open(t.Context(), cfg)
			if err != nil {
				t.Error(err)
				return
			}
			ids.Store(i.ID(), true)
		})
	}
	all.Wait()
	n := 0
	ids.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d ids", n)
	}
}

// A keyset that is not the installation's is refused for good, in a sentence; under another name the
// same NATS and Redis have room for its own installation.
func TestOpen_anotherKeyset(t *testing.T) {
	js, redis := testkit.JS(t), testkit.Redis(t)
	first := open(t, named(t, js, redis.URL(), "", keyset(t)))
	wrong := keyset(t)
	_, err := installation.Open(t.Context(), named(t, js, redis.URL(), "", wrong))
	if !errors.Is(err, installation.ErrKeyset) || !errors.Is(err, stream.ErrPermanent) || strings.ContainsAny(err.Error(), "\n") {
		t.Fatalf("with another keyset: %v", err)
	}
	second := open(t, named(t, js, redis.URL(), "second", wrong))
	if first.ID() == second.ID() {
		t.Error("two installations have one id")
	}
	for _, i := range []*installation.Installation{first, second} {
		i.Check(t.Context())
		if err := i.Ready(t.Context()); err != nil {
			t.Errorf("beside each other: %v", err)
		}
	}
}

// The keyset may be rotated: after a start with the new key the one before may be dropped.
func TestOpen_rotatedKeyset(t *testing.T) {
	js, redis, old := testkit.JS(t), testkit.Redis(t), keyset(t)
	first := open(t, named(t, js, redis.URL(), "", old))
	both, added, err := old.AddKey()
	if err != nil {
		t.Fatal(err)
	}
	open(t, named(t, js, redis.URL(), "", both))
	promoted, err := both.Promote(added)
	if err != nil {
		t.Fatal(err)
	}
	open(t, named(t, js, redis.URL(), "", promoted))
	dropped, err := promoted.DropKey(old.KeyIDs()[0])
	if err != nil {
		t.Fatal(err)
	}
	if last := open(t, named(t, js, redis.URL(), "", dropped)); last.ID() != first.ID() {
		t.Error("another id after the rotation")
	}
}

// A Redis that another installation works with is refused, at the start and later; what was claimed
// long ago is free.
func TestOpen_redisOfAnother(t *testing.T) {
	redis := testkit.Redis(t)
	first := open(t, named(t, testkit.JS(t), redis.URL(), "", keyset(t)))
	other := named(t, testkit.JS(t), redis.URL(), "", keyset(t))
	if _, err := installation.Open(t.Context(), other); !errors.Is(err, installation.ErrRedisOfOthers) {
		t.Fatalf("on the Redis of another: %v", err)
	}
	redis.FlushAll() // as if its time were over
	second := open(t, other)
	first.Check(t.Context())
	if err := first.Ready(t.Context()); !errors.Is(err, installation.ErrRedisOfOthers) {
		t.Errorf("a Redis that was taken: %v", err)
	}
	if err := second.Ready(t.Context()); err != nil {
		t.Errorf("who has it now: %v", err)
	}
	redis.FlushAll()
	first.Check(t.Context())
	if err := first.Ready(t.Context()); err != nil {
		t.Errorf("a Redis that is free again: %v", err)
	}
}

// A claim ends: what a process leaves in Redis has a time to live.
func TestOpen_claimHasALife(t *testing.T) {
	redis := testkit.Redis(t)
	open(t, named(t, testkit.JS(t), redis.URL(), "acme", keyset(t)))
	client := redis.Client()
	keys, err := client.Keys(t.Context(), "*").Result()
	if err != nil || len(keys) != 1 || keys[0] != "acme:"+redisx.Key("installation", "id") {
		t.Fatalf("keys %v, %v", keys, err)
	}
	if ttl, err := client.TTL(t.Context(), keys[0]).Result(); err != nil || ttl <= 0 {
		t.Errorf("it lives %v, %v", ttl, err)
	}
}

// A wrong password is refused in a sentence, by a real Redis too; the password is in no error.
func TestOpen_wrongRedisPassword(t *testing.T) {
	const wrong = "wrong-password"
	embedded, process := testkit.Redis(t), testkit.RealRedis(t)
	if err := process.Client().ConfigSet(t.Context(), "requirepass", "right-password").Err(); err != nil {
		t.Fatal(err)
	}
	for what, right := range map[string]string{"embedded": embedded.URL(), "redis-server": strings.Replace(process.URL(), "//", "//:right-password@", 1)} {
		at, err := url.Parse(right)
		if err != nil {
			t.Fatal(err)
		}
		password, _ := at.User.Password()
		for how, given := range map[string]string{"no password": "redis://" + at.Host, "a wrong one": "redis://:" + wrong + "@" + at.Host, "a wrong user": "redis://nobody:" + password + "@" + at.Host} {
			_, err := installation.Open(t.Context(), named(t, testkit.JS(t), given, "", keyset(t)))
			if !errors.Is(err, installation.ErrRedisRefuses) || strings.Contains(err.Error(), wrong) {
				t.Errorf("%s, %s: %v", what, how, err)
			}
		}
		i := open(t, named(t, testkit.JS(t), right, "", keyset(t)))
		if err := i.Ready(t.Context()); err != nil {
			t.Errorf("%s, the right one: %v", what, err)
		}
	}
}

// An address that says another kind of Redis than is there is refused in a sentence, and so are the sentinels' own passwords.
func TestOpen_anotherKindOfRedis(t *testing.T) {
	single, spread := testkit.RealRedis(t), testkit.RealClusterRedis(t, testkit.RedisSetup{}, 0)
	guarded := testkit.RealSentinelRedis(t, testkit.RedisSetup{SentinelPassword: "s3cr3t"})
	node, sentinel := strings.Split(spread.URL(), "?")[0], strings.Split(guarded.URL(), "?")[0]
	for name, c := range map[string]struct {
		url  string
		want error
	}{
		"a server as a cluster":            {single.URL() + "?cluster=true", installation.ErrRedisKind},
		"a node of a cluster as a server":  {node, installation.ErrRedisKind},
		"a sentinel as a server":           {strings.Replace(sentinel, "redis://", "redis://:s3cr3t@", 1), installation.ErrRedisKind},
		"another password of the sentinel": {strings.Replace(guarded.URL(), "s3cr3t", "s3cr3t2", 1), installation.ErrSentinelsRefuse},
		"a cluster":                        {spread.URL(), nil},
		"sentinels":                        {guarded.URL(), nil},
	} {
		cfg := named(t, testkit.JS(t), c.url, "acme", keyset(t)) // the claim of which is not on the cluster's first node
		testkit.Eventually(t, 10*time.Second, func() error {     // on a busy machine one try may find Redis away
			_, err := installation.Open(t.Context(), cfg)
			if !errors.Is(err, c.want) || err != nil && strings.Contains(err.Error(), "s3cr3t") {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
}

// Redis holds only what may be lost: one that is away keeps nobody from starting or being ready.
func TestOpen_redisAway(t *testing.T) {
	server := testkit.Redis(t)
	cfg := named(t, testkit.JS(t), server.URL(), "", keyset(t))
	server.Stop()
	i := open(t, cfg)
	i.Check(t.Context())
	if err := i.Ready(t.Context()); err != nil {
		t.Errorf("Redis away: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := i.Run(ctx); err != nil {
		t.Error(err)
	}
}

// as is the installation as the process of one service knows it.
func as(cfg installation.Config, service string, k *seal.Keyset) installation.Config {
	cfg.Keysets = seal.Shared(k, service)
	return cfg
}

// Each service may have a keyset of its own, and is refused with another's.
func TestOpen_aKeysetForEachService(t *testing.T) {
	js, redis := testkit.JS(t), testkit.Redis(t)
	cfg := named(t, js, redis.URL(), "", keyset(t))
	keys := map[string]*seal.Keyset{"auth": keyset(t), "webhook": keyset(t), "deployer": keyset(t), "gateway": keyset(t)}
	ids := map[string]bool{}
	for range 2 { // the first time and again
		for service, k := range keys {
			ids[open(t, as(cfg, service, k)).ID()] = true
		}
	}
	if len(ids) != 1 {
		t.Errorf("%d ids", len(ids))
	}
	for service := range keys {
		for other, k := range keys {
			_, err := installation.Open(t.Context(), as(cfg, service, k))
			if other != service && !errors.Is(err, installation.ErrKeyset) {
				t.Errorf("%s with the keyset of %s: %v", service, other, err)
			}
		}
	}
	if id, record, err := installation.Record(t.Context(), cfg.JS); err != nil || !ids[id] || installation.Opens(record, keys) != nil {
		t.Errorf("the record of %v: %v", ids, err)
	} else if err := installation.Opens(record, seal.Shared(keys["auth"], "auth", "gateway")); !errors.Is(err, installation.ErrKeyset) {
		t.Errorf("one of two keysets is wrong: %v", err)
	}
}

// An installation that began with one keyset for all, before each service had a canary of its own, goes on with it, and goes
// over to one for each. Meanwhile strangers are refused everywhere, also where a service was not started yet.
func TestOpen_oneKeysetForAllUntilEachHasItsOwn(t *testing.T) {
	js, redis, shared := testkit.JS(t), testkit.Redis(t), keyset(t)
	cfg := named(t, js, redis.URL(), "", shared)
	const id = "abcdefgh"
	sealed, err := shared.Seal([]byte(id), []byte(installation.Bucket+"/"+id))
	if err != nil {
		t.Fatal(err)
	}
	b, err := kv.Open[storev1.Installation](t.Context(), cfg.JS, kv.Config{Name: installation.Bucket})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create(t.Context(), "installation", &storev1.Installation{Id: id, SealedCanary: sealed, KeyId: shared.KeyIDs()[0]}); err != nil {
		t.Fatal(err)
	}
	split, own, err := shared.AddKey()
	if err != nil {
		t.Fatal(err)
	}
	if split, err = split.Promote(own); err != nil {
		t.Fatal(err)
	}
	for service, k := range map[string]*seal.Keyset{"auth": shared, "webhook": split} {
		if got := open(t, as(cfg, service, k)).ID(); got != id {
			t.Errorf("%s: another installation, %s", service, got)
		}
	}
	for _, service := range []string{"auth", "webhook", "gateway"} {
		if _, err := installation.Open(t.Context(), as(cfg, service, keyset(t))); !errors.Is(err, installation.ErrKeyset) {
			t.Errorf("a stranger as %s: %v", service, err)
		}
	}
	alone, err := split.DropKey(shared.KeyIDs()[0])
	if err != nil {
		t.Fatal(err)
	}
	open(t, as(cfg, "webhook", alone))
	if _, err := installation.Open(t.Context(), as(cfg, "webhook", shared)); !errors.Is(err, installation.ErrKeyset) {
		t.Errorf("webhook with the keyset that it had before: %v", err)
	}
}
