package gateway_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
	"devpilot.io/bitbucket/services/gateway"
)

const targetsPath = "/v1/workspaces/acme/notificationTargets"

// received is what a receiver was sent.
type received struct {
	id, signature string
	body          []byte
}

// receiver is a small server that takes notifications.
type receiver struct {
	url string

	mu     sync.Mutex
	got    []received
	answer func(n int, w http.ResponseWriter) // n from 1; nil: 204
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Errorf("receiver: %v", err)
		}
		r.mu.Lock()
		r.got = append(r.got, received{req.Header.Get("Devpilot-Notification-Id"), req.Header.Get("Devpilot-Signature"), body})
		n, answer := len(r.got), r.answer
		r.mu.Unlock()
		if answer != nil {
			answer(n, w)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(s.Close)
	r.url = s.URL + "/services/planted-url-secret"
	return r
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]received(nil), r.got...)
}

// want waits until so many arrived.
func (r *receiver) want(t *testing.T, n int) []received {
	t.Helper()
	testkit.Eventually(t, 30*time.Second, func() error {
		if got := len(r.all()); got < n {
			return fmt.Errorf("%d of %d arrived", got, n)
		}
		return nil
	})
	got := r.all()
	if len(got) != n {
		for _, one := range got {
			t.Logf("arrived: %.200s", one.body)
		}
		t.Fatalf("%d arrived, not %d", len(got), n)
	}
	return got
}

// checkSignature is what the documents tell a receiver to do.
func checkSignature(secret, header string, body []byte) bool {
	var at string
	for part := range strings.SplitSeq(header, ",") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "t":
			at = value
		case "v1":
			mac := hmac.New(sha256.New, []byte(secret))
			mac.Write([]byte(at + "." + string(body)))
			if hmac.Equal([]byte(hex.EncodeToString(mac.Sum(nil))), []byte(value)) {
				return true
			}
		}
	}
	return false
}

func allowLoopback(c *gateway.Config) { c.NotifyAllow = []string{"127.0.0.1"} }

type target struct {
	Target struct {
		ID   string `json:"id"`
		Host string `json:"host"`
		Etag string `json:"etag"`
	} `json:"target"`
	Secret string `json:"secret"`
}

// addTarget makes one that wants the events.
func (g *gate) addTarget(kind, url string, more map[string]any, events ...string) target {
	g.t.Helper()
	in := map[string]any{"kind": kind, "label": "team", "url": url, "events": events}
	for k, v := range more {
		in[k] = v
	}
	var out target
	g.withToken(adminToken).post(targetsPath, map[string]any{"target": in}).want(http.StatusOK).into(&out)
	return out
}

// changed publishes that something changed, as its owner does.
func (g *gate) changed(service, kind, id string) {
	g.t.Helper()
	subject, err := stream.EventSubject(service, "acme", kind)
	if err != nil {
		g.t.Fatal(err)
	}
	raw, err := proto.Marshal(&eventsv1.ChangeEvent{Service: service, Workspace: "acme", Kind: kind, Id: id, Time: timestamppb.New(g.clock.now())})
	if err != nil {
		g.t.Fatal(err)
	}
	if _, err := g.js.Publish(context.Background(), subject, raw); err != nil {
		g.t.Fatal(err)
	}
}

// deployments is the deployer's history in a test.
type deployments struct {
	g    *gate
	mu   sync.Mutex
	list map[string]*deployerv1.Deployment
	logs []*deployerv1.LogRecord
}

func (g *gate) history() *deployments {
	d := &deployments{g: g, list: map[string]*deployerv1.Deployment{}}
	g.deployer.on("GetDeployment", func(_ context.Context, req proto.Message) (proto.Message, error) {
		r := req.(*deployerv1.GetDeploymentRequest)
		d.mu.Lock()
		defer d.mu.Unlock()
		return &deployerv1.GetDeploymentResponse{Deployment: d.list[fmt.Sprintf("%s/%d", r.GetApp(), r.GetNumber())]}, nil
	})
	g.deployer.onStream("ReadLog", func(_ proto.Message, s grpc.ServerStream) error {
		if err := s.SendMsg(&deployerv1.ReadLogResponse{Records: d.logs}); err != nil {
			return err
		}
		return s.SendMsg(&deployerv1.ReadLogResponse{End: &deployerv1.LogEnd{State: deployerv1.Deployment_FAILED}})
	})
	return d
}

