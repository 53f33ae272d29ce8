package dex

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// providers is the file of the identity providers. refreshEvery is as short as it may be.
const providers = `providers:
  - id: dex
    name: Dex
    issuer: %[1]s
    clientId: devpilot
    clientSecretVariable: DEX_CLIENT_SECRET
    scopes: [email, profile, groups, offline_access]
    refreshEvery: 10s
    rules:
      - {workspace: acme, role: owner, email: olga@example.com}
      - {workspace: acme, role: admin, group: platform}
      - {workspace: acme, role: member, group: web}
tokens:
  - id: scripts
    name: Scripts
    issuer: %[1]s
    audience: devpilot-scripts
    workspace: acme
    rules:
      - {scope: deploy, claims: {groups: [web]}}
`

// world is the product beside dex.
type world struct {
	*product
	dex *provider
}

func start(t *testing.T) world {
	t.Helper()
	t.Parallel()
	address := freeAddress(t)
	p := startDex(t, "http://"+address+"/sign-in/dex/callback")
	return world{startProduct(t, address, fmt.Sprintf(providers, p.issuer)), p}
}

// TestDex_signIn: a password or a group lets somebody in by dex's own form, and nothing else does.
func TestDex_signIn(t *testing.T) {
	w := start(t)
	w.dex.directory.put("jane", "platform", "web")
	w.dex.directory.put("stranger", "sales")

	jane := w.browser()
	form := jane.loginPage(ofTheDirectory)
	if again := jane.fill(form, "jane", "a guess"); !strings.Contains(again.text, "Invalid Username and password") {
		t.Errorf("a wrong password: %d %s", again.status, again.text)
	}
	if status, _ := jane.me("acme"); status != http.StatusUnauthorized {
		t.Errorf("a wrong password: %d", status)
	}
	jane.signIn(ofTheDirectory, "jane")
	jane.is("ADMIN")
	olga := w.browser()
	olga.signIn(ofPasswords, "olga@example.com")
	olga.is("OWNER")
	var list struct {
		Members []struct{ Label, Role string }
	}
	must(t, json.Unmarshal([]byte(olga.send(http.MethodGet, w.url+"/v1/workspaces/acme/members", "", "").text), &list))
	roles := map[string]string{}
	for _, m := range list.Members {
		roles[m.Label] = m.Role
	}
	if len(roles) != 3 || roles["jane"] != "ADMIN" || roles["olga"] != "OWNER" || roles["Local owner"] != "OWNER" {
		t.Errorf("members: %v", roles)
	}
	// Whom dex knows and no rule is about.
	for name, way := range map[string]string{"stranger": ofTheDirectory, "sam@example.com": ofPasswords} {
		b := w.browser()
		if at := b.fill(b.loginPage(way), name, password); at.status != http.StatusForbidden || !strings.Contains(at.text, "NOT_A_MEMBER") {
			t.Errorf("%s: %d %s", name, at.status, at.text)
		}
	}

	// This dex has no sign-out for its clients and no session of its own: signing out is the product's alone, and whoever
	// comes back is asked for the password.
	for _, absent := range []string{"end_session_endpoint", "backchannel_logout_supported"} {
		if has, ok := w.dex.description()[absent]; ok {
			t.Errorf("dex has %s %v: test it", absent, has)
		}
	}
	out := jane.send(http.MethodDelete, w.url+"/v1/session", "", "")
	if out.status != http.StatusOK || strings.Contains(out.text, "signOutUrl") {
		t.Errorf("signing out: %d %s", out.status, out.text)
	}
	if status, _ := jane.me("acme"); status != http.StatusUnauthorized {
		t.Errorf("signed out: %d", status)
	}
	jane.loginPage(ofTheDirectory).action(t)
	if w.log.contains(clientSecret) || w.log.contains(password) {
		t.Error("a secret is in the product's log")
	}
}

// TestDex_askedAgain: what somebody is not any more at dex is lost at the next refresh, in each of the person's browsers,
// of which dex gives only the last a refresh token that works.
func TestDex_askedAgain(t *testing.T) {
	w := start(t)
	w.dex.directory.put("jane", "platform", "web")
	w.dex.directory.put("kim", "web")
	first, second, kim := w.browser(), w.browser(), w.browser()
	first.signIn(ofTheDirectory, "jane")
	second.signIn(ofTheDirectory, "jane")
	kim.signIn(ofTheDirectory, "kim")
	first.is("ADMIN")

	w.dex.directory.put("jane", "web")
	w.dex.revoke("kim@example.com")
	second.becomes("MEMBER")
	first.becomes("MEMBER")
	kim.becomes("")

	w.dex.directory.put("jane", "sales")
	first.becomes("")
	second.becomes("")
	if w.log.contains("could not be checked at its provider") {
		t.Error("an answer of dex was taken for trouble")
	}
}

// TestDex_keysChange: dex is started anew with other keys. Who is signed in stays so, others sign in by the new keys,
// and a token by a key that is gone is refused.
func TestDex_keysChange(t *testing.T) {
	w := start(t)
	w.dex.directory.put("jane", "web")
	jane := w.browser()
	jane.signIn(ofTheDirectory, "jane")
	old := w.script(w.dex.scriptToken("jane"))
	old.is("MEMBER")

	w.dex.otherKeys()
	fresh := w.script(w.dex.scriptToken("jane"))
	fresh.is("MEMBER")
	if status, _ := old.me("acme"); status != http.StatusUnauthorized {
		t.Errorf("a token by a key that is gone: %d", status)
	}
	fresh.is("MEMBER")
	w.dex.directory.put("kim", "web")
	kim := w.browser()
	kim.signIn(ofTheDirectory, "kim")
	kim.is("MEMBER")
	w.dex.directory.put("jane", "platform")
	jane.becomes("ADMIN") // by an ID token of the new key

	// Whom its directory does not know any more, dex tells as trouble of its own, so that the session goes on for the hour
	// that a provider may be away.
	w.dex.directory.remove("kim")
	eventually(t, func() string {
		if kim.is("MEMBER"); !w.log.contains("the token endpoint answered 500") {
			return "dex was not asked about kim"
		}
		return ""
	})
}
