package gateway_test

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/gateway"
)

func slowHeartbeat(c *gateway.Config) { c.Heartbeat = time.Hour }

func localOwnerOff(c *gateway.Config) { c.LocalOwnerOff = true }

const ownerRules = `      - {workspace: acme, role: owner, group: owners}
      - {workspace: acme, role: member, group: web}
      - {workspace: rival, role: owner, group: rivals}
`

func (g *gate) signInAs(p *idp, name string, groups ...string) *client {
	g.t.Helper()
	p.is(name, groups...)
	c := g.browser()
	c.signIn(p, nil).want(http.StatusSeeOther)
	return c
}

type invited struct {
	Invitation struct{ ID, Email, Role, CreatedBy string }
	URL        string
}

func (i invited) token() string {
	_, fragment, _ := strings.Cut(i.URL, "#")
	q, _ := url.ParseQuery(fragment)
	return q.Get("invitation")
}

func (c *client) invite(workspace, email, role string) (out invited) {
	c.g.t.Helper()
	c.post("/v1/workspaces/"+workspace+"/invitations", map[string]any{"email": email, "role": role}).want(http.StatusOK).into(&out)
	return out
}

func members(c *client, workspace string) map[string]string {
	var list struct {
		Members []struct{ ID, Label, Role string }
	}
	c.get("/v1/workspaces/" + workspace + "/members").want(http.StatusOK).into(&list)
	out := map[string]string{}
	for _, m := range list.Members {
		out[m.Label] = m.Role
	}
	return out
}

// TestMembers_invitedMadeAdminRemoved is somebody's whole time in a workspace. When it ends, her sessions,
// her keys, those that her keys made, and her streams end.
func TestMembers_invitedMadeAdminRemoved(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, ownerRules, p))
	olga := g.signInAs(p, "olga", "owners")
	made := olga.invite("acme", "Jane@Example.com", "MEMBER")
	if made.Invitation.Email != "jane@example.com" || made.Invitation.CreatedBy != "Olga" || !strings.HasPrefix(made.URL, g.url+"/sign-in#invitation=") {
		t.Errorf("made %+v", made)
	}
	p.is("jane")
	jane := g.browser()
	jane.signIn(p, map[string]any{"invitation": made.token()}).want(http.StatusSeeOther)
	me := jane.me()
	if me.role("acme") != "MEMBER" || len(me.Workspaces) != 1 {
		t.Errorf("jane is %+v", me)
	}
	at := "/v1/workspaces/acme/members/" + me.Subject
	jane.post("/v1/workspaces/acme/apiKeys", map[string]any{"label": "mine"}).problem(http.StatusForbidden, "PERMISSION_DENIED")
	olga.post(at+":setRole", map[string]any{"role": "ADMIN"}).want(http.StatusOK)
	var key, child struct{ Secret string }
	jane.post("/v1/workspaces/acme/apiKeys", map[string]any{"label": "mine", "role": "ADMIN"}).want(http.StatusOK).into(&key)
	g.withToken(key.Secret).post("/v1/workspaces/acme/apiKeys", map[string]any{"label": "of my key"}).want(http.StatusOK).into(&child)

	// A key can do no more than its person does today.
	olga.post(at+":setRole", map[string]any{"role": "MEMBER"}).want(http.StatusOK)
	g.withToken(key.Secret).post("/v1/workspaces/acme/apiKeys", map[string]any{"label": "x"}).problem(http.StatusForbidden, "PERMISSION_DENIED")
	g.withToken(key.Secret).get("/v1/workspaces/acme/apps").want(http.StatusOK)
	olga.post(at+":setRole", map[string]any{"role": "ADMIN"}).want(http.StatusOK)

	events := follow(t, jane, "acme")
	olga.send(http.MethodDelete, at, "").want(http.StatusOK)
	jane.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	g.withToken(key.Secret).get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	g.withToken(child.Secret).get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	select {
	case <-events:
	case <-time.After(time.Minute):
		t.Error("the stream goes on")
	}
	if list := members(olga, "acme"); len(list) != 2 || list["Olga"] != "OWNER" || list["Local owner"] != "OWNER" {
		t.Errorf("left are %v", list)
	}
	if list := string(olga.get("/v1/workspaces/acme/apiKeys").want(http.StatusOK).body); strings.Contains(list, "mine") {
		t.Errorf("her keys are still listed: %s", list)
	}
	p.is("jane")
	if a := g.browser().signIn(p, nil); a.status != http.StatusForbidden {
		t.Errorf("she is back: %d %s", a.status, a.body)
	}
	waitActivity(t, olga, "acme", func(r record) bool { return r.Message == `Removed member "Jane".` && r.ActorLabel == "Olga" })
}

