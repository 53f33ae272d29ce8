package e2e

import (
	"fmt"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/services/allinone"
)

const excluded = "BITBUCKET_WORKSPACE_EXCLUDED"

// within makes a repository of a Bitbucket workspace that an account deploys from.
func (g *ground) within(t *testing.T, bitbucketWorkspace, slug, account string) repository {
	t.Helper()
	name := bitbucketWorkspace + "/" + slug
	made, err := g.site().PutRepository(t.Context(), name, emulator.RepositoryInput{Name: slug, Seed: "site", Permissions: map[string]string{jane: "admin", account: "admin"}})
	if err != nil {
		t.Fatal(err)
	}
	return repository{name: name, id: made.UUID}
}

// TestNarrowed narrows a workspace that has apps inside and outside: what is outside is not listed, read, made,
// deployed, found or repaired, and says so; what is inside goes on; widened again, what is owed is deployed.
func TestNarrowed(t *testing.T) {
	t.Parallel()
	g := openWhy(t, func(*allinone.Settings) {})
	n := g.connected(t, "narrow", "narrow")
	beta, err := g.site().PutWorkspace(t.Context(), "beta", emulator.Workspace{Name: "Beta", Members: map[string]string{"narrow": "member", jane: "owner"}})
	if err != nil {
		t.Fatal(err)
	}
	in, out, lib := g.within(t, "beta", "inside", "narrow"), g.within(t, "acme", "outside", "narrow"), g.within(t, "acme", "lib", "narrow")
	n.app("in", in, "main")
	webhook := fmt.Sprint(dig(n.app("out", out, "main"), "webhook", "id"))
	one := g.site().commit(t, out, "main", "one")
	n.live("out", one)
	n.live("in", g.site().commit(t, in, "main", "one"))
	listed := func() string {
		var names []string
		for _, r := range objects(n.api.get(n.path("/repositories?pageSize=200&refresh=true"))["repositories"]) {
			names = append(names, fmt.Sprint(r["fullName"]))
		}
		return strings.Join(names, " ")
	}

	narrow := n.path("/integrations/bitbucket:narrow")
	only := object{"bitbucketWorkspaces": []object{{"id": beta.UUID, "name": "beta"}}}
	n.key("MEMBER").refused("POST", narrow, only, "PERMISSION_DENIED")
	for _, body := range []object{{}, {"bitbucketWorkspaces": []object{{"id": "beta"}}}} { // left out, and by a name that may change hands
		if p := n.api.refused("POST", narrow, body, "INVALID_ARGUMENT"); len(p.Fields) != 1 || !strings.HasPrefix(p.Fields[0].Name, "bitbucketWorkspaces") {
			t.Errorf("%v names %v", body, p.Fields)
		}
	}
	n.api.must("POST", narrow, only)
	n.await(n.path("/apps/out"), func(app object) error {
		if dig(app, "autoDeployPaused", "reason") != excluded || dig(app, "sync", "reason") != excluded || !strings.Contains(fmt.Sprint(app["warnings"]), excluded) {
			return fmt.Errorf("paused %v, sync %v, warnings %v", app["autoDeployPaused"], app["sync"], app["warnings"])
		}
		return nil
	})
	if dig(n.api.get(n.path("/apps/in")), "autoDeployPaused") != nil {
		t.Error("what is inside is paused, too")
	}

	// Read.
	if names := listed(); strings.Contains(names, "acme/") || !strings.Contains(names, in.name) {
		t.Errorf("listed: %s", names)
	}
	for _, w := range objects(n.api.get(n.path("/bitbucketWorkspaces"))["bitbucketWorkspaces"]) {
		if w["excluded"] != (w["id"] != beta.UUID) {
			t.Errorf("%v is excluded: %v", w["slug"], w["excluded"])
		}
	}
	n.api.refused("GET", n.path("/repositories/%s", out.id), nil, excluded)
	n.api.refused("GET", n.path("/repositories/%s/branches", out.id), nil, excluded)

	// Made and deployed.
	n.api.refused("POST", n.path("/apps"), object{"appId": "more", "app": object{"repository": lib.id, "branch": "main"}}, excluded)
	n.api.refused("POST", n.path("/apps/out/deployments"), object{}, excluded)
	n.api.refused("POST", n.path("/apps/out/deployments/1:redeploy"), object{}, excluded)
	two := g.site().commit(t, out, "main", "two")
	if o := objects(n.delivery(webhook, 2, 1)["outcomes"])[0]; o["reason"] != excluded || o["kind"] != "IGNORED" {
		t.Errorf("the delivery came to %v", o)
	}
	const narrowed = "An admin narrowed this workspace to some Bitbucket workspaces, and this repository's is not among them"
	if e := n.why("commit="+two, excluded); !strings.HasPrefix(fmt.Sprint(e["message"]), narrowed) || dig(e, "remedy", "kind") != "OPEN_INTEGRATION" {
		t.Errorf("why: %v, %v", e["message"], e["remedy"])
	}
	g.inject(t, []emulator.Fault{{Kind: emulator.FaultDropDelivery, Repository: out.name}}, func(*emulator.Fault) {})
	three := g.site().commit(t, out, "main", "three") // that polls would find
	n.live("in", g.site().commit(t, in, "main", "two"))
	if list := n.deployments("out"); len(list) != 1 {
		t.Errorf("deployed from outside: %s", brief(list))
	}

	// A submodule that lies outside.
	c := g.site().clone(t, in)
	c.commit(".gitmodules", "[submodule \"lib\"]\n\tpath = lib\n\turl = ../../acme/lib.git\n")
	c.git("update-index", "--add", "--cacheinfo", "160000,"+g.site().head(t, lib, "main")+",lib")
	c.git("commit", "--quiet", "-m", "A submodule")
	n.api.must("PATCH", n.path("/apps/in?updateMask=source"), object{"source": object{"submodules": true, "submoduleWorkspaces": []any{"acme"}}})
	c.git("push", "--quiet", "origin", "HEAD:main")
	with := c.git("rev-parse", "HEAD")
	n.await(n.path("/apps/in/deployments"), func(list object) error {
		d := objects(list["deployments"])[0]
		if dig(d, "commit", "hash") != with || d["state"] != "FAILED" || dig(d, "error", "reason") != excluded {
			return fmt.Errorf("%s %v", brief([]object{d}), d["error"])
		}
		return nil
	})

	// Webhooks, and the proof.
	n.api.refused("POST", n.path("/webhooks/%s:repair", webhook), object{}, excluded)
	if hooks, err := g.site().Hooks(t.Context(), out.name); err != nil || len(hooks) != 1 || !hooks[0].Active {
		t.Errorf("the webhook that was there: %v, %v", hooks, err)
	}
	skipped := found{"SKIPPED", `An admin narrowed this workspace to other Bitbucket workspaces: nothing is deployed from it\.`, ""}
	n.proven(object{"writeStatus": true}, map[string]found{"admin " + out.name: skipped, "git " + out.name: skipped})

	// Widened.
	n.api.must("POST", narrow, object{"bitbucketWorkspaces": []object{}})
	n.live("out", three)
	n.live("in", with)
	if names := listed(); !strings.Contains(names, out.name) {
		t.Errorf("widened, listed: %s", names)
	}
}
