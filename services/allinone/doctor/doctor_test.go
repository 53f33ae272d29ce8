package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/allinone"
)

// timeout bounds every wait.
const timeout = 60 * time.Second

// world is what an installation of separate services has around it, all of it well.
type world struct {
	t    *testing.T
	nats *testkit.NATSServer
	env  map[string]string
	keys string // directory of the keys
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, nats: testkit.NATS(t), keys: filepath.Join(t.TempDir(), "keys")}
	if err := allinone.MakeKeys(&bytes.Buffer{}, w.keys); err != nil {
		t.Fatal(err)
	}
	site := aBitbucket(t)
	w.env = map[string]string{
		"DEVPILOT_NATS_URL": w.nats.URL(), "DEVPILOT_REDIS_URL": testkit.RealRedis(t).URL(),
		"DEVPILOT_ENCRYPTION_KEYSET_FILE": w.keys, "DEVPILOT_IDENTITY_KEY_FILE": filepath.Join(w.keys, "identity.json"),
		"DEVPILOT_BITBUCKET_SITE_URL": site, "DEVPILOT_BITBUCKET_API_URL": site + "/2.0",
		"DEVPILOT_BITBUCKET_CLIENT_ID": emulator.DefaultConsumer().Key, "DEVPILOT_BITBUCKET_CLIENT_SECRET": emulator.DefaultConsumer().Secret,
		"DEVPILOT_PUBLIC_URL": "http://127.0.0.1:1", "DEVPILOT_OPS_LISTEN": "127.0.0.1:1", "DEVPILOT_DATA_DIR": t.TempDir(),
	}
	for _, name := range []string{"auth", "repo", "webhook", "deployer"} {
		w.env[addressVariable(name)] = healthy(t, healthpb.HealthCheckResponse_SERVING)
	}
	return w
}

