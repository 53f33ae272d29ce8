package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/services/allinone"
)

// outerDoor is what stands at the public URL: the product, or what answers in its place.
type outerDoor struct {
	*httptest.Server
	instead atomic.Pointer[http.HandlerFunc]
}

func openOuterDoor(t *testing.T, listen string) *outerDoor {
	t.Helper()
	f := &outerDoor{}
	product := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: listen})
		r.Out.Host = r.In.Host
	}}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if other := f.instead.Load(); other != nil {
			(*other)(w, r)
			return
		}
		product.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

// found is what a proof says of one check: its words match a pattern.
type found struct{ state, message, remedy string }

// proven makes a proof and holds it to what it finds; of what is not named, everything is well.
func (n *tenant) proven(body object, want map[string]found) {
	n.t.Helper()
	report := n.api.must("POST", n.path("/integrations/bitbucket:prove"), body)
	text, _ := report["text"].(string)
	left, well := maps.Clone(want), true
	for _, c := range objects(report["checks"]) {
		name := fmt.Sprint(c["name"])
		w, named := left[name]
		if !named {
			w = found{"PASSED", ".+", ""}
		}
		delete(left, name)
		well = well && w.state != "FAILED"
		message, _ := c["message"].(string)
		remedy, _ := c["remedy"].(string)
		if c["state"] != w.state || !regexp.MustCompile("^(?:"+w.message+")$").MatchString(message) || remedy != w.remedy {
			n.t.Errorf("%s: %v %q with remedy %q, want %s %q with %q", name, c["state"], message, remedy, w.state, w.message, w.remedy)
		}
		if !strings.Contains(text, message) || !strings.Contains(text, remedy) {
			n.t.Errorf("%s is not in the report to share:\n%s", name, text)
		}
	}
	if len(left) > 0 || report["passed"] != well || report["running"] == true {
		n.t.Errorf("not checked: %v, passed %v:\n%s", slices.Sorted(maps.Keys(left)), report["passed"], text)
	}
	n.sharesNothing(report, n.api.get(n.path("/integrations/bitbucket/proof")))
}

// sharesNothing searches reports for all secrets that Bitbucket and the product know.
func (n *tenant) sharesNothing(reports ...object) {
	n.t.Helper()
	secrets := map[string]string{"consumer secret": consumer.Secret, "admin token": n.adminToken()}
	for i, secret := range n.site().passed() {
		secrets[fmt.Sprintf("secret %d of Bitbucket", i)] = secret
	}
	for _, hook := range objects(n.api.get(n.path("/webhooks"))["webhooks"]) {
		secret, address := n.reveal(fmt.Sprint(hook["id"]))
		secrets["webhook secret"], secrets["webhook address"] = secret, strings.TrimPrefix(address, n.url())
	}
	var kept []string
	if one, ok := n.stack.(*oneProcess); ok { // others keep them out of reach
		kept = one.kept()
	}
	for _, dir := range kept {
		if entries, err := os.ReadDir(dir); err == nil {
			for _, e := range entries {
				raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
				if err != nil {
					n.t.Fatal(err)
				}
				secrets[e.Name()] = strings.TrimSpace(string(raw))
			}
		}
	}
	look := newSearch(n.t, secrets)
	for _, r := range reports {
		raw, err := json.Marshal(r)
		if err != nil {
			n.t.Fatal(err)
		}
		look.in("the report", raw)
	}
	look.nothing()
}

// refuses holds a proof to saying, of all that needs a token, why there is none, and what mends that.
func (c *cause) refuses(message, remedy string) {
	c.t.Helper()
	want := map[string]found{}
	for _, name := range []string{"connection", "token", "git " + c.repo.name, "admin " + c.repo.name, "commit status"} {
		want[name] = found{"FAILED", message, remedy}
	}
	c.proven(object{"writeStatus": true}, want)
}

const checkProxy = "Check DEVPILOT_PUBLIC_URL and that the proxy before Devpilot passes POST /webhooks/bitbucket/… on unchanged."

