package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/testkit"
	doctorv1 "devpilot.io/bitbucket/proto/gen/devpilot/doctor/v1"
	"devpilot.io/bitbucket/services/gateway"
	"devpilot.io/bitbucket/services/gateway/internal/signin"
)

type doctorReport struct {
	Program, Version, Time, State string
	OK                            int `json:"ok"`
	Warnings, Failed, Skipped     int
	Running                       bool
	Checks                        []struct{ Name, Service, Where, State, Found, Remedy, Time string }
}

// state is that of a check, and what was found.
func (r doctorReport) state(t *testing.T, service, name string) (state, found string) {
	t.Helper()
	for _, c := range r.Checks {
		if c.Service == service && c.Name == name {
			return c.State, c.Found
		}
	}
	t.Fatalf("there is no check %s of %s: %+v", name, service, r.Checks)
	return "", ""
}

// says teaches a service what it says of itself.
func says(checks ...*doctorv1.DoctorCheck) handler {
	for _, c := range checks {
		c.Time = timestamppb.New(time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC))
	}
	return func(context.Context, proto.Message) (proto.Message, error) {
		return &doctorv1.ExamineResponse{Version: "v1", Checks: checks}, nil
	}
}

const doctorAgain = 11 * time.Second // beyond which a new run is made

// All services are asked, as the operator, and their words are told in order, with what they come to. A run that has just
// been is not made again.
func TestDoctor_tellsWhatServicesSay(t *testing.T) {
	g := start(t)
	operator := g.withToken(adminToken)
	var before doctorReport
	operator.get("/v1/doctor").want(http.StatusOK).into(&before)
	if before.Time != "" || before.State != "SKIPPED" || len(before.Checks) != 0 || before.Running {
		t.Errorf("before the first run: %+v", before)
	}
	g.auth.on("Examine", says(
		&doctorv1.DoctorCheck{Name: "oauth-consumer", Service: "auth", State: doctorv1.DoctorCheck_FAILED, Found: "Bitbucket does not accept it.", Remedy: "Put it right."},
		&doctorv1.DoctorCheck{Name: "redis", Service: "auth", State: doctorv1.DoctorCheck_SKIPPED, Found: "It is not set."},
	))
	g.deployer.on("Examine", says(&doctorv1.DoctorCheck{Name: "disk", Service: "deployer", Where: "default: host-1", State: doctorv1.DoctorCheck_WARNING, Found: "It fills.", Remedy: "Make room."}))
	g.repo.on("Examine", says())
	g.webhook.on("Examine", says(&doctorv1.DoctorCheck{Name: "nats", Service: "webhook", State: doctorv1.DoctorCheck_OK, Found: "It answers."}))
	var r, kept doctorReport
	operator.post("/v1/doctor:run", object{}).want(http.StatusOK).into(&r)
	var order []string
	for _, c := range r.Checks {
		order = append(order, c.Service+" "+c.Name)
		if c.Time == "" || (c.Remedy == "") != (c.State == "OK" || c.State == "SKIPPED") {
			t.Errorf("%+v", c)
		}
	}
	if want := []string{"auth service", "auth oauth-consumer", "auth redis", "repo service", "webhook service", "webhook nats", "deployer service", "deployer disk", "gateway service"}; !slices.Equal(order, want) {
		t.Errorf("%q", order)
	}
	if r.Program != "devpilot" || r.Version != "test" || r.State != "FAILED" || r.Failed != 1 || r.Warnings != 1 || r.Skipped != 1 || r.OK != 6 || r.Running || r.Time == "" {
		t.Errorf("%+v", r)
	}
	operator.get("/v1/doctor").want(http.StatusOK).into(&kept)
	if fmt.Sprint(kept) != fmt.Sprint(r) {
		t.Errorf("kept is %+v, not %+v", kept, r)
	}
	operator.post("/v1/doctor:run", object{}).want(http.StatusOK).into(&kept)
	if n := len(g.auth.asked("Examine")); n != 1 || fmt.Sprint(kept) != fmt.Sprint(r) {
		t.Errorf("asked %d times for two runs in a row: %+v", n, kept)
	}
	if user := g.auth.asked("Examine")[0].user; !user.Operator {
		t.Errorf("asked on behalf of %+v", user)
	}
	g.auth.on("Examine", says())
	g.deployer.on("Examine", says())
	g.clock.forward(doctorAgain)
	operator.post("/v1/doctor:run", object{}).want(http.StatusOK).into(&kept)
	if n := len(g.auth.asked("Examine")); n != 2 || kept.State != "OK" || kept.Time == r.Time {
		t.Errorf("asked %d times: %+v", n, kept)
	}
}

