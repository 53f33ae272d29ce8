package doctor

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/allinone"
)

// Where all is well nothing fails, for the settings of each service; the shape of the answer is stable.
func TestRun_eachServiceIsWell(t *testing.T) {
	w := newWorld(t)
	w.begin(w.env["DEVPILOT_ENCRYPTION_KEYSET_FILE"])
	for _, name := range allinone.Services() {
		r := w.report(nil, "--service="+name)
		for _, c := range r.Checks {
			if c.State == checkup.Failed && c.Name != "public-url" && c.Name != "webhook-delivery" { // nothing listens there here
				t.Errorf("%s: %+v", name, c)
			}
			if c.Found == "" || (c.Remedy == "") != (c.State == checkup.OK || c.State == checkup.Skipped) {
				t.Errorf("%s: %+v has no sentence, or a remedy for nothing", name, c)
			}
		}
		if r.Program != name || r.Version == "" || time.Since(r.Time) > timeout || r.OK+r.Warnings+r.Failed+r.Skipped != len(r.Checks) {
			t.Errorf("%+v", r)
		}
	}
	for _, key := range []string{"nats", "nats-storage", "nats-permissions", "redis", "keyset", "identity-keys"} {
		if c := w.report(nil, "--service=auth").check(t, key); c.State != checkup.OK {
			t.Errorf("%+v", c)
		}
	}
	for url, found := range map[string]string{
		testkit.RealClusterRedis(t, testkit.RedisSetup{}, 0).URL():                                              "a cluster of 3 masters and 0 replicas",
		testkit.RealSentinelRedis(t, testkit.RedisSetup{Password: "s3cr3t", SentinelPassword: "s3cr3t2"}).URL(): "3 sentinels of DEVPILOT_REDIS_URL know as devpilot, with 2 replicas",
	} {
		if c := w.report(map[string]string{"DEVPILOT_REDIS_URL": url}, "--service=auth").check(t, "redis"); c.State != checkup.OK || !strings.Contains(c.Found, found) {
			t.Errorf("%+v", c)
		}
	}
	limited := w.report(map[string]string{"DEVPILOT_NATS_URL": realNATS(t, allow("auth"))}, "--service=auth")
	if c := limited.check(t, "nats-permissions"); c.State != checkup.OK || !strings.Contains(c.Found, "may do all that auth does") {
		t.Errorf("%+v", c)
	}
	if c := limited.check(t, "nats-storage"); c.State != checkup.Skipped || !strings.Contains(c.Found, "user operator") {
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
	for _, name := range append(allinone.Services(), whole) {
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
	if c := r.check(t, "clock"); c.State != checkup.Failed {
		t.Errorf("%+v", c)
	}
	if c := r.check(t, "redis"); c.State != checkup.OK {
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
	for _, name := range allinone.Services() {
		w.report(nil, "--service="+name)
	}
	if after := left(); !slices.Equal(before, after) {
		t.Errorf("before %v, after %v", before, after)
	}
}
