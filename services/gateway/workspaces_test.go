package gateway_test

import (
	"net/http"
	"strings"
	"testing"
)

type workspaceView struct{ ID, DisplayName, Role, ETag, CreateTime string }

// The name for people changes and nothing else does; who read an older one is told.
func TestWorkspaces_rename(t *testing.T) {
	g := start(t)
	g.workspace("acme")
	c := g.signedIn()
	const path = "/v1/workspaces/acme"
	var before, after workspaceView
	c.get(path).want(http.StatusOK).into(&before)
	c.send(http.MethodPatch, path, `{"displayName":"  Acme, Inc. "}`, with("If-Match", `"`+before.ETag+`"`)).want(http.StatusOK).into(&after)
	if after.DisplayName != "Acme, Inc." || after.ETag == before.ETag || after.ID != "acme" || after.Role != "OWNER" || after.CreateTime != before.CreateTime {
		t.Errorf("renamed %+v to %+v", before, after)
	}
	c.send(http.MethodPatch, path, `{"displayName":"late"}`, with("If-Match", `"`+before.ETag+`"`)).problem(http.StatusPreconditionFailed, "ETAG_MISMATCH")
	c.send(http.MethodPatch, path, `{"displayName":"late","etag":"`+before.ETag+`"}`).problem(http.StatusPreconditionFailed, "ETAG_MISMATCH")
	for body, field := range map[string]string{
		`{"displayName":"a\u0007b"}`: "displayName", `{"displayName":"` + strings.Repeat("x", 201) + `"}`: "displayName", `{"name":"x"}`: "name",
	} {
		if p := c.send(http.MethodPatch, path, body).problem(http.StatusBadRequest, "INVALID_ARGUMENT"); len(p.Fields) != 1 || p.Fields[0].Name != field {
			t.Errorf("%s: fields %v", body, p.Fields)
		}
	}
	c.send(http.MethodPatch, path, `{}`).want(http.StatusOK)
	c.send(http.MethodPatch, path+"?validateOnly=true", `{"displayName":"only asked"}`).want(http.StatusOK)
	var now workspaceView
	c.get(path).want(http.StatusOK).into(&now)
	if now != after {
		t.Errorf("refused and empty changes left %+v, not %+v", now, after)
	}
	r := waitActivity(t, c, "acme", func(r record) bool { return r.Action == "workspace.update" && r.Succeeded })
	if r.Target != `workspace "acme"` {
		t.Errorf("recorded %+v", r)
	}
	c.send(http.MethodPatch, path+"?updateMask=displayName", `{}`).want(http.StatusOK).into(&now)
	if now.DisplayName != "acme" {
		t.Errorf("without a name it is called %q", now.DisplayName)
	}
	g.key("acme", "ADMIN").send(http.MethodPatch, path, `{"displayName":"mine"}`).problem(http.StatusForbidden, "PERMISSION_DENIED")
}