// A service that stands still, and one that refuses, is a line of its own; the others are told all the same.
func TestDoctor_aServiceThatDoesNotAnswer(t *testing.T) {
	g := start(t, func(c *gateway.Config) { c.DoctorTime = 2 * time.Second })
	g.auth.on("Examine", func(ctx context.Context, _ proto.Message) (proto.Message, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	g.webhook.on("Examine", func(context.Context, proto.Message) (proto.Message, error) { return nil, errors.New("pl4nted secret") })
	g.repo.on("Examine", says())
	g.deployer.on("Examine", says(&doctorv1.DoctorCheck{Name: "git", Service: "deployer", State: doctorv1.DoctorCheck_OK, Found: "git 2.47."}))
	var r doctorReport
	a := g.withToken(adminToken).post("/v1/doctor:run", object{}).want(http.StatusOK)
	a.into(&r)
	if state, found := r.state(t, "auth", "service"); state != "FAILED" || !strings.Contains(found, "auth did not answer within 2s") {
		t.Errorf("%s: %s", state, found)
	}
	if state, found := r.state(t, "webhook", "service"); state != "FAILED" || !strings.Contains(found, "webhook does not answer") {
		t.Errorf("%s: %s", state, found)
	}
	if state, _ := r.state(t, "deployer", "git"); state != "OK" || r.State != "FAILED" || r.Running {
		t.Errorf("%+v", r)
	}
	if strings.Contains(string(a.body), "pl4nted") {
		t.Errorf("an error's own text is shown: %s", a.body)
	}
}

// Who looks meanwhile sees how far it is; there is one run at a time for all replicas, and one that was cut off with its
// process ends by itself and changes nothing later.
func TestDoctor_oneRunAtATime(t *testing.T) {
	g := start(t, func(c *gateway.Config) { c.DoctorTime = 2 * time.Minute })
	for _, f := range []*fake{g.repo, g.webhook, g.deployer} {
		f.on("Examine", says())
	}
	release, asked := make(chan struct{}), make(chan struct{}, 10)
	g.auth.on("Examine", func(ctx context.Context, _ proto.Message) (proto.Message, error) {
		asked <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return &doctorv1.ExamineResponse{Checks: []*doctorv1.DoctorCheck{{Name: "late", Service: "auth", State: doctorv1.DoctorCheck_OK, Found: "It came late."}}}, nil
	})
	operator := g.withToken(adminToken)
	first := make(chan doctorReport, 1)
	run := func() {
		var r doctorReport
		operator.post("/v1/doctor:run", object{}).into(&r)
		first <- r
	}
	go run()
	<-asked
	var seen doctorReport
	testkit.Eventually(t, 30*time.Second, func() error {
		seen = doctorReport{}
		operator.get("/v1/doctor").into(&seen)
		if state, _ := seen.state(t, "deployer", "service"); state != "OK" || !seen.Running || seen.State != "RUNNING" {
			return fmt.Errorf("%+v", seen)
		}
		return nil
	})
	if state, _ := seen.state(t, "auth", "service"); state != "RUNNING" {
		t.Errorf("auth is %s", state)
	}
	_, other := g.replica()
	elsewhere := g.withToken(adminToken)
	elsewhere.base = other
	var joined doctorReport
	elsewhere.post("/v1/doctor:run", object{}).want(http.StatusOK).into(&joined)
	if !joined.Running || joined.Time != seen.Time || len(g.auth.asked("Examine")) != 1 {
		t.Errorf("a second run beside the first: %+v", joined)
	}
	// The run is taken for dead.
	g.clock.forward(time.Minute)
	operator.get("/v1/doctor").want(http.StatusOK).into(&seen)
	if state, found := seen.state(t, "auth", "service"); state != "SKIPPED" || !strings.Contains(found, "cut off before auth had answered") || seen.Running || seen.State != "OK" {
		t.Errorf("%+v", seen)
	}
	g.auth.on("Examine", says())
	var next, kept doctorReport
	elsewhere.post("/v1/doctor:run", object{}).want(http.StatusOK).into(&next)
	if next.Running || next.Time == seen.Time {
		t.Errorf("%+v", next)
	}
	close(release)
	<-first
	operator.get("/v1/doctor").want(http.StatusOK).into(&kept)
	if fmt.Sprint(kept) != fmt.Sprint(next) {
		t.Errorf("the run before changed what the next one found: %+v", kept)
	}
}

// Only operators are told, and /v1/me says who is one; whom the rules make none any more is none from then on.
func TestDoctor_isForOperators(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, roleRules, p))
	is := func(c *client, want bool) {
		t.Helper()
		var me struct{ Operator bool }
		c.get("/v1/me").want(http.StatusOK).into(&me)
		if me.Operator != want {
			t.Errorf("an operator: %v", me.Operator)
		}
		for _, a := range []*answer{c.get("/v1/doctor"), c.post("/v1/doctor:run", object{})} {
			if want {
				a.want(http.StatusOK)
			} else if said := a.problem(http.StatusForbidden, "PERMISSION_DENIED"); !strings.Contains(said.Detail, "Ask its operator") {
				t.Errorf("%+v", said)
			}
		}
	}
	is(g.withToken(adminToken), true)
	is(g.signedIn(), true)
	is(g.signInAs(p, "opal", "members", "operators"), true)
	is(g.signInAs(p, "opal", "members"), false)
	is(g.signInAs(p, "olga", "owners"), false)
	is(g.signInAs(p, "rita", "rivals"), false)
	is(g.key("default", "OWNER"), false)
	g.anybody().get("/v1/doctor").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
}

// A rule that makes operators goes with no workspace, and not with everybody.
func TestDoctor_ruleOfOperators(t *testing.T) {
	const head = "providers:\n  - id: corp\n    issuer: https://id.example.com\n    clientId: devpilot\n    rules:\n      - "
	for rule, want := range map[string]string{
		"{role: operator, group: platform}":                  "",
		"{role: Operator, email: olga@example.com}":          "",
		"{role: operator, workspace: acme, group: platform}": "it goes with no workspace",
		"{role: operator, everybody: true}":                  "not with everybody",
		"{role: operator}":                                   "say who it is about",
		"{role: owner, group: platform}":                     "workspace: the id of a workspace",
		"{role: boss, workspace: acme, group: platform}":     "role: owner, admin or member, or operator without a workspace",
	} {
		s, err := signin.ParseSettings([]byte(head+rule+"\n"), func(string) (string, bool) { return "", false })
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", rule, err)
		}
		if err == nil && (len(s.Workspaces()) != 0 || s.MakesOwner()) {
			t.Errorf("%s makes workspaces or owners: %v", rule, s.Workspaces())
		}
	}
}