// follow opens the stream of changes; the channel is closed when it ends.
func follow(t *testing.T, c *client, workspace string) <-chan struct{} {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.base+"/v1/workspaces/"+workspace+"/events", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.http.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("events: %v %v", resp, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer resp.Body.Close()
		for buf := make([]byte, 1024); ; {
			if _, err := resp.Body.Read(buf); err != nil {
				return
			}
		}
	}()
	return ended
}

// TestStreams_endAtOnce: who is removed reads no further, long before the next heartbeat.
func TestStreams_endAtOnce(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, ownerRules, p), slowHeartbeat)
	olga, jane := g.signInAs(p, "olga", "owners"), g.signInAs(p, "jane", "web")
	ended := follow(t, jane, "acme")
	olga.send(http.MethodDelete, "/v1/workspaces/acme/members/"+jane.me().Subject, "").want(http.StatusOK)
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the stream goes on")
	}
	// By a rule she does not come back; invited she does.
	p.is("jane", "web")
	if a := g.browser().signIn(p, nil); a.status != http.StatusForbidden {
		t.Errorf("a rule lets her in again: %d %s", a.status, a.body)
	}
	back := g.browser()
	back.signIn(p, map[string]any{"invitation": olga.invite("acme", "jane@example.com", "MEMBER").token()}).want(http.StatusSeeOther)
	if back.me().role("acme") != "MEMBER" {
		t.Errorf("invited: %+v", back.me())
	}
}

func TestMembers_lastOwnerStays(t *testing.T) {
	p := provider(t)
	file := withProviders(t, ownerRules, p)
	g := start(t, file, localOwnerOff)
	one, two := g.signInAs(p, "olga", "owners"), g.signInAs(p, "otto", "owners")
	at := func(c *client) string { return "/v1/workspaces/acme/members/" + c.me().Subject }
	first, second := at(one), at(two)
	// Both leave at the same time: one of them stays.
	var wg sync.WaitGroup
	answers := make([]*answer, 2)
	for i, c := range []*client{one, two} {
		wg.Go(func() { answers[i] = c.send(http.MethodDelete, []string{first, second}[i], "") })
	}
	wg.Wait()
	stays := one
	mine := first
	if answers[0].status == http.StatusOK {
		stays, mine = two, second
	}
	if answers[0].status+answers[1].status != http.StatusOK+http.StatusConflict && answers[0].status+answers[1].status != http.StatusOK+http.StatusBadRequest {
		t.Fatalf("answers %d %s, %d %s", answers[0].status, answers[0].body, answers[1].status, answers[1].body)
	}
	if a := stays.send(http.MethodDelete, mine, ""); !strings.Contains(string(a.body), "LAST_OWNER") {
		t.Errorf("the last owner leaves: %d %s", a.status, a.body)
	}
	if a := stays.post(mine+":setRole", map[string]any{"role": "MEMBER"}); !strings.Contains(string(a.body), "MEMBER_MANAGED") {
		t.Errorf("a role that a rule gives is lowered: %d %s", a.status, a.body)
	}
}