// aBitbucket is one on a port of its own.
func aBitbucket(t *testing.T) string {
	t.Helper()
	var handler http.Handler
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(s.Close)
	consumer := emulator.DefaultConsumer()
	consumer.CallbackURL = "http://127.0.0.1:1/oauth/bitbucket/callback"
	e, err := emulator.New(emulator.Options{SiteURL: s.URL, DataDir: t.TempDir(), Consumer: consumer, Logger: logs.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	handler = e.Handler()
	return s.URL
}

// healthy is a service that says how it is, and nothing else.
func healthy(t *testing.T, status healthpb.HealthCheckResponse_ServingStatus) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, h := grpc.NewServer(), health.NewServer()
	h.SetServingStatus("", status)
	healthpb.RegisterHealthServer(s, h)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

// run is the command as it is called; env changes what the world has, and is "-" for none.
func (w *world) run(env map[string]string, args ...string) (code int, out, errs string) {
	w.t.Helper()
	var environ []string
	for name, value := range w.env {
		if _, changed := env[name]; !changed {
			environ = append(environ, name+"="+value)
		}
	}
	for name, value := range env {
		if value != "-" {
			environ = append(environ, name+"="+value)
		}
	}
	return call(w.t, environ, args...)
}

func call(t *testing.T, environ []string, args ...string) (code int, out, errs string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	code = Run(ctx, servicemain.Process{Args: args, Environ: environ, Stdout: &stdout, Stderr: &stderr})
	return code, stdout.String(), stderr.String()
}

// report is what the command found, as a program reads it.
func (w *world) report(env map[string]string, args ...string) Report {
	w.t.Helper()
	code, out, errs := w.run(env, append(args, "--output=json")...)
	var r Report
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil || errs != "" {
		w.t.Fatalf("%v, code %d, said %q:\n%s", err, code, errs, out)
	}
	if (code == CodeFailed) != (r.State == Failed) {
		w.t.Errorf("code %d of %s", code, r.State)
	}
	return r
}

func (r Report) check(t *testing.T, name string) Check {
	t.Helper()
	i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("there is no check %s: %+v", name, r.Checks)
	}
	return r.Checks[i]
}

// Every check fails when what it is about is wrong, says so in words of its own, and what to do.
func TestRun_eachCheckFailsForItsReason(t *testing.T) {
	w := newWorld(t)
	other := filepath.Join(t.TempDir(), "other")
	if err := allinone.MakeKeys(&bytes.Buffer{}, other); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "broken.json")
	if err := os.WriteFile(broken, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.begin(w.keys)
	spread, guarded := testkit.RealClusterRedis(t, testkit.RedisSetup{}, 0), testkit.RealSentinelRedis(t, testkit.RedisSetup{})
	for _, c := range []struct {
		name, service, check string
		env                  map[string]string
		state                State
		found, remedy        string
	}{
		{"unknown name", "auth", "settings", map[string]string{"DEVPILOT_PUBLC_URL": "x"}, Failed, "did you mean DEVPILOT_PUBLIC_URL?", "does not start"},
		{"required name", "webhook", "settings", map[string]string{"DEVPILOT_AUTH_ADDR": "-"}, Failed, "DEVPILOT_AUTH_ADDR is not set", "does not start"},
		{"out of bounds", "auth", "settings", map[string]string{"DEVPILOT_STREAMS_MIB": "1"}, Failed, "give from 256", "does not start"},
		{"public URL with a path", "gateway", "settings", map[string]string{"DEVPILOT_PUBLIC_URL": "https://a.example/x"}, Failed, "DEVPILOT_PUBLIC_URL", "does not start"},
		{"name of the installation", "auth", "settings", map[string]string{"DEVPILOT_INSTALLATION": "Upper"}, Failed, "DEVPILOT_INSTALLATION", "does not start"},
		{"NATS gone", "auth", "nats", map[string]string{"DEVPILOT_NATS_URL": "nats://127.0.0.1:1"}, Failed, "does not answer", "Start NATS"},
		{"NATS too old", "auth", "nats", map[string]string{"DEVPILOT_NATS_URL": oldNATS(t)}, Failed, "nats-server 2.9.25", "needs 2.15 or newer"},
		{"no JetStream", "auth", "nats", map[string]string{"DEVPILOT_NATS_URL": realNATS(t, func(o *server.Options) { o.JetStream = false })}, Failed, "but not its JetStream", "Switch JetStream on"},
		{"replicas on one server", "auth", "nats-replicas", map[string]string{"DEVPILOT_NATS_REPLICAS": "3"}, Failed, "single server", "leave DEVPILOT_NATS_REPLICAS out"},
		{"store too small", "auth", "nats-storage", map[string]string{"DEVPILOT_NATS_URL": realNATS(t, func(o *server.Options) { o.JetStreamMaxStore = 2 << 30 })}, Failed, "4352 MiB are needed", "to 1792 or less"},
		{"may not make streams", "auth", "nats-permissions", map[string]string{"DEVPILOT_NATS_URL": realNATS(t, deny("$JS.API.STREAM.CREATE.>"))}, Failed, "may not publish to $JS.API.STREAM.CREATE.DEVPILOT_", "devpilot nats-permissions"},
		{"may not publish", "auth", "nats-permissions", map[string]string{"DEVPILOT_NATS_URL": realNATS(t, deny("devpilot.>"))}, Failed, "may not publish to devpilot.dead.v1.>, publish to devpilot.event.v1.auth.>", "devpilot nats-permissions"},
		{"another service's user", "auth", "nats-permissions", map[string]string{"DEVPILOT_NATS_URL": realNATS(t, allow("webhook"))}, Failed, "may not publish to $JS.ACK.KV_DEVPILOT_AUTH_INTEGRATIONS", "devpilot nats-permissions"},
		{"Redis gone", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": "redis://127.0.0.1:1"}, Failed, "does not answer", "Start Redis"},
		{"Redis refuses", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": withPassword(t, w.env["DEVPILOT_REDIS_URL"])}, Failed, "refuses the user or the password", "put DEVPILOT_REDIS_URL right"},
		{"Redis of others", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": foreignRedis(t)}, Failed, "in use by another installation", "of its own"},
		{"Redis that is a cluster", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": "redis://" + strings.TrimPrefix(strings.Split(spread.URL(), "?")[0], "redis://")}, Failed, "spread over servers", "?cluster=true"},
		{"Redis that is none", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": w.env["DEVPILOT_REDIS_URL"] + "?cluster=true"}, Failed, "not what the address says, a cluster", "redis://host:6379/0 is one server"},
		{"Redis that is a sentinel", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": strings.Split(guarded.URL(), "?")[0]}, Failed, "this is a sentinel", "?master_name="},
		{"sentinels that do not know it", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": strings.Replace(guarded.URL(), "master_name=", "master_name=x", 1)}, Failed, `know no Redis called "xdevpilot"`, "Start Redis"},
		{"a sentinel gone", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": guarded.URL() + "&addr=127.0.0.1:1"}, Warning, "do not say where it is: 127.0.0.1:1 (", "make it whole"},
		{"an address that is none", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": guarded.URL() + "&cluster=true"}, Failed, "leave one out", "redis://user:password@host"},
		{"Redis that evicts", "auth", "redis-eviction", map[string]string{"DEVPILOT_REDIS_URL": evicting(t, "allkeys-lru")}, Warning, "allkeys-lru; its memory is bounded to 64.00M", "noeviction"},
		{"Redis that evicts what ends", "auth", "redis-eviction", map[string]string{"DEVPILOT_REDIS_URL": evicting(t, "volatile-ttl")}, Warning, "which all of ours do", "noeviction"},
		{"foreign keyset", "auth", "keyset", map[string]string{"DEVPILOT_ENCRYPTION_KEYSET_FILE": other}, Failed, "does not open what is stored", "its service began with"},
		{"broken keyset", "auth", "keyset", map[string]string{"DEVPILOT_ENCRYPTION_KEYSET_FILE": broken}, Failed, "cannot be used", "restore it from a backup"},
		{"key of another service", "auth", "identity-keys", map[string]string{"DEVPILOT_IDENTITY_KEY_FILE": filepath.Join(w.keys, "identity-repo.json")}, Failed, "no private key of auth", "make-keys"},
		{"clock", "repo", "clock", map[string]string{"DEVPILOT_BITBUCKET_SITE_URL": answering(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		})}, Failed, "behind Bitbucket's", "NTP"},
		{"no Bitbucket", "repo", "clock", map[string]string{"DEVPILOT_BITBUCKET_SITE_URL": "http://127.0.0.1:1"}, Failed, "does not answer", "reaches Bitbucket"},
		{"something else at the public URL", "gateway", "public-url", map[string]string{"DEVPILOT_PUBLIC_URL": answering(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"hello":1}`) })}, Failed, "is not Devpilot", "Point the name"},
		{"nothing at the public URL", "gateway", "public-url", nil, Failed, "does not answer", "Point the name"},
		{"wrong secret of the consumer", "auth", "oauth-consumer", map[string]string{"DEVPILOT_BITBUCKET_CLIENT_SECRET": "wrong"}, Failed, "does not accept the OAuth consumer", "callback URL has to be http://127.0.0.1:1/oauth"},
		{"no consumer", "auth", "oauth-consumer", map[string]string{"DEVPILOT_BITBUCKET_CLIENT_ID": "-"}, Warning, "nobody can connect", "DEVPILOT_BITBUCKET_CLIENT_ID"},
		{"something else takes deliveries", "webhook", "webhook-delivery", map[string]string{"DEVPILOT_PUBLIC_URL": answering(t, func(http.ResponseWriter, *http.Request) {})}, Failed, "not this Devpilot that answers", "passes POST"},
		{"disk", "deployer", "disk", map[string]string{"DEVPILOT_DISK_RESERVE_MIB": "2147483647"}, Failed, "deployments wait", "Make room"},
		{"hooks without a network they ask for", "deployer", "sandbox", map[string]string{"DEVPILOT_HOOK_ALLOW": "nonsense"}, Failed, "--hook-allow", "bubblewrap"},
		{"service gone", "gateway", "service-repo", map[string]string{"DEVPILOT_REPO_ADDR": "127.0.0.1:1"}, Failed, "repo at 127.0.0.1:1 does not answer", "Start repo"},
		{"service that does not serve", "gateway", "service-auth", map[string]string{"DEVPILOT_AUTH_ADDR": healthy(t, healthpb.HealthCheckResponse_NOT_SERVING)}, Failed, "auth", "auth"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			got := w.report(c.env, "--service="+c.service, "--check-timeout=8s").check(t, c.check)
			if got.State != c.state || !strings.Contains(got.Found, c.found) || !strings.Contains(got.Remedy, c.remedy) || got.Remedy == "" {
				t.Errorf("%+v", got)
			}
		})
	}
}

// Where all is well nothing fails, for the settings of each service; the shape of the answer is stable.
func TestRun_eachServiceIsWell(t *testing.T) {
	w := newWorld(t)
	w.begin(w.env["DEVPILOT_ENCRYPTION_KEYSET_FILE"])
	for _, name := range services() {
		r := w.report(nil, "--service="+name)
		for _, c := range r.Checks {
			if c.State == Failed && c.Name != "public-url" && c.Name != "webhook-delivery" { // nothing listens there here
				t.Errorf("%s: %+v", name, c)
			}
			if c.Found == "" || (c.Remedy == "") != (c.State == OK || c.State == Skipped) {
				t.Errorf("%s: %+v has no sentence, or a remedy for nothing", name, c)
			}
		}
		if r.Program != name || r.Version == "" || time.Since(r.Time) > timeout || r.OK+r.Warnings+r.Failed+r.Skipped != len(r.Checks) {
			t.Errorf("%+v", r)
		}
	}
	for _, key := range []string{"nats", "nats-storage", "nats-permissions", "redis", "keyset", "identity-keys"} {
		if c := w.report(nil, "--service=auth").check(t, key); c.State != OK {
			t.Errorf("%+v", c)
		}
	}
	for url, found := range map[string]string{
		testkit.RealClusterRedis(t, testkit.RedisSetup{}, 0).URL():                                              "a cluster of 3 masters and 0 replicas",
		testkit.RealSentinelRedis(t, testkit.RedisSetup{Password: "s3cr3t", SentinelPassword: "s3cr3t2"}).URL(): "3 sentinels of DEVPILOT_REDIS_URL know as devpilot, with 2 replicas",
	} {
		if c := w.report(map[string]string{"DEVPILOT_REDIS_URL": url}, "--service=auth").check(t, "redis"); c.State != OK || !strings.Contains(c.Found, found) {
			t.Errorf("%+v", c)
		}
	}
	limited := w.report(map[string]string{"DEVPILOT_NATS_URL": realNATS(t, allow("auth"))}, "--service=auth")
	if c := limited.check(t, "nats-permissions"); c.State != OK || !strings.Contains(c.Found, "may do all that auth does") {
		t.Errorf("%+v", c)
	}
	if c := limited.check(t, "nats-storage"); c.State != Skipped || !strings.Contains(c.Found, "user operator") {
		t.Errorf("%+v", c)
	}
	_, out, _ := w.run(nil, "--service=auth", "-o", "json")
	var shape map[string]any
	if err := json.Unmarshal([]byte(out), &shape); err != nil {
		t.Fatal(err)
	}
	first := shape["checks"].([]any)[0].(map[string]any)
	for _, c := range []struct {
		of   map[string]any
		keys string
	}{{shape, "program version time state ok warnings failed skipped checks"}, {first, "name state found remedy durationMillis"}} {
		for key := range strings.FieldsSeq(c.keys) {
			if _, has := c.of[key]; !has {
				t.Errorf("%s is missing in %v", key, c.of)
			}
			delete(c.of, key)
		}
		if len(c.of) > 0 {
			t.Errorf("more than was promised: %v", c.of)
		}
	}
}

// A program as old as the settings of a machine: git missing, too old, and no bubblewrap.
func TestRun_programsOfTheMachine(t *testing.T) {
	w := newWorld(t)
	empty := t.TempDir()
	t.Setenv("PATH", empty)
	r := w.report(nil, "--service=deployer")
	if c := r.check(t, "git"); c.State != Failed || !strings.Contains(c.Found, "no git on the PATH") {
		t.Errorf("%+v", c)
	}
	if c := r.check(t, "sandbox"); c.State != Failed || !strings.Contains(c.Found, "no bubblewrap") || !strings.Contains(c.Remedy, "Install bubblewrap") {
		t.Errorf("%+v", c)
	}
	if c := w.report(map[string]string{"DEVPILOT_ALLOW_UNSANDBOXED_HOOKS": "true"}, "--service=deployer").check(t, "sandbox"); c.State != Warning {
		t.Errorf("%+v", c)
	}
	if err := os.WriteFile(filepath.Join(empty, "git"), []byte("#!/bin/sh\necho git version 2.20.1\n"), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	if c := w.report(nil, "--service=deployer").check(t, "git"); c.State != Failed || !strings.Contains(c.Found, "2.20.1 is too old") {
		t.Errorf("%+v", c)
	}
}

// What can be known of whether NATS syncs is asked of its monitoring, and is no guess where it has none.
func TestSync_asFarAsItIsKnown(t *testing.T) {
	for name, c := range map[string]struct {
		always, monitored bool
		want              State
	}{"not always": {false, true, Failed}, "always": {true, true, OK}, "not told": {true, false, Skipped}} {
		port := testkit.FreePort(t)
		url := realNATS(t, func(o *server.Options) {
			o.SyncAlways = c.always
			if c.monitored {
				o.HTTPHost, o.HTTPPort = "127.0.0.1", port
			}
		})
		f, _, usable, err := read(servicemain.Process{Environ: []string{"DEVPILOT_NATS_URL=" + url}, Args: []string{"--service=auth"}, Stdout: &bytes.Buffer{}})
		if err != nil {
			t.Fatal(err)
		}
		x := newExam(t.Context(), f, nil, usable)
		x.monitorPort = fmt.Sprint(port)
		if got := x.sync(t.Context()); got.State != c.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestRun_exitCodes(t *testing.T) {
	w := newWorld(t)
	warn := map[string]string{"DEVPILOT_BITBUCKET_CLIENT_ID": "-", "DEVPILOT_BITBUCKET_CLIENT_SECRET": "-"}
	served := answering(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"version":"v1","bitbucketSiteUrl":"x"}`) })
	warn["DEVPILOT_PUBLIC_URL"] = served
	for _, c := range []struct {
		name string
		env  map[string]string
		args string
		want int
	}{
		{"well", map[string]string{"DEVPILOT_PUBLIC_URL": served}, "--service=auth", CodeWell}, {"a warning", warn, "--service=auth", CodeWell}, {"a warning, strictly", warn, "--service=auth --strict", CodeFailed},
		{"failed", map[string]string{"DEVPILOT_NATS_URL": "nats://127.0.0.1:1"}, "--service=auth", CodeFailed},
		{"unknown flag", nil, "--bogus", CodeUsage}, {"unknown service", nil, "--service=nobody", CodeUsage}, {"output", nil, "--output=xml", CodeUsage},
		{"help", nil, "--help", CodeWell}, {"version", nil, "--version", CodeWell},
	} {
		if code, out, errs := w.run(c.env, strings.Fields(c.args)...); code != c.want || (code == CodeUsage) != (errs != "") {
			t.Errorf("%s: %d, want %d; said %q\n%s", c.name, code, c.want, errs, out)
		}
	}
	_, out, _ := w.run(warn, "--service=auth")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if last := lines[len(lines)-1]; !strings.Contains(last, "1 with a warning, 0 failed") || !strings.Contains(last, "It works; read the warnings.") {
		t.Errorf("the last line: %s", last)
	}
}

// No secret is shown, whatever fails, in either form.
func TestRun_showsNoSecret(t *testing.T) {
	const planted = "pl4nted-s3cret"
	w := newWorld(t)
	env := map[string]string{
		"DEVPILOT_NATS_URL": "nats://user:" + planted + "1@127.0.0.1:1,nats://" + planted + "2@127.0.0.1:2", "DEVPILOT_REDIS_URL": "redis://user:" + planted + "3@127.0.0.1:1/x?master_name=m&sentinel_password=" + planted + "4",
		"DEVPILOT_BITBUCKET_CLIENT_SECRET": planted + "4", "DEVPILOT_ADMIN_TOKEN": planted + "5", "DEVPILOT_SMTP_PASSWORD": planted + "6", "DEVPILOT_PUBLIC_URL": "https://u:" + planted + "@a.example",
	}
	for _, name := range append(services(), whole) {
		for _, output := range []string{"table", "json"} {
			if _, out, errs := w.run(env, "--service="+name, "-o", output); strings.Contains(out+errs, planted) {
				t.Errorf("%s as %s:\n%s%s", name, output, out, errs)
			}
		}
	}
}

// A check that hangs fails after its time, and holds up no other.
func TestRun_aCheckThatHangsIsBounded(t *testing.T) {
	w := newWorld(t)
	hang := make(chan struct{})
	url := answering(t, func(http.ResponseWriter, *http.Request) { <-hang })
	t.Cleanup(func() { close(hang) }) // before the server waits for its requests
	r := w.report(map[string]string{"DEVPILOT_BITBUCKET_SITE_URL": url}, "--service=repo", "--check-timeout=1s")
	if c := r.check(t, "clock"); c.State != Failed {
		t.Errorf("%+v", c)
	}
	if c := r.check(t, "redis"); c.State != OK {
		t.Errorf("%+v", c)
	}
}

// Nothing stays of what was made to find out: neither at NATS nor in Redis.
func TestRun_changesNothingThatStays(t *testing.T) {
	w := newWorld(t)
	w.begin(w.env["DEVPILOT_ENCRYPTION_KEYSET_FILE"])
	left := func() (all []string) {
		list := w.nats.JS().StreamNames(t.Context())
		for name := range list.Name() {
			all = append(all, name)
		}
		redis, err := redisx.ConnectWithin(w.env["DEVPILOT_REDIS_URL"], timeout)
		if err != nil || list.Err() != nil {
			t.Fatal(err, list.Err())
		}
		defer redis.Close()
		n, err := redis.DBSize(t.Context()).Result()
		if err != nil {
			t.Fatal(err)
		}
		return append(all, fmt.Sprint(n))
	}
	before := left()
	for _, name := range services() {
		w.report(nil, "--service="+name)
	}
	if after := left(); !slices.Equal(before, after) {
		t.Errorf("before %v, after %v", before, after)
	}
}

// begin makes the stores those of the installation of keysets.
func (w *world) begin(keyset string) {
	w.t.Helper()
	keys, err := seal.LoadKeysets(keyset, allinone.Sealers()...)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := installation.Open(w.t.Context(), installation.Config{JS: kv.NewSession(w.nats.JS(), stream.Settings{}), Redis: testkit.Redis(w.t).Client(), Keysets: keys, Logger: logs.Discard()}); err != nil {
		w.t.Fatal(err)
	}
}

func answering(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// oldNATS says what a server of long ago says, and answers pings.
func oldNATS(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintf(c, "INFO {\"server_id\":\"X\",\"version\":\"2.9.25\",\"proto\":1,\"max_payload\":1048576,\"headers\":true,\"jetstream\":true}\r\n")
				buffer := make([]byte, 4096)
				for {
					n, err := c.Read(buffer)
					if err != nil {
						return
					}
					if bytes.Contains(buffer[:n], []byte("PING")) {
						fmt.Fprint(c, "PONG\r\n")
					}
				}
			}()
		}
	}()
	return "nats://" + l.Addr().String()
}

// realNATS is a server with options of the test's own.
func realNATS(t *testing.T, change func(o *server.Options)) string {
	t.Helper()
	o := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: testkit.FastDir(t), JetStreamMaxStore: 8 << 30, SyncAlways: true}
	change(o)
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(timeout) {
		t.Fatal("nats-server is not ready")
	}
	return s.ClientURL()
}

// deny lets everybody publish to all but a subject.
func deny(subject string) func(o *server.Options) {
	return func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{subject}}}}}
		o.NoAuthUser = "u"
	}
}

// allow gives everybody the permissions of one service.
func allow(service string) func(*server.Options) {
	return func(o *server.Options) {
		for _, user := range allinone.NATSUsers("") {
			if user.Name == service {
				o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
					Publish: &server.SubjectPermission{Allow: user.Publish}, Subscribe: &server.SubjectPermission{Allow: append(user.Subscribe, "_INBOX.>")},
				}}}
			}
		}
		o.NoAuthUser = "u"
	}
}

