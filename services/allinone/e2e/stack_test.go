package e2e

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/testkit"
)

// stack is the product as a scenario sees it, however it is run.
type stack interface {
	// url is the public URL, where the webhooks arrive too.
	url() string
	// adminToken signs the local owner in.
	adminToken() string
	// site is the Bitbucket that the product uses.
	site() *site
	// liveURL is the address below which releases have their host names.
	liveURL() string
	// releases is the data directory of the server "default".
	releases() string
	// stopRedis and startRedis take Redis away and bring an empty one back.
	stopRedis()
	startRedis()
	// stopNATS and startNATS take NATS away and bring it back with what it stored.
	stopNATS()
	startNATS()
	// js is a connection to NATS of the test's own, for looking into what is stored.
	js(t testing.TB) jetstream.JetStream
	// redisURL is where Redis is, for the same.
	redisURL() string
	// places lists the directories where no secret may stand in clear; kept names the files that
	// hold secrets on purpose.
	places() []string
	kept() []string
	// output is all that the product logged so far.
	output() string
	// pids are the product's processes; this one where it has none of its own.
	pids() []int
}

// shared is a running stack with its signed-in owner.
type shared struct {
	stack
	owner  *api
	atOnce bool // stories run on it at the same time, not one after the other

	mu      sync.Mutex
	planted map[string]string // secrets by what they are, for the search at the end
}

// plant remembers a secret that must be found nowhere.
func (s *shared) plant(what, secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.planted[fmt.Sprintf("%s %d", what, len(s.planted))] = secret
}

// scenario is one story about the product.
type scenario struct {
	name string
	run  func(t *testing.T, s *shared)
}

// scenarios run in this order on one stack, each in a workspace and on repositories of its own:
// first those that disturb nobody, then those that take engines and processes away. The search for what all of them left behind follows.
var scenarios = []scenario{
	{"main path", mainPath},
	{"consent", consent},
	{"one push of many changes", manyChanges},
	{"pushes of every shape", pushShapes},
	{"first push into an empty repository", firstPush},
	{"answers of the webhook endpoint", endpointAnswers},
	{"not a repository admin", notAdmin},
	{"workspaces and roles", tenancy},
	{"live streams", liveStreams},
	{"deployments in depth", inDepth},
	{"rules of pushes", rulesOfPushes},
	{"secrets while a deployment runs", secretsOfProcesses},
	{"disconnect", disconnect},
	{"a workspace is deleted", deletedWorkspace},
	{"redis away", redisAway},
	{"nats away", natsAway},
}

// TestInOneProcess runs the scenarios on the product in this process.
func TestInOneProcess(t *testing.T) {
	runOn(t, func(t *testing.T) stack { return startInProcess(t) })
}

// TestAsProcesses runs the scenarios on two processes of each service, and kills some.
func TestAsProcesses(t *testing.T) {
	runOn(t, startProcesses, scenario{"replicas killed", replicasKilled}, scenario{"replicas frozen", replicasFrozen})
}