// ended stores a deployment that ended so and tells of it.
func (d *deployments) ended(app string, number int32, state deployerv1.Deployment_State, commit string) {
	dep := &deployerv1.Deployment{
		Number: number, Workspace: "acme", App: app, State: state, Branch: "main", Server: "default",
		Commit: &deployerv1.DeploymentCommit{Hash: strings.Repeat(commit, 40)}, EndTime: timestamppb.New(d.g.clock.now()),
	}
	if state == deployerv1.Deployment_FAILED {
		code := int32(3)
		dep.Error = &deployerv1.DeploymentError{Reason: "HOOK_FAILED", Message: "Hook build ended with exit code 3."}
		dep.Stages = []*deployerv1.StageRecord{{Hooks: []*deployerv1.HookRecord{{Name: "build", State: deployerv1.HookRecord_FAILED, ExitCode: &code}}}}
	}
	d.mu.Lock()
	d.list[fmt.Sprintf("%s/%d", app, number)] = dep
	d.mu.Unlock()
	d.g.changed("deployer", "deployment", fmt.Sprintf("%s/%d", app, number))
}

// waits stores a deployment that waits for something and tells of it.
func (d *deployments) waits(app string, number int32, reason string) {
	d.mu.Lock()
	d.list[fmt.Sprintf("%s/%d", app, number)] = &deployerv1.Deployment{
		Number: number, Workspace: "acme", App: app, State: deployerv1.Deployment_PENDING, Server: "default", CreateTime: timestamppb.New(d.g.clock.now()),
		WaitingFor: &deployerv1.DeploymentError{Reason: reason, Message: "The server's disk is full."},
	}
	d.mu.Unlock()
	d.g.changed("deployer", "deployment", fmt.Sprintf("%s/%d", app, number))
}

// settled waits until the consumer has seen all that was published.
func (g *gate) settled() {
	g.t.Helper()
	testkit.Eventually(g.t, 30*time.Second, func() error {
		st, err := g.js.Stream(context.Background(), stream.EventsStream)
		if err != nil {
			return err
		}
		c, err := st.Consumer(context.Background(), "gateway-notifications")
		if err != nil {
			return err
		}
		info, err := c.Info(context.Background())
		if err != nil {
			return err
		}
		if info.NumPending > 0 || info.NumAckPending > 0 {
			return fmt.Errorf("%d pending, %d unanswered", info.NumPending, info.NumAckPending)
		}
		return nil
	})
}

func (g *gate) attempts(id string) (out struct {
	Attempts []struct {
		Notification, Message string
		Delivered             bool
		Status, Attempt       int
		RetryTime             *time.Time
	}
	Waiting int
},
) {
	g.t.Helper()
	g.withToken(adminToken).get(targetsPath + "/" + id + "/attempts").want(http.StatusOK).into(&out)
	return out
}

