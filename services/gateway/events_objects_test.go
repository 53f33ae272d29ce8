package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
	"devpilot.io/bitbucket/services/gateway"
)

// patient waits for objects for as long as a test may take: what comes without one was not slow.
func patient(c *gateway.Config) { c.ObjectWait = time.Minute }

// brought is a change as a client reads it.
type brought struct {
	Kind, ID      string
	Deleted       bool
	Object, App   json.RawMessage
	ETag, AppETag string
}

func broughtBy(t *testing.T, e sseEvent) brought {
	t.Helper()
	var b brought
	if err := json.Unmarshal([]byte(e.data), &b); err != nil {
		t.Fatalf("%+v: %v", e, err)
	}
	return b
}

func teachDeployments(g *gate, of func(ctx context.Context, d *deployerv1.Deployment) error) {
	g.deployer.on("GetDeployment", func(ctx context.Context, req proto.Message) (proto.Message, error) {
		in := req.(*deployerv1.GetDeploymentRequest)
		d := &deployerv1.Deployment{Workspace: in.GetWorkspace(), App: in.GetApp(), Number: in.GetNumber(), State: deployerv1.Deployment_PROCESSING, Etag: "r" + strconv.Itoa(int(in.GetNumber()))}
		if err := of(ctx, d); err != nil {
			return nil, err
		}
		return &deployerv1.GetDeploymentResponse{Deployment: d}, nil
	})
}

func TestEventObjects_areWhatGetAnswers(t *testing.T) {
	g := start(t, patient)
	// What JSON may write in more than one way, and what ends a line elsewhere.
	teachDeployments(g, func(_ context.Context, d *deployerv1.Deployment) error {
		d.Commit = &deployerv1.DeploymentCommit{Message: "<b> & \"c\" \u2028 \\ \r\n\n\x7f é", Hash: strings.Repeat("a", 40)}
		return nil
	})
	c := g.signedIn()
	s := c.stream("/v1/workspaces/default/events?include=object&include=app")
	plain := c.stream("/v1/workspaces/default/events")
	s.want("ready")
	plain.want("ready")
	for kind, at := range map[string]struct{ service, id, path string }{
		"app":         {"deployer", "web", "apps/web"},
		"deployment":  {"deployer", "web/12", "apps/web/deployments/12"},
		"webhook":     {"webhook", "wh1", "webhooks/wh1"},
		"integration": {"auth", "bitbucket", "integrations/bitbucket"},
	} {
		g.happen(at.service, "default", kind, at.id)
		e := nextOf(s, kind)
		b, get := broughtBy(t, e), c.get("/v1/workspaces/default/"+at.path).want(http.StatusOK)
		if !strings.Contains(e.data, string(get.body)) || !bytes.Equal(b.Object, get.body) {
			t.Errorf("%s: the event has\n%s\nand GET answers\n%s", kind, b.Object, get.body)
		}
		if b.ETag == "" || b.ETag != get.header.Get("ETag") {
			t.Errorf("%s: tag %s, and of GET %s", kind, b.ETag, get.header.Get("ETag"))
		}
		if app := c.get("/v1/workspaces/default/apps/web"); kind == "deployment" && (!bytes.Equal(b.App, app.body) || b.AppETag != app.header.Get("ETag")) {
			t.Errorf("its app: %s, %s", b.App, b.AppETag)
		} else if kind != "deployment" && b.App != nil {
			t.Errorf("%s brings an app", kind)
		}
		if e := nextOf(plain, kind); strings.Contains(e.data, `"object"`) || strings.Contains(e.data, `"etag"`) || strings.Contains(e.data, `"app":`) {
			t.Errorf("not asked for: %+v", e)
		}
	}
	// The others only say "look again".
	for _, kind := range []string{"delivery", "members", "repository", "workspace"} {
		g.happen("deployer", "default", kind, "of-this-test")
		for b := (brought{}); b.ID != "of-this-test"; {
			if b = broughtBy(t, nextOf(s, kind)); b.Object != nil || b.ETag != "" {
				t.Errorf("%s brings %s", kind, b.Object)
			}
		}
	}
	c.get("/v1/workspaces/default/events?include=objects").problem(http.StatusBadRequest, "INVALID_ARGUMENT")
}

