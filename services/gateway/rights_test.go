package gateway_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/services/gateway/internal/caller"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

// TestRights_whatChangesAnywhereHoldsAtTheNextRequest: rights are read from copies in memory, and
// signatures are reused; what somebody may do no more through one replica is refused by the others
// at once all the same.
func TestRights_whatChangesAnywhereHoldsAtTheNextRequest(t *testing.T) {
	g := start(t)
	_, other := g.replica()
	store := tenant.New(g.js, tenant.Options{Now: time.Now, Logger: g.logs.Logger})
	if err := store.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	const apps = "/v1/workspaces/acme/apps"
	owner := tenant.Subject{ID: caller.LocalSubject, Label: caller.LocalLabel}
	g.workspace("acme")
	elsewhere := g.withToken(adminToken)
	elsewhere.base = other
	last := func() identity.Identity {
		calls := g.deployer.asked("ListApps")
		return calls[len(calls)-1].user
	}
	session := g.signedIn()
	for range 10 { // each round meets the copies at another moment
		session.get(apps).want(http.StatusOK)
		if role := last().Role; role != identity.RoleOwner {
			t.Fatalf("the owner's role is %s", role)
		}
		if err := store.AddMember(t.Context(), "acme", owner, identity.RoleMember); err != nil {
			t.Fatal(err)
		}
		session.get(apps).want(http.StatusOK)
		if role := last().Role; role != identity.RoleMember {
			t.Fatalf("the role became %s, not member", role)
		}
		if err := store.RemoveMember(t.Context(), "acme", caller.LocalSubject, tenant.By{Subject: caller.LocalSubject, Role: identity.RoleMember}); err != nil {
			t.Fatal(err)
		}
		session.get(apps).problem(http.StatusNotFound, "WORKSPACE_NOT_FOUND")
		if err := store.AddMember(t.Context(), "acme", owner, identity.RoleOwner); err != nil {
			t.Fatal(err)
		}

		key := g.key("acme", "MEMBER")
		key.get(apps).want(http.StatusOK)
		id := strings.Split(key.bearer, "_")[1]
		elsewhere.do(http.MethodDelete, "/v1/workspaces/acme/apiKeys/"+id, nil).want(http.StatusOK)
		key.get(apps).problem(http.StatusUnauthorized, "UNAUTHENTICATED")

		leaving := g.signedIn()
		leaving.get(apps).want(http.StatusOK)
		ended := leaving.cookies()[0]
		leaving.base = other // a cookie is for all ports of a host
		leaving.send(http.MethodDelete, "/v1/session", "").want(http.StatusOK)
		g.anybody().get(apps, with("Cookie", ended.Name+"="+ended.Value)).problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	}
}

// TestRights_areReadFromMemory counts what the leader is asked for many requests at a time: how far
// its buckets are, and no record.
func TestRights_areReadFromMemory(t *testing.T) {
	g := start(t)
	g.workspace("acme")
	session := g.signedIn()
	session.get("/v1/workspaces/acme/apps").want(http.StatusOK)
	nc, _ := g.nats.Connect()
	reads := make(chan *nats.Msg, 1000)
	sub, err := nc.ChanSubscribe("$JS.API.STREAM.MSG.GET.*", reads)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	const requests = 20
	for range requests {
		session.get("/v1/workspaces/acme/apps").want(http.StatusOK)
	}
	if err := nc.Flush(); err != nil { // what was asked before is here now
		t.Fatal(err)
	}
	_ = sub.Unsubscribe()
	asked := map[string]int{}
	for len(reads) > 0 {
		m := <-reads
		if !strings.Contains(string(m.Data), "last_by_subj") {
			continue
		}
		what := m.Subject + " " + string(m.Data)
		asked[what]++
		// What was done before is noted a moment later, in these two; a request would ask each time.
		noted := strings.HasSuffix(m.Subject, "-inventory") || strings.HasSuffix(m.Subject, "_activity_counters")
		if !noted || asked[what] == requests {
			t.Errorf("the leader was asked for a record: %s", what)
		}
	}
}