// TestNotify_aFailureIsToldOnceAndItsEnd: two replicas, events that come twice, a commit that fails
// again, another one, and the first success.
func TestNotify_aFailureIsToldOnceAndItsEnd(t *testing.T) {
	g := start(t, allowLoopback)
	g.replica(allowLoopback)
	g.workspace("acme")
	r := newReceiver(t)
	made := g.addTarget("WEBHOOK", r.url, nil, "DEPLOYMENT_FAILED", "DEPLOYMENT_RECOVERED")
	h := g.history()
	hook := "build"
	for i := range 60 {
		h.logs = append(h.logs, &deployerv1.LogRecord{Line: int32(i + 1), Text: fmt.Sprintf("\x1b[31mline %d\x1b[0m of ***", i+1), Hook: &hook})
	}
	h.logs = append(h.logs, &deployerv1.LogRecord{Line: 61, Text: "Devpilot says so"})

	h.ended("web", 1, deployerv1.Deployment_COMPLETED, "a") // was never broken
	h.ended("web", 2, deployerv1.Deployment_FAILED, "b")
	h.ended("web", 2, deployerv1.Deployment_FAILED, "b") // told again
	first := r.want(t, 1)[0]
	if !checkSignature(made.Secret, first.signature, first.body) || checkSignature(made.Secret, first.signature, append(first.body, ' ')) {
		t.Errorf("signature %s", first.signature)
	}
	var n struct {
		ID, Type, Workspace, App, Branch, Commit, Reason, Title, Text, URL string
		Deployment                                                         int
		Lines                                                              []string
	}
	if err := json.Unmarshal(first.body, &n); err != nil {
		t.Fatal(err)
	}
	if n.ID != first.id || n.Type != "deployment.failed" || n.App != "web" || n.Deployment != 2 || n.Commit != strings.Repeat("b", 40) ||
		n.Title != "web: deployment #2 failed: hook build, exit 3" || !strings.HasSuffix(n.URL, "/w/acme/apps/web/deployments/2") || !strings.HasPrefix(n.URL, g.cfg.PublicURL[:7]) {
		t.Errorf("%s", first.body)
	}
	if len(n.Lines) != 20 || n.Lines[19] != "line 60 of ***" {
		t.Errorf("lines %q", n.Lines)
	}

	h.ended("web", 3, deployerv1.Deployment_FAILED, "b") // the same commit again
	h.ended("web", 4, deployerv1.Deployment_FAILED, "c")
	r.want(t, 2)
	h.ended("web", 5, deployerv1.Deployment_COMPLETED, "d")
	last := r.want(t, 3)[2]
	if !strings.Contains(string(last.body), `"deployment.recovered"`) || !strings.Contains(string(last.body), "Deployment #4 had failed") {
		t.Errorf("%s", last.body)
	}
	h.ended("web", 5, deployerv1.Deployment_COMPLETED, "d")
	h.ended("web", 4, deployerv1.Deployment_FAILED, "c") // late: it is over
	h.ended("web", 6, deployerv1.Deployment_FAILED, "b") // a new streak
	r.want(t, 4)
	g.settled()
	r.want(t, 4)
	for _, c := range g.deployer.asked("GetDeployment") {
		if c.user.Workspace != "acme" || c.user.Role.String() != "member" {
			t.Errorf("read as %+v", c.user)
		}
	}
}

// TestNotify_theSameIdUntilItArrives: a receiver that is down gets the same notification again, with the
// same id, and no more once it said yes.
func TestNotify_theSameIdUntilItArrives(t *testing.T) {
	g := start(t, allowLoopback)
	g.workspace("acme")
	r := newReceiver(t)
	r.answer = func(n int, w http.ResponseWriter) {
		if n < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}
	made := g.addTarget("WEBHOOK", r.url, nil, "DEPLOYMENT_FAILED")
	g.history().ended("web", 1, deployerv1.Deployment_FAILED, "a")
	for n := 1; n <= 3; n++ {
		r.want(t, n)
		testkit.Eventually(t, 20*time.Second, func() error {
			if got := len(g.attempts(made.Target.ID).Attempts); got != n {
				return fmt.Errorf("%d attempts in the log", got)
			}
			return nil
		})
		g.clock.forward(time.Minute)
	}
	got, log := r.all(), g.attempts(made.Target.ID)
	if got[0].id != got[1].id || got[1].id != got[2].id || got[0].id == "" || string(got[0].body) != string(got[2].body) {
		t.Errorf("ids %s %s %s", got[0].id, got[1].id, got[2].id)
	}
	if a := log.Attempts; !a[0].Delivered || a[0].Attempt != 3 || a[2].Status != 503 || a[2].RetryTime == nil || !strings.Contains(a[2].Message, "503") || log.Waiting != 0 {
		t.Errorf("%+v", log)
	}
}