// Who may not GET it is not brought it, also where somebody who may reads the same event at the same time.
func TestEventObjects_onlyForWhomGetAnswers(t *testing.T) {
	g := start(t, patient)
	g.workspace("acme")
	refused := func(ctx context.Context) error {
		if id, _ := identity.FromContext(ctx); id.Role < identity.RoleAdmin {
			return apierr.New(apierr.ReasonPermissionDenied, "Not for members.")
		}
		return nil
	}
	teachDeployments(g, func(ctx context.Context, _ *deployerv1.Deployment) error { return refused(ctx) })
	limited := func(app string) *client {
		var out struct{ Secret string }
		g.withToken(adminToken).post("/v1/workspaces/default/apiKeys", map[string]any{"label": app, "role": "ADMIN", "scope": "ADMIN", "apps": []string{app}}).want(http.StatusOK).into(&out)
		return g.withToken(out.Secret)
	}
	const path = "/v1/workspaces/default/events?include=object&include=app"
	readers := []struct {
		name string
		c    *client
		want map[string]bool // of what is heard, whether it brings its object
	}{
		{"owner", g.signedIn(), map[string]bool{"deployment web/1": true, "app api": true, "webhook wh1": true}},
		{"admin's key", g.key("default", "ADMIN"), map[string]bool{"deployment web/1": true, "app api": true, "webhook wh1": true}},
		{"member's key", g.key("default", "MEMBER"), map[string]bool{"deployment web/1": false, "app api": true, "webhook wh1": true}},
		{"key of web", limited("web"), map[string]bool{"deployment web/1": true}},
		{"key of api", limited("api"), map[string]bool{"app api": true}},
	}
	streams := make([]*sse, len(readers))
	for i, r := range readers {
		streams[i] = r.c.stream(path)
		streams[i].until("ready")
	}
	if other := g.key("acme", "ADMIN").stream(path); other.resp.StatusCode != http.StatusNotFound {
		t.Errorf("another workspace's key: %d", other.resp.StatusCode)
	}
	elsewhere := g.key("acme", "ADMIN").stream("/v1/workspaces/acme/events?include=object&include=app")
	elsewhere.until("ready")
	g.happen("deployer", "default", "deployment", "web/1")
	g.happen("deployer", "default", "app", "api")
	g.happen("webhook", "default", "webhook", "wh1")
	for _, app := range []string{"web", "api"} { // the last that each of them hears
		g.happen("deployer", "default", "app", app+"-last")
		g.happen("deployer", "default", "deployment", app+"/99")
	}
	g.happen("deployer", "acme", "app", "last")
	for i, r := range readers {
		got := map[string]bool{}
		for {
			b := broughtBy(t, streams[i].want("change"))
			if strings.HasSuffix(b.ID, "/99") {
				break
			}
			if strings.HasSuffix(b.ID, "-last") {
				continue
			}
			got[b.Kind+" "+b.ID] = b.Object != nil
			get := map[string]string{"deployment web/1": "apps/web/deployments/1", "app api": "apps/api", "webhook wh1": "webhooks/wh1"}[b.Kind+" "+b.ID]
			if a := r.c.get("/v1/workspaces/default/" + get); (a.status == http.StatusOK) != (b.Object != nil) {
				t.Errorf("%s: %s %s brings %q, and GET answers %d", r.name, b.Kind, b.ID, b.Object, a.status)
			}
			if b.Kind == "deployment" && b.App == nil {
				t.Errorf("%s: no app beside a deployment", r.name)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(r.want) {
			t.Errorf("%s hears %v, not %v", r.name, got, r.want)
		}
	}
	if b := broughtBy(t, nextOf(elsewhere, "app")); b.ID != "last" {
		t.Errorf("another workspace hears of %s", b.ID)
	}
	// Each call says who it is made for, with the limit of its key.
	for _, c := range append(g.deployer.asked("GetApp"), g.deployer.asked("GetDeployment")...) {
		app := c.req.(interface{ GetApp() string }).GetApp()
		if c.user.Workspace == "" || !c.user.Apps.Has(app) {
			t.Errorf("%s of %s asked for %+v", c.method, app, c.user)
		}
	}
}

func TestEventObjects_aDeployerThatHangsHoldsNoEventBack(t *testing.T) {
	g := start(t, func(c *gateway.Config) { c.ObjectWait = 300 * time.Millisecond })
	var hangs atomic.Bool
	hangs.Store(true)
	teachDeployments(g, func(ctx context.Context, _ *deployerv1.Deployment) error {
		if hangs.Load() {
			<-ctx.Done() // for as long as it is asked
			return ctx.Err()
		}
		return nil
	})
	s := g.signedIn().stream("/v1/workspaces/default/events?include=object")
	last := s.want("ready").id
	for i := range 20 {
		g.happen("deployer", "default", "deployment", "web/"+strconv.Itoa(i+1))
		g.happen("deployer", "default", "members", "m"+strconv.Itoa(i+1))
	}
	var got []string
	for range 40 {
		e := s.want("change")
		b := broughtBy(t, e)
		if b.Object != nil {
			t.Errorf("%s brings what was not answered", b.ID)
		}
		if n, before := atoi(t, e.id), atoi(t, last); n <= before {
			t.Errorf("event %d after %d", n, before)
		}
		last, got = e.id, append(got, b.ID)
	}
	for i := range 20 {
		if n := strconv.Itoa(i + 1); got[2*i] != "web/"+n || got[2*i+1] != "m"+n {
			t.Fatalf("order %v", got)
		}
	}
	hangs.Store(false)
	// A machine that is busy may be as slow as a deployer that hangs: some time it brings it.
	testkit.Eventually(t, time.Minute, func() error {
		g.happen("deployer", "default", "deployment", "web/21")
		if b := broughtBy(t, s.want("change")); b.Object == nil {
			return fmt.Errorf("%s brings nothing", b.ID)
		}
		return nil
	})
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A hundred open consoles make as many calls as one does. The events are those of one deployment that goes live.
func TestEventObjects_areReadOnceForAll(t *testing.T) {
	for _, readers := range []int{1, 100} {
		t.Run(strconv.Itoa(readers), func(t *testing.T) {
			g := start(t, patient)
			c := g.signedIn()
			streams := make([]*sse, readers)
			for i := range streams {
				streams[i] = c.stream("/v1/workspaces/default/events?include=object&include=app")
				streams[i].want("ready")
			}
			calls := func() int { return len(g.deployer.asked("GetDeployment")) + len(g.deployer.asked("GetApp")) }
			events := [][2]string{{"deployment", "web/1"}, {"deployment", "web/1"}, {"deployment", "web/1"}, {"app", "web"}}
			for i, e := range events {
				g.happen("deployer", "default", e[0], e[1])
				for _, s := range streams {
					if b := broughtBy(t, nextOf(s, e[0])); b.Object == nil || (e[0] == "deployment") != (b.App != nil) {
						t.Fatalf("brought %+v", b)
					}
				}
				if got, want := calls(), min(2*(i+1), 7); got != want {
					t.Errorf("%d calls after %d events, not %d", got, i+1, want)
				}
			}
			t.Logf("one deployment, %d events, %d readers: %d calls of the deployer; %d where each looks for itself", len(events), readers, calls(), 7*readers)
		})
	}
}

func TestEventObjects_notOfWhatIsGoneOrTooLarge(t *testing.T) {
	g := start(t, patient)
	teachDeployments(g, func(_ context.Context, d *deployerv1.Deployment) error {
		switch d.GetNumber() {
		case 2:
			return apierr.New(apierr.ReasonDeploymentNotFound, "There is no deployment 2.")
		case 3:
			d.Notes = []string{strings.Repeat("x", 64<<10)}
		}
		return nil
	})
	s := g.signedIn().stream("/v1/workspaces/default/events?include=object")
	s.want("ready")
	subject, err := stream.EventSubject("deployer", "default", "deployment")
	if err != nil {
		t.Fatal(err)
	}
	data, err := proto.Marshal(&eventsv1.ChangeEvent{Id: "web/1", Deleted: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (stream.Publisher{JS: g.js, Timeout: time.Minute}).Publish(t.Context(), &nats.Msg{Subject: subject, Data: data}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"web/2", "web/3", "web/none", "web/4"} {
		g.happen("deployer", "default", "deployment", id)
	}
	for _, want := range []brought{{ID: "web/1", Deleted: true}, {ID: "web/2"}, {ID: "web/3"}, {ID: "web/none"}} {
		if b := broughtBy(t, s.want("change")); b.ID != want.ID || b.Deleted != want.Deleted || b.Object != nil || b.ETag != "" {
			t.Errorf("%+v, not %+v", b, want)
		}
	}
	if b := broughtBy(t, s.want("change")); b.ID != "web/4" || b.Object == nil {
		t.Errorf("%+v", b)
	}
	for _, c := range g.deployer.asked("GetDeployment") {
		if c.req.(*deployerv1.GetDeploymentRequest).GetNumber() == 1 {
			t.Error("what is gone was asked for")
		}
	}
}

// Who comes back hears of each object once, as it is now, in the order of the newest changes.
func TestEventObjects_resumedAsTheyAreNow(t *testing.T) {
	g := start(t, patient)
	var etag atomic.Value
	etag.Store("old")
	teachDeployments(g, func(_ context.Context, d *deployerv1.Deployment) error {
		d.Etag = etag.Load().(string)
		return nil
	})
	c := g.signedIn()
	all := c.stream("/v1/workspaces/default/events")
	from := all.want("ready").id
	for _, id := range []string{"web/1", "web/2", "web/1", "web/3"} {
		g.happen("deployer", "default", "deployment", id)
	}
	g.happen("deployer", "default", "workspace", "last")
	ids := map[string]string{}
	for {
		e := all.want("change")
		if ids[idOf(t, e)] = e.id; idOf(t, e) == "last" {
			break
		}
	}
	etag.Store("new")
	s := c.stream("/v1/workspaces/default/events?include=object", with("Last-Event-ID", from))
	for _, want := range []string{"web/2", "web/1", "web/3", "last"} {
		e := s.want("change")
		b := broughtBy(t, e)
		if b.ID != want || e.id != ids[want] {
			t.Errorf("%s at %s, not %s at %s", b.ID, e.id, want, ids[want])
		}
		if want != "last" && !strings.HasPrefix(b.ETag, `"new.`) {
			t.Errorf("%s is brought as %s", b.ID, b.ETag)
		}
	}
	if e := s.want("ready"); e.id != ids["last"] {
		t.Errorf("ready at %s, not %s", e.id, ids["last"])
	}
	if n := len(g.deployer.asked("GetDeployment")); n != 3 {
		t.Errorf("%d calls for three objects", n)
	}
}