func runOn(t *testing.T, start func(t *testing.T) stack, more ...scenario) {
	t.Parallel()
	s := &shared{stack: start(t), planted: map[string]string{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the product's log:\n%s", tail(s.output(), 20_000))
		}
	})
	s.owner = newBrowser(t, s.url()).signIn(s.adminToken())
	for _, one := range slices.Concat(scenarios, more, []scenario{{"planted secrets", plantedSecrets}}) {
		t.Run(one.name, func(t *testing.T) { one.run(t, s) })
	}
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// withoutCalls leaves out the lines of a log that only tell of a call.
func withoutCalls(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if !strings.Contains(line, `"msg":"rpc `) && !strings.Contains(line, `"msg":"http served"`) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// recorder keeps what is written to it. It is safe for concurrent use.
type recorder struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

var _ io.Writer = (*recorder)(nil)

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

// tenant is a workspace of one scenario, connected to Bitbucket.
type tenant struct {
	*shared
	t         testing.TB
	api       *api
	workspace string
}

// tenant makes a workspace, and connects it.
func (s *shared) tenant(t testing.TB, workspace string) *tenant {
	t.Helper()
	n := s.unconnected(t, workspace)
	if at := n.api.connect(workspace, "grant"); at.Query().Get("bitbucket") != "connected" {
		t.Fatalf("connecting ended at %s", at)
	}
	return n
}

func (s *shared) unconnected(t testing.TB, workspace string) *tenant {
	t.Helper()
	n := &tenant{shared: s, t: t, api: s.owner.with(t), workspace: workspace}
	n.api.must("POST", "/v1/workspaces", object{"workspaceId": workspace})
	return n
}

// path is a path in the workspace.
func (n *tenant) path(format string, args ...any) string {
	return "/v1/workspaces/" + n.workspace + fmt.Sprintf(format, args...)
}

// app makes an app with auto-deploy and waits until its webhook is active.
func (n *tenant) app(id string, repo repository, branch string) object {
	n.t.Helper()
	n.api.must("POST", n.path("/apps"), newApp(id, repo, branch))
	return n.hooked(id)
}

func newApp(id string, repo repository, branch string) object {
	return object{"appId": id, "app": object{"repository": repo.id, "branch": branch, "autoDeploy": true}}
}

// hooked waits until the app's webhook is active.
func (n *tenant) hooked(id string) object {
	n.t.Helper()
	var app object
	testkit.Eventually(n.t, timeout, func() error {
		app = n.api.get(n.path("/apps/%s", id))
		if state := dig(app, "webhook", "state"); state != "ACTIVE" {
			return fmt.Errorf("the webhook of %s is %v: %v", id, state, dig(app, "webhook", "message"))
		}
		return nil
	})
	return app
}

// deployments lists the deployments of an app, newest first.
func (n *tenant) deployments(app string) []object {
	n.t.Helper()
	return objects(n.api.get(n.path("/apps/%s/deployments", app))["deployments"])
}

// live waits until the commit is live in the app and returns its deployment.
func (n *tenant) live(app, hash string) object {
	n.t.Helper()
	var found object
	testkit.Eventually(n.t, timeout, func() error {
		list := n.deployments(app)
		for _, d := range list {
			if d["live"] == true && dig(d, "commit", "hash") == hash && d["state"] == "COMPLETED" {
				found = d
				return nil
			}
		}
		return fmt.Errorf("%.7s is not live in %s: %s", hash, app, brief(list))
	})
	return found
}

// settled waits until no deployment of the app waits or runs, and returns all of them.
func (n *tenant) settled(app string) []object {
	n.t.Helper()
	var list []object
	testkit.Eventually(n.t, timeout, func() error {
		list = n.deployments(app)
		for _, d := range list {
			if d["state"] == "PENDING" || d["state"] == "PROCESSING" {
				return fmt.Errorf("deployment %v of %s is %v", d["number"], app, d["state"])
			}
		}
		return nil
	})
	return list
}

// await reads a resource until check is content with it.
func (n *tenant) await(path string, check func(object) error) object {
	n.t.Helper()
	var got object
	testkit.Eventually(n.t, timeout, func() error {
		got = n.api.get(path)
		return check(got)
	})
	return got
}

// delivery waits until a delivery has want outcomes, none of which is still being decided, and returns it.
func (n *tenant) delivery(webhook string, number, want int) object {
	n.t.Helper()
	var d object
	testkit.Eventually(n.t, timeout, func() error {
		out := object{}
		if p := n.api.do("GET", n.path("/webhooks/%s/deliveries/%d", webhook, number), nil, &out); p != nil {
			return fmt.Errorf("delivery %d: %s", number, p.Reason)
		}
		list := objects(out["outcomes"])
		if len(list) < want || slices.ContainsFunc(list, func(o object) bool { return o["kind"] == "DECIDING" }) {
			return fmt.Errorf("delivery %d has %d outcomes, want %d: %v", number, len(list), want, list)
		}
		d = out
		return nil
	})
	return d
}

// deliveries lists the newest deliveries of a webhook, newest first.
func (n *tenant) deliveries(webhook string) []object {
	n.t.Helper()
	return objects(n.api.get(n.path("/webhooks/%s/deliveries?pageSize=200", webhook))["deliveries"])
}

func brief(list []object) string {
	var b bytes.Buffer
	for _, d := range list {
		fmt.Fprintf(&b, "#%v %v %v live=%v %.7s %v; ", d["number"], d["trigger"], d["state"], d["live"], fmt.Sprint(dig(d, "commit", "hash")), dig(d, "error", "message"))
	}
	return b.String()
}

// objects are the elements of a JSON list of objects.
func objects(list any) []object {
	var out []object
	for _, v := range asList(list) {
		if o, ok := v.(object); ok {
			out = append(out, o)
		}
	}
	return out
}

func asList(v any) []any {
	list, _ := v.([]any)
	return list
}
