package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
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
func healthy(t *testing.T, status healthpb.HealthCheckResponse_ServingStatus, how ...grpc.ServerOption) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, h := grpc.NewServer(how...), health.NewServer()
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
	if (code == CodeFailed) != (r.State == checkup.Failed) {
		w.t.Errorf("code %d of %s", code, r.State)
	}
	return r
}

func (r Report) check(t *testing.T, name string) checkup.Check {
	t.Helper()
	i := slices.IndexFunc(r.Checks, func(c checkup.Check) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("there is no check %s: %+v", name, r.Checks)
	}
	return r.Checks[i]
}

// failing is a check that comes to something for a reason, and says so in words of its own, and what to do.
type failing struct {
	name, service, check string
	env                  map[string]string
	state                checkup.State
	found, remedy        string
}

// fails runs the command for each.
func (w *world) fails(list []failing) {
	t := w.t
	t.Helper()
	for _, c := range list {
		t.Run(c.name, func(t *testing.T) {
			w := *w
			w.t = t
			got := w.report(c.env, "--service="+c.service, "--check-timeout=8s").check(t, c.check)
			if got.State != c.state || !strings.Contains(got.Found, c.found) || !strings.Contains(got.Remedy, c.remedy) || got.Remedy == "" {
				t.Errorf("%+v", got)
			}
		})
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