func withPassword(t *testing.T, url string) string {
	t.Helper()
	return strings.Replace(url, "redis://", "redis://nobody:wrong@", 1)
}

func foreignRedis(t *testing.T) string {
	t.Helper()
	r := testkit.RealRedis(t)
	if err := r.Client().Set(t.Context(), "devpilot:installation:v1:id:{}", "another", 0).Err(); err != nil {
		t.Fatal(err)
	}
	return r.URL()
}

func evicting(t *testing.T, policy string) string {
	t.Helper()
	r := testkit.RealRedis(t)
	for name, value := range map[string]string{"maxmemory": "64mb", "maxmemory-policy": policy} {
		if err := r.Client().ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	return r.URL()
}

// files are all files of a directory with their sizes and times.
func files(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && !d.IsDir() {
			all = append(all, fmt.Sprintf("%s %d %v", path, info.Size(), info.ModTime()))
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}

// The product in one process: before its first start, beside it while it runs, and after it. Nothing of its
// data directory is changed.
func TestRun_allInOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	at := func() string { return fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)) }
	environ := []string{
		"DEVPILOT_DATA_DIR=" + dir, "DEVPILOT_LISTEN=" + at(), "DEVPILOT_OPS_LISTEN=" + at(), "DEVPILOT_LIVE_LISTEN=" + at(),
		"DEVPILOT_EMULATOR=true", "DEVPILOT_EMULATOR_LISTEN=" + at(), "DEVPILOT_STREAMS_MIB=512",
	}
	w := &world{t: t}
	look := func(env ...string) Report {
		t.Helper()
		w.env = map[string]string{}
		for _, variable := range append(slices.Clone(environ), env...) {
			name, value, _ := strings.Cut(variable, "=")
			w.env[name] = value
		}
		return w.report(nil)
	}
	r := look()
	for name, want := range map[string]State{"settings": OK, "process": Skipped, "nats": OK, "nats-storage": OK, "keyset": Skipped, "public-url": Skipped, "webhook-delivery": Skipped} {
		if c := r.check(t, name); c.State != want {
			t.Errorf("before the first start: %+v", c)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the data directory was made: %v", err)
	}
	if c := look("DEVPILOT_STREAMS_MIB=1048576").check(t, "nats-storage"); c.State != Failed || !strings.Contains(c.Found, "a new store needs 1049") {
		t.Errorf("a volume too small: %+v", c)
	}

	f := &Flags{}
	if _, err := servicemain.Parse(servicemain.Process{Environ: environ}, servicemain.Settings{Name: "devpilot", Grammar: f, Vars: map[string]string{"listen": "", "grpc_listen": "", "ops_listen": "", "drain_delay": "0s"}}); err != nil {
		t.Fatal(err)
	}
	f.EmulatorScenario = allinone.DefaultScenario
	product, err := allinone.New(t.Context(), f.Settings, logs.Discard())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	ready := make(chan struct{})
	product.Started = func(context.Context, *allinone.Product) { close(ready) }
	go func() { ended <- product.Run(ctx) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("the product ended: %v", err)
	}
	// Also without the flag that it was started with, as after make run.
	for beside, env := range map[string][]string{"with its settings": nil, "without its flag": {"DEVPILOT_EMULATOR=false", "DEVPILOT_EMULATOR_LISTEN=localhost:1"}} {
		for _, c := range look(env...).Checks {
			if c.State != OK && (c.Name != "sandbox" || c.State != Warning) {
				t.Errorf("beside it, %s: %+v", beside, c)
			}
		}
	}
	keyset, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(t.TempDir(), "foreign.json")
	if err := keyset.SaveFile(foreign); err != nil {
		t.Fatal(err)
	}
	r = look("DEVPILOT_ENCRYPTION_KEYSET_FILE=" + foreign)
	if c := r.check(t, "keyset"); c.State != Failed || !strings.Contains(c.Found, "another installation's") {
		t.Errorf("beside it, with a foreign keyset: %+v", c)
	}
	if c := r.check(t, "webhook-delivery"); c.State != Failed || !strings.Contains(c.Found, "answers 401") {
		t.Errorf("signed with a foreign keyset: %+v", c)
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}

	before := files(t, dir)
	r = look()
	if c := r.check(t, "keyset"); c.State != OK || !strings.Contains(c.Found, "opens what is stored") {
		t.Errorf("after it: %+v", c)
	}
	if c := r.check(t, "process"); c.State != Skipped {
		t.Errorf("after it: %+v", c)
	}
	if after := files(t, dir); !slices.Equal(before, after) {
		t.Errorf("the data directory changed: %v, %v", before, after)
	}
}