// TestMembers_nobodyBeyondTheOwnRole: an admin makes no owner, and unmakes none.
func TestMembers_nobodyBeyondTheOwnRole(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, ownerRules, p))
	olga, jane, john := g.signInAs(p, "olga", "owners"), g.signInAs(p, "jane", "web"), g.signInAs(p, "john", "web")
	rita := g.signInAs(p, "rita", "rivals")
	const team = "/v1/workspaces/acme/members"
	at := func(c *client) string { return team + "/" + c.me().Subject }
	john.send(http.MethodDelete, at(jane), "").problem(http.StatusForbidden, "PERMISSION_DENIED")
	john.post(at(jane)+":setRole", map[string]any{"role": "MEMBER"}).problem(http.StatusForbidden, "PERMISSION_DENIED")
	olga.post(at(jane)+":setRole", map[string]any{"role": "ADMIN"}).want(http.StatusOK)
	jane.post(at(john)+":setRole", map[string]any{"role": "OWNER"}).problem(http.StatusForbidden, "PERMISSION_DENIED")
	jane.post(at(olga)+":setRole", map[string]any{"role": "ADMIN"}).problem(http.StatusForbidden, "PERMISSION_DENIED")
	jane.send(http.MethodDelete, at(olga), "").problem(http.StatusForbidden, "PERMISSION_DENIED")
	jane.post("/v1/workspaces/acme/invitations", map[string]any{"email": "x@example.com", "role": "OWNER"}).problem(http.StatusForbidden, "PERMISSION_DENIED")
	jane.get(at(olga)+"/sessions").problem(http.StatusForbidden, "PERMISSION_DENIED")
	jane.post(at(john)+":setRole", map[string]any{"role": "sultan"}).problem(http.StatusBadRequest, "INVALID_ARGUMENT")
	john.send(http.MethodDelete, at(john), "").want(http.StatusOK) // everybody may leave

	// Another workspace's people are nobody here, whatever they are there.
	rita.get(team).problem(http.StatusNotFound, "WORKSPACE_NOT_FOUND")
	olga.post("/v1/workspaces/acme/members/"+rita.me().Subject+":setRole", map[string]any{"role": "MEMBER"}).problem(http.StatusNotFound, "MEMBER_NOT_FOUND")
	olga.get("/v1/workspaces/acme/members/"+rita.me().Subject+"/sessions").problem(http.StatusNotFound, "MEMBER_NOT_FOUND")
	olga.send(http.MethodDelete, "/v1/workspaces/acme/members/"+rita.me().Subject, "").problem(http.StatusNotFound, "MEMBER_NOT_FOUND")

	// Who was removed does not make the workspace anew, not even who made it.
	rita.post("/v1/workspaces", map[string]any{"workspaceId": "hers"}).want(http.StatusOK)
	rita.send(http.MethodDelete, "/v1/workspaces/hers/members/"+rita.me().Subject, "").problem(http.StatusConflict, "LAST_OWNER")
}