// TestNotify_aDayOfSilence: a receiver that stays down is given up after a day, what came meanwhile is
// one message, and its log stays short.
func TestNotify_aDayOfSilence(t *testing.T) {
	g := start(t, allowLoopback)
	g.workspace("acme")
	r := newReceiver(t)
	var mu sync.Mutex
	down := true
	r.answer = func(_ int, w http.ResponseWriter) {
		mu.Lock()
		defer mu.Unlock()
		if down {
			w.WriteHeader(http.StatusBadGateway)
		}
	}
	made := g.addTarget("WEBHOOK", r.url, nil, "DEPLOYMENT_FAILED")
	h := g.history()
	began := time.Now()
	h.ended("web", 1, deployerv1.Deployment_FAILED, "a")
	r.want(t, 1)
	for i := range int32(1000) { // a minute in which everything fails
		h.ended(fmt.Sprintf("app%d", i), 1, deployerv1.Deployment_FAILED, "a")
	}
	testkit.Eventually(t, 4*time.Minute, func() error {
		if n := g.attempts(made.Target.ID).Waiting; n != 1001 {
			return fmt.Errorf("%d wait", n)
		}
		return nil
	})
	// What waits is tried together, after pauses of 10 s, 20 s, 40 s…, each less up to a quarter.
	n, took, most := len(r.all()), time.Since(began), 1
	for pause, at := 7500*time.Millisecond, 7500*time.Millisecond; at <= took; pause, at = 2*pause, at+2*pause {
		most++
	}
	if n > most {
		t.Errorf("a receiver that is down was asked %d times", n)
	}
	g.clock.forward(25 * time.Hour)
	testkit.Eventually(t, 30*time.Second, func() error {
		if a := g.attempts(made.Target.ID).Attempts; len(a) < 2 || !strings.Contains(a[0].Message+a[1].Message, "Given up") {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})
	mu.Lock()
	down = false
	mu.Unlock()
	g.clock.forward(2 * time.Minute)
	testkit.Eventually(t, 30*time.Second, func() error {
		if a := g.attempts(made.Target.ID); !a.Attempts[0].Delivered || a.Waiting != 0 {
			return fmt.Errorf("%+v", a.Attempts[0])
		}
		return nil
	})
	all := r.all()
	var several struct {
		Type          string
		Notifications []struct{ ID string }
		NotListed     int
	}
	if err := json.Unmarshal(all[len(all)-1].body, &several); err != nil {
		t.Fatal(err)
	}
	if several.Type != "several" || len(several.Notifications) != 100 || several.NotListed != 900 {
		t.Errorf("%s: %d and %d", several.Type, len(several.Notifications), several.NotListed)
	}
}

// TestNotify_quietHours: nothing is sent in them; what came is one message afterwards.
func TestNotify_quietHours(t *testing.T) {
	g := start(t, allowLoopback)
	g.workspace("acme")
	r := newReceiver(t)
	now := g.clock.now().UTC()
	quiet := map[string]any{"start": now.Add(-time.Hour).Format("15:04"), "end": now.Add(2 * time.Hour).Format("15:04"), "timeZone": "UTC"}
	made := g.addTarget("WEBHOOK", r.url, map[string]any{"quietHours": quiet}, "DEPLOYMENT_FAILED")
	h := g.history()
	h.ended("web", 1, deployerv1.Deployment_FAILED, "a")
	h.ended("shop", 1, deployerv1.Deployment_FAILED, "a")
	testkit.Eventually(t, 20*time.Second, func() error {
		if n := g.attempts(made.Target.ID).Waiting; n != 2 {
			return fmt.Errorf("%d wait", n)
		}
		return nil
	})
	if n := len(r.all()); n != 0 {
		t.Fatalf("%d arrived in quiet hours", n)
	}
	g.clock.forward(2*time.Hour + time.Minute)
	if body := string(r.want(t, 1)[0].body); !strings.Contains(body, `"several"`) || !strings.Contains(body, "web: deployment") || !strings.Contains(body, "shop: deployment") {
		t.Error(body)
	}
}

// TestNotify_nothingWithoutTargets: no consumer, and nothing is asked, while nobody wants to hear of
// anything, and again once nobody does.
func TestNotify_nothingWithoutTargets(t *testing.T) {
	g := start(t, allowLoopback)
	g.workspace("acme")
	h := g.history()
	h.ended("web", 1, deployerv1.Deployment_FAILED, "a")
	st, err := g.js.Stream(context.Background(), stream.EventsStream)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Consumer(context.Background(), "gateway-notifications"); err == nil {
		t.Error("change events are consumed for nobody")
	}
	g.clock.forward(time.Minute) // what happened before a target was made is nothing to it
	r := newReceiver(t)
	made := g.addTarget("WEBHOOK", r.url, nil, "DEPLOYMENT_FAILED")
	g.settled()
	if n := len(g.deployer.asked("GetDeployment")); n != 0 {
		t.Errorf("asked %d times about what nobody wanted to hear of", n)
	}
	g.withToken(adminToken).do(http.MethodDelete, targetsPath+"/"+made.Target.ID, nil).want(http.StatusOK)
	testkit.Eventually(t, 20*time.Second, func() error {
		c, err := st.Consumer(context.Background(), "gateway-notifications")
		if err != nil {
			return err
		}
		info, err := c.Info(context.Background())
		if err != nil {
			return err
		}
		if info.NumWaiting > 0 {
			return fmt.Errorf("%d pulls wait", info.NumWaiting)
		}
		return nil
	})
}