// A store that cannot hold the streams ends the product's start with a sentence that has the numbers.
func TestProduct_aStoreThatIsTooSmallEndsTheStart(t *testing.T) {
	url := realNATS(t, func(o *server.Options) { o.JetStreamMaxStore = 2 << 30 })
	settings := allinone.Settings{}
	at := func() string { return fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)) }
	settings.DataDir, settings.NATSURL, settings.Listen, settings.OpsListen = t.TempDir(), seal.NewSecret(url), at(), at()
	settings.BitbucketSiteURL, settings.BitbucketAPIURL, settings.Roles, settings.StreamsMiB = "https://bitbucket.org", "https://api.bitbucket.org/2.0", []string{"api"}, 4096
	run := func() error {
		product, err := allinone.New(t.Context(), settings, logs.Discard())
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		product.Started = func(context.Context, *allinone.Product) { stop() }
		return product.Run(ctx)
	}
	err := run()
	if !errors.Is(err, stream.ErrNoRoom) || !strings.Contains(err.Error(), "needs 4352 MiB, 4096 for its streams (DEVPILOT_STREAMS_MIB) and 256 for records, and the store has 2048 MiB") {
		t.Fatalf("%v", err)
	}
	settings.StreamsMiB = 1024
	if err := run(); err != nil {
		t.Errorf("with a setting that fits: %v", err)
	}
}