func TestInvitations_workOnceForTheRightPerson(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, ownerRules, p))
	olga := g.signInAs(p, "olga", "owners")
	try := func(name string, verified bool, token string) (*client, *answer) {
		p.is(name)
		p.set(func() { p.claims["email_verified"] = verified })
		c := g.browser()
		return c, c.signIn(p, map[string]any{"invitation": token})
	}
	refused := func(what string, a *answer) {
		t.Helper()
		if a.status != http.StatusConflict && a.status != http.StatusBadRequest || !strings.Contains(string(a.body), "INVITATION_INVALID") {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	made := olga.invite("acme", "jane@example.com", "ADMIN")
	_, a := try("john", true, made.token())
	refused("somebody else", a)
	_, a = try("jane", false, made.token())
	refused("an address that is not verified", a)
	_, a = try("jane", true, strings.Replace(made.token(), "acme", "rival", 1))
	refused("another workspace", a)
	for _, forged := range []string{"dpi_acme_", "dpi_acme_" + strings.Repeat("A", 43), made.token() + "A", made.token()[:len(made.token())-1], "x", "dpi__" + strings.Repeat("A", 43)} {
		_, a = try("jane", true, forged)
		refused("forged "+forged, a)
	}
	jane, a := try("JANE", true, made.token()) // an address in capitals is the same
	a.want(http.StatusSeeOther)
	if jane.me().role("acme") != "ADMIN" {
		t.Errorf("jane is %+v", jane.me())
	}
	_, a = try("jane", true, made.token())
	refused("used before", a)

	gone := olga.invite("acme", "john@example.com", "MEMBER")
	if gone.Invitation.Role != "MEMBER" {
		t.Errorf("made %+v", gone)
	}
	list := string(olga.get("/v1/workspaces/acme/invitations").want(http.StatusOK).body)
	if !strings.Contains(list, "john@example.com") || strings.Contains(list, "jane@") || strings.Contains(list, gone.token()) {
		t.Errorf("listed: %s", list)
	}
	olga.send(http.MethodDelete, "/v1/workspaces/acme/invitations/"+gone.Invitation.ID, "").want(http.StatusOK)
	olga.send(http.MethodDelete, "/v1/workspaces/acme/invitations/"+gone.Invitation.ID, "").problem(http.StatusNotFound, "INVITATION_NOT_FOUND")
	_, a = try("john", true, gone.token())
	refused("withdrawn", a)
	late := olga.invite("acme", "john@example.com", "MEMBER")
	g.clock.forward(8 * 24 * time.Hour)
	p.now = g.clock.now
	_, a = try("john", true, late.token())
	refused("expired", a)
	g.logs.MustNotContain(t, made.token(), gone.token(), late.token())
}

func TestInvitations_onceByRequestID(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	body := map[string]any{"email": "jane@example.com", "requestId": "once"}
	const path = "/v1/workspaces/default/invitations"
	first := c.post(path, body).want(http.StatusOK)
	if again := c.post(path, body).want(http.StatusOK); string(again.body) != string(first.body) {
		t.Errorf("the repeat answered %s after %s", again.body, first.body)
	}
	c.post(path, map[string]any{"email": "john@example.com", "requestId": "once"}).problem(http.StatusConflict, "REQUEST_ID_REUSED")
	for _, bad := range []string{"", "jane", "Jane <jane@example.com>", "a@b, c@d", strings.Repeat("x", 250) + "@example.com"} {
		c.post(path, map[string]any{"email": bad}).problem(http.StatusBadRequest, "INVALID_ARGUMENT")
	}
}

// TestSessions_listedAndEnded: everybody sees the own ones and ends them, an owner those of the members.
func TestSessions_listedAndEnded(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, ownerRules, p))
	type sessions struct {
		Sessions []struct {
			ID, Address, UserAgent, Provider string
			Current                          bool
		}
	}
	olga := g.signInAs(p, "olga", "owners")
	one, two := g.signInAs(p, "jane", "web"), g.signInAs(p, "jane", "web")
	var list sessions
	one.get("/v1/sessions").want(http.StatusOK).into(&list)
	if len(list.Sessions) != 2 || !list.Sessions[0].Current || list.Sessions[1].Current || list.Sessions[0].Provider != "Example Corp" || list.Sessions[0].Address != "127.0.0.1" || list.Sessions[0].UserAgent == "" {
		t.Fatalf("listed %+v", list)
	}
	second := "/v1/sessions/" + list.Sessions[1].ID
	olga.send(http.MethodDelete, second, "").problem(http.StatusNotFound, "SESSION_NOT_FOUND") // it is not hers
	one.send(http.MethodDelete, second, "").want(http.StatusOK)
	two.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	one.send(http.MethodDelete, second, "").problem(http.StatusNotFound, "SESSION_NOT_FOUND")
	at := "/v1/workspaces/acme/members/" + one.me().Subject + "/sessions"
	var hers sessions
	olga.get(at).want(http.StatusOK).into(&hers)
	if len(hers.Sessions) != 1 || hers.Sessions[0].Current {
		t.Fatalf("the owner sees %+v", hers)
	}
	olga.send(http.MethodDelete, at+"/"+hers.Sessions[0].ID, "").want(http.StatusOK)
	one.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")

	local := g.signedIn()
	var mine sessions
	local.get("/v1/sessions").want(http.StatusOK).into(&mine)
	if len(mine.Sessions) != 1 || !mine.Sessions[0].Current || mine.Sessions[0].Provider != "" {
		t.Errorf("the local owner sees %+v", mine)
	}
}
