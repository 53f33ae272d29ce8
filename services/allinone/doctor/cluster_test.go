package doctor

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/allinone"
)

// A cluster of three NATS servers that knows a user for each service: well, also for a user who may not try anything, and
// with the name of the server that is down.
func TestRun_natsClusterWithUsers(t *testing.T) {
	const password = "s3cr3t"
	w := newWorld(t)
	nodes := testkit.Cluster(t, 3, 8<<30, func(o *server.Options) {
		o.NoAuthUser = "everybody"
		o.Users = []*server.User{{Username: "everybody", Password: password}}
		for _, user := range allinone.NATSUsers("") {
			o.Users = append(o.Users, &server.User{Username: user.Name, Password: password, Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Allow: user.Publish}, Subscribe: &server.SubjectPermission{Allow: user.Subscribe},
			}})
		}
	})
	_, js := nodes.Connect()
	for _, share := range stream.Shares() {
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
			Name: share.Stream, Subjects: []string{"test." + share.Stream}, Replicas: 3, Storage: jetstream.FileStorage, MaxBytes: 1 << 20,
		}); err != nil {
			t.Fatal(err)
		}
	}
	as := func(user string) map[string]string {
		return map[string]string{"DEVPILOT_NATS_URL": strings.ReplaceAll(nodes.URL(), "nats://", "nats://"+user+":"+password+"@")}
	}
	for _, service := range []string{"auth", "webhook", "deployer", "gateway"} {
		r := w.report(as(service), "--service="+service)
		for _, name := range []string{"nats", "nats-sync", "nats-replicas", "nats-permissions"} {
			if c := r.check(t, name); c.State != checkup.OK {
				t.Errorf("%s: %+v", service, c)
			}
		}
		if c := r.check(t, "nats-replicas"); !strings.Contains(c.Found, "3 replicas of each of the") {
			t.Errorf("%s: %+v", service, c)
		}
	}
	if c := w.report(as(allinone.Operator), "--service=webhook").check(t, "nats-replicas"); c.State != checkup.OK || c.Found != "The cluster holds 3 replicas of a stream." {
		t.Errorf("as the operator: %+v", c)
	}
	w.fails([]failing{{"the user of another service", "webhook", "nats-permissions", as("auth"), checkup.Failed, "The user may not subscribe to _INBOX", "devpilot nats-permissions"}})
	nodes.KillNamed("n1")
	for _, user := range []string{"webhook", allinone.Operator} {
		testkit.Eventually(t, timeout, func() error {
			c := w.report(as(user), "--service=webhook").check(t, "nats-replicas")
			if c.State != checkup.Warning || !strings.Contains(c.Found, "not heard of: n1 (it has replicas of ") || !strings.Contains(c.Remedy, "before another one is lost") {
				return fmt.Errorf("as %s, with n1 down: %+v", user, c)
			}
			return nil
		})
	}
	nodes.KillNamed("n2")
	testkit.Eventually(t, timeout, func() error {
		c := w.report(as("webhook"), "--service=webhook").check(t, "nats-replicas")
		if c.State != checkup.Failed || !strings.Contains(c.Found, "take no writes") || !strings.Contains(c.Remedy, "Start") {
			return fmt.Errorf("with n1 and n2 down: %+v", c)
		}
		return nil
	})
}

// A Redis of several servers that encrypts: well, and with the address of the replica that is down.
func TestRun_redisOfSeveralThatEncrypts(t *testing.T) {
	w := newWorld(t)
	w.begin(w.keys)
	guarded := testkit.RealSentinelRedis(t, testkit.RedisSetup{Password: "s3cr3t", SentinelPassword: "s3cr3t2", TLSHost: "localhost"})
	spread := testkit.RealClusterRedis(t, testkit.RedisSetup{Password: "s3cr3t", TLSHost: "localhost"}, 1)
	other, _ := testkit.StoreCertificate(t, "localhost")
	for name, c := range map[string]struct {
		url, authorities, well, away string
		kill                         func()
	}{
		"sentinel": {guarded.URL(), guarded.Authorities(), "with 2 replicas", "Replicas that the sentinels know and do not reach: ", guarded.Servers[2].Kill},
		"cluster":  {spread.URL(), spread.Authorities(), "a cluster of 3 masters and 3 replicas", "Nodes of it that do not answer: ", spread.Nodes[4].Kill},
	} {
		t.Run(name, func(t *testing.T) {
			w := *w
			w.t = t
			env := map[string]string{"DEVPILOT_REDIS_URL": c.url, "DEVPILOT_REDIS_CA_FILE": c.authorities}
			testkit.Eventually(t, timeout, func() error { // the servers tell each other of their replicas now and then
				r := w.report(env, "--service=auth")
				if c, e := r.check(t, "redis"), r.check(t, "redis-eviction"); c.State != checkup.OK || e.State != checkup.OK {
					return fmt.Errorf("%+v, %+v", c, e)
				}
				return nil
			})
			if got := w.report(env, "--service=auth").check(t, "redis"); !strings.Contains(got.Found, c.well) {
				t.Errorf("%+v", got)
			}
			if got := w.report(map[string]string{"DEVPILOT_REDIS_URL": c.url, "DEVPILOT_REDIS_CA_FILE": other}, "--service=auth").check(t, "redis"); got.State != checkup.Failed ||
				!strings.Contains(got.Found, "by an authority that is not known here") || !strings.Contains(got.Remedy, "DEVPILOT_REDIS_CA_FILE") {
				t.Errorf("with another authority: %+v", got)
			}
			c.kill()
			testkit.Eventually(t, timeout, func() error {
				got := w.report(env, "--service=auth").check(t, "redis")
				if got.State != checkup.Warning || !strings.Contains(got.Found, c.away+"127.0.0.1:") || !strings.Contains(got.Remedy, "make it whole") {
					return fmt.Errorf("%+v", got)
				}
				return nil
			})
		})
	}
}