// TestProve makes the causes for which a connection is not well, on the real services and one after the other, and
// holds the proof to their sentences and remedies; what is well beside them stays so.
func TestProve(t *testing.T) {
	t.Parallel()
	listen := loopback(t)
	outer := openOuterDoor(t, listen)
	g := openWhy(t, func(s *allinone.Settings) { s.Listen, s.PublicURL = listen, outer.URL })
	direct := *g.owner // who asks when the public URL leads nowhere
	direct.base = "http://" + listen
	asked := object{"writeStatus": true}

	cause := func(name string) *cause {
		c := g.cause(t, "prove "+name)
		c.live()
		return c
	}
	restore := func(ids []string) {
		for _, id := range ids {
			if err := g.site().RemoveFault(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
	}
	inject := func(faults ...emulator.Fault) []string { return g.inject(t, faults, func(*emulator.Fault) {}) }

	c := cause("well")
	c.proven(asked, nil)
	c.api.refused("POST", c.path("/integrations/bitbucket:prove"), asked, "RATE_LIMITED")
	c.key("MEMBER").refused("GET", c.path("/integrations/bitbucket:prove"), nil, "PERMISSION_DENIED")

	c = cause("each")
	ids := inject(
		emulator.Fault{Route: "site", Method: http.MethodHead, Headers: map[string]string{"Date": time.Now().Add(-5 * time.Minute).UTC().Format(http.TimeFormat)}, Status: http.StatusOK},
		emulator.Fault{Kind: emulator.FaultIPAllowList, Repository: c.repo.name},
		emulator.Fault{Kind: emulator.FaultPermissionDowngrade, Permission: "read", Repository: c.repo.name},
		emulator.Fault{Route: "api", Method: http.MethodPost, Path: "/2.0/repositories/" + c.repo.name + "/commit", Status: http.StatusForbidden},
		emulator.Fault{Route: "api", Method: http.MethodPost, Path: "/2.0/repositories/acme/%7B" + c.repo.id + "%7D/commit", Status: http.StatusForbidden},
	)
	other := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "welcome") })
	outer.instead.Store(&other)
	c.api = direct.with(t)
	c.proven(asked, map[string]found{
		"clock": {"FAILED", `This machine's clock is (4m5\d|5m\d)s ahead of Bitbucket's\.`, "Set this machine's clock, best by NTP."},
		"git " + c.repo.name: {"FAILED", `Bitbucket refuses access to ` + named(c.repo.name) + `: To access this repository, an admin must whitelist your IP\. Ask an admin of its Bitbucket workspace\.`,
			"At Bitbucket, allow this server's address in the IP allow-list, or switch on two-step verification for the connected account."},
		"admin " + c.repo.name: {"FAILED", `The account is no admin of it: Devpilot cannot register its webhook\.`,
			"Give the connected account admin permission on the repository, or add the webhook by hand with the URL and secret shown."},
		"commit status": {"FAILED", `Bitbucket refused a build status on ` + named(c.repo.name) + ` \(it said: "Access denied\. You must have write or admin access"\)\.`,
			"Give the connected account write permission on the repository at Bitbucket, or switch the commit status off in its apps."},
		"delivery": {"FAILED", named(outer.URL) + ` answers 200, but it is not this Devpilot that answers there\.`, checkProxy},
	})
	outer.instead.Store(nil)
	restore(ids)

	c = cause("scope") // it was granted, and is not in the tokens any more
	ids = inject(emulator.Fault{Kind: emulator.FaultMissingScope, Route: "api", Account: c.account})
	const scope = `The connection to Bitbucket lacks a permission that this needs \(repository\)\. Tick it in the OAuth consumer at Bitbucket, then connect Bitbucket again\.`
	const scopeRemedy = "Add the missing scope to the OAuth consumer at Bitbucket and connect again."
	c.proven(asked, map[string]found{
		"token":                {"FAILED", scope, scopeRemedy},
		"admin " + c.repo.name: {"FAILED", scope, scopeRemedy},
		"commit status":        {"FAILED", scope, scopeRemedy},
	})
	restore(ids)

	c = cause("revoked")
	c.revoke()
	c.refuses(`Bitbucket refused the refresh token at \S+ \d\d:\d\d UTC\. That can pass, so we try again at \S+ \d\d:\d\d UTC before we ask you to connect again\. Deployments .*`,
		"Try again in a moment, or press Refresh Token under Integrations.")

	c = cause("nothing")
	outer.Close()
	c.api = direct.with(t)
	c.proven(object{}, map[string]found{
		"delivery":      {"FAILED", named(outer.URL) + ` does not answer: .*connection refused`, checkProxy},
		"commit status": {"SKIPPED", `Not written: .*`, ""},
	})
}

// TestProve_lowDisk sets a reserve that no disk has, before anybody is connected.
func TestProve_lowDisk(t *testing.T) {
	t.Parallel()
	s := startProcess(t, "info", func(s *allinone.Settings) { s.DiskReserve = math.MaxInt32 })
	c := &shared{stack: s, planted: map[string]string{}}
	c.owner = newBrowser(t, s.url()).signIn(s.adminToken())
	n := c.unconnected(t, "prove-disk")
	n.await("/v1/servers", func(list object) error { // its worker has said how much room it has
		for _, server := range objects(list["servers"]) {
			for _, w := range objects(server["workers"]) {
				if w["diskReserveMib"] == float64(math.MaxInt32) {
					return nil
				}
			}
		}
		return fmt.Errorf("no worker says so: %v", list)
	})
	n.proven(object{"writeStatus": true}, map[string]found{
		"connection":    {"FAILED", `Bitbucket is not connected\.`, "An owner or admin connects Bitbucket under Integrations."},
		"callback":      {"SKIPPED", `Nobody has come back from Bitbucket yet\. The OAuth consumer needs this callback URL: ` + named(s.url()+"/oauth/bitbucket/callback"), ""},
		"scopes":        {"SKIPPED", `Bitbucket is not connected\.`, ""},
		"token":         {"SKIPPED", `Bitbucket is not connected\.`, ""},
		"delivery":      {"SKIPPED", `No app of this workspace deploys on pushes yet, so there is no webhook to send to\.`, ""},
		"repositories":  {"SKIPPED", `There is no app yet, so there is no repository to check\.`, ""},
		"commit status": {"SKIPPED", `No app that shows its deployments at Bitbucket has deployed yet, so there is no commit to write to\.`, ""},
		"disk default":  {"FAILED", `Server default has \d+ MiB left, and 2147483647 MiB are to stay free: deployments wait\.`, "Make room on that server's disk; deployments then go on by themselves."},
	})
}
