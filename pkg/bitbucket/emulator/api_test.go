package emulator_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

const noRepository = "You may not have access to this repository or it no longer exists in this workspace. If you think this repository exists and you have access, make sure you are authenticated."

func TestUser_ofSection3(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	for _, path := range []string{"/user", "/user/"} {
		a := f.call("GET", path, token, nil).want(t, 200)
		if a.json["type"] != "user" || a.json["username"] != "jane-dev" || a.json["uuid"] != "{"+emulator.SeededUUID("account", "jane-dev")+"}" ||
			a.json["display_name"] != "Jane Developer" || a.json["nickname"] != "Jane" || a.json["account_id"] == "" {
			t.Errorf("got %s", a.raw)
		}
		for name, want := range map[string]string{
			"X-OAuth-Scopes": "account, email, repository, webhook", "X-Accepted-OAuth-Scopes": "account",
			"Content-Type": "application/json; charset=utf-8",
		} {
			if got := a.Header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		for _, name := range []string{"ETag", "Vary", "X-Request-Count", "X-B3-TraceId"} {
			if a.Header.Get(name) == "" {
				t.Errorf("no %s", name)
			}
		}
	}
	a := f.call("GET", "/user/emails", token, nil).want(t, 200)
	if a.at("values", 0, "email") != "jane@example.test" || a.at("values", 0, "is_primary") != true {
		t.Errorf("got %s", a.raw)
	}
}

func TestScopes_missingOnesAnswer403WithObjectDetail(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev", "account").AccessToken
	for path, required := range map[string]string{
		"/user/emails": "[email]", "/repositories/acme": "[repository]", "/repositories/acme/web/hooks": "[webhook]",
		"/user/workspaces/acme/permissions/repositories": "[account repository]",
	} {
		a := f.call("GET", path, token, nil).want(t, 403, "Your credentials lack one or more required privilege scopes.")
		if fmt.Sprint(a.at("error", "detail", "granted")) != "[account]" || fmt.Sprint(a.at("error", "detail", "required")) != required {
			t.Errorf("%s: %s", path, a.raw)
		}
	}
	broader := f.tokens("jane-dev", "account:write", "repository:write").AccessToken
	f.call("GET", "/user", broader, nil).want(t, 200)
	f.call("GET", "/repositories/acme", broader, nil).want(t, 200)
	implied := f.tokens("jane-dev", "pullrequest").AccessToken
	f.call("GET", "/repositories/acme", implied, nil).want(t, 200)
	// repository:admin implies neither read nor write (BITBUCKET.md#scopes).
	f.call("GET", "/repositories/acme", f.tokens("jane-dev", "repository:admin").AccessToken, nil).want(t, 403)
}

func TestRemovedListings_answer410AsRecorded(t *testing.T) {
	t.Parallel()
	f := start(t)
	const body = `{"data":{"announcement_url":"https://developer.atlassian.com/cloud/bitbucket/changelog#CHANGE-2770"},` +
		`"error":{"data":{"announcement_url":"https://developer.atlassian.com/cloud/bitbucket/changelog#CHANGE-2770"},` +
		`"detail":"Please read the changelog entry for more details.","message":"CHANGE-2770 - Functionality has been deprecated"},"type":"error"}`
	token := f.tokens("jane-dev").AccessToken
	for _, path := range []string{"/repositories?role=member", "/user/permissions/repositories", "/workspaces", "/user/permissions/workspaces", "/repositories/"} {
		if a := f.call("GET", path, token, nil).want(t, 410); string(a.raw) != body {
			t.Errorf("%s: %s", path, a.raw)
		}
	}
}

func TestWorkspaces_ofSection4_2(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	a := f.call("GET", "/user/workspaces?pagelen=100&sort=slug", token, nil).want(t, 200)
	if got := a.names("workspace", "slug"); !slices.Equal(got, []string{"acme", "jane-dev"}) {
		t.Fatalf("workspaces %v", got)
	}
	first := a.at("values", 0)
	if dig(first, "type") != "workspace_access" || dig(first, "administrator") != false || dig(first, "workspace", "type") != "workspace_base" {
		t.Errorf("got %v", first)
	}
	if has(dig(first, "workspace"), "name") || has(dig(first, "workspace", "links"), "html") {
		t.Error("the reduced workspace has a name or an html link")
	}
	// A personal workspace has its owner's UUID.
	if a.at("values", 1, "workspace", "uuid") != "{"+emulator.SeededUUID("account", "jane-dev")+"}" {
		t.Errorf("personal workspace %v", a.at("values", 1))
	}
	if got := f.call("GET", "/user/workspaces?administrator=true", token, nil).names("workspace", "slug"); !slices.Equal(got, []string{"jane-dev"}) {
		t.Errorf("administrator: %v", got)
	}
	if got := f.call("GET", "/user/workspaces?q="+url.QueryEscape(`slug="acme"`), token, nil).names("workspace", "slug"); !slices.Equal(got, []string{"acme"}) {
		t.Errorf("q: %v", got)
	}
	for slug, permission := range map[string]string{"acme": "member", "jane-dev": "owner"} {
		if a := f.call("GET", "/user/workspaces/"+slug+"/permission", token, nil).want(t, 200); a.json["permission"] != permission {
			t.Errorf("%s: %s", slug, a.raw)
		}
	}
	w := f.call("GET", "/workspaces/"+url.PathEscape("{"+emulator.SeededUUID("workspace", "acme")+"}"), token, nil).want(t, 200)
	if w.json["name"] != "Acme" || w.json["slug"] != "acme" || w.json["is_personal"] != false || w.at("links", "html", "href") == nil {
		t.Errorf("got %s", w.raw)
	}
	f.call("GET", "/workspaces/nowhere", token, nil).want(t, 404, "No workspace with identifier 'nowhere'.")
}

func TestRepositories_roleFilterAndSort(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	for _, tc := range []struct {
		query string
		want  string
	}{
		{"", "api docs empty legacy web"},
		{"role=member", "api docs empty legacy web"},
		{"role=contributor", "api docs empty web"},
		{"role=admin", "api empty web"},
		{"role=owner", ""},
		{"sort=-name", "web legacy empty docs api"},
		{`q=name~"E"&sort=name`, "empty legacy web"},
		{`q=name="Web"`, "web"},
		{`q=full_name="acme/api"`, "api"},
		{`q=uuid="{` + emulator.SeededUUID("repository", "acme/docs") + `}"`, "docs"},
		{`q=is_private=false OR (name="Web" AND is_private=true)`, "docs web"},
		{`q=name!~"e" AND updated_on>2026-01-01T00:00:00Z`, "api docs"},
		{`q=updated_on>2027-01-01`, ""},
	} {
		query := strings.ReplaceAll(tc.query, " ", "%20")
		query = strings.NewReplacer(`"`, "%22", ">", "%3E", "{", "%7B", "}", "%7D").Replace(query)
		a := f.call("GET", "/repositories/acme?pagelen=100&"+query, token, nil).want(t, 200)
		if got := strings.Join(a.names("slug"), " "); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.query, got, tc.want)
		}
	}
	f.call("GET", "/repositories/acme?q=nonsense%3D%22x%22", token, nil).want(t, 400, `Field "nonsense" does not support filtering`)
	f.call("GET", "/repositories/acme?q=name%3D%22x", token, nil).want(t, 400)
	f.call("GET", "/repositories/acme?sort=nonsense", token, nil).want(t, 400)
	f.call("GET", "/repositories/acme?role=boss", token, nil).want(t, 400)
	f.call("GET", "/repositories/nowhere", token, nil).want(t, 404, "No workspace with identifier 'nowhere'.")
	f.call("GET", "/repositories/jane-dev", f.tokens("acme-admin").AccessToken, nil).want(t, 404)
	if got := f.call("GET", "/repositories/jane-dev?role=owner", token, nil).names("slug"); !slices.Equal(got, []string{"notes", "site"}) {
		t.Errorf("owner: %v", got)
	}
	// Without credentials only what is public; the workspace itself is private here.
	f.call("GET", "/repositories/acme", "", nil).want(t, 404)
}

func TestRepositories_restrictedAndDeletedWorkspaces(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	for listing, status := range map[string]int{"restricted": 403, "deleted": 410} {
		_, err := f.control.PutWorkspace(t.Context(), "acme", emulator.Workspace{Members: map[string]string{"jane-dev": "member"}, Listing: listing})
		f.must(err)
		f.call("GET", "/repositories/acme", token, nil).want(t, status)
		f.call("GET", "/repositories/jane-dev", token, nil).want(t, 200)
	}
}

func TestRepository_bySlugAndUUIDInEveryForm(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	workspace, repository := "{"+emulator.SeededUUID("workspace", "acme")+"}", "{"+emulator.SeededUUID("repository", "acme/web")+"}"
	for _, path := range []string{
		"/repositories/acme/web", "/repositories/ACME/Web", "/repositories/acme/web/",
		"/repositories/" + url.PathEscape(workspace) + "/" + url.PathEscape(repository),
		"/repositories/" + workspace + "/" + repository, "/repositories/%7B%7D/" + url.PathEscape(repository),
		"/repositories/{}/" + strings.ToUpper(repository),
	} {
		a := f.call("GET", path, token, nil).want(t, 200)
		if a.json["full_name"] != "acme/web" || a.json["uuid"] != repository || a.at("mainbranch", "name") != "main" || has(a.json["mainbranch"], "hash") {
			t.Errorf("%s: %s", path, a.raw)
		}
	}
	a := f.call("GET", "/repositories/acme/web", token, nil)
	clone, err := url.Parse(a.at("links", "clone", 0, "href").(string))
	f.must(err)
	if clone.User.String() != "jane-dev" || clone.Path != "/acme/web.git" {
		t.Errorf("clone link %s", clone)
	}
	if a.at("owner", "type") != "team" || a.at("workspace", "uuid") != workspace || a.at("project", "key") != "MAIN" {
		t.Errorf("got %s", a.raw)
	}
	if own := f.call("GET", "/repositories/jane-dev/site", token, nil); own.at("owner", "type") != "user" || own.at("owner", "uuid") != own.at("workspace", "uuid") {
		t.Errorf("personal: %s", own.raw)
	}
	if docs := f.call("GET", "/repositories/acme/docs", "", nil).want(t, 200); strings.Contains(dig(docs.json, "links", "clone", 0, "href").(string), "@") {
		t.Error("anonymous clone link has a user")
	}
	if empty := f.call("GET", "/repositories/acme/empty", token, nil).want(t, 200); empty.json["mainbranch"] != nil || !has(empty.json, "mainbranch") {
		t.Errorf("empty: %v", empty.json["mainbranch"])
	}
	for _, path := range []string{"/repositories/acme/payroll", "/repositories/acme/nothing", "/repositories/nowhere/web", "/repositories/%7B%7D/web"} {
		f.call("GET", path, token, nil).want(t, 404, noRepository)
	}
	f.call("GET", "/repositories/acme/web", "", nil).want(t, 404, noRepository)
}

func TestPermissions_ofSection4_4(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	const path = "/user/workspaces/acme/permissions/repositories"
	a := f.call("GET", path+"?sort=repository.name", token, nil).want(t, 200)
	got := map[string]string{}
	for _, value := range a.values() {
		got[dig(value, "repository", "full_name").(string)] = dig(value, "permission").(string)
	}
	want := map[string]string{"acme/api": "admin", "acme/docs": "write", "acme/empty": "admin", "acme/legacy": "read", "acme/web": "admin"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v", got)
	}
	for q, count := range map[string]int{`permission>"read"`: 4, `permission="admin"`: 3, `repository.full_name="acme/web"`: 1} {
		if a := f.call("GET", path+"?q="+url.QueryEscape(q), token, nil).want(t, 200); len(a.values()) != count {
			t.Errorf("%s: %d", q, len(a.values()))
		}
	}
	f.call("GET", path, f.tokens("acme-admin").AccessToken, nil).want(t, 200)
	f.call("GET", "/user/workspaces/jane-dev/permissions/repositories", f.tokens("acme-admin").AccessToken, nil).want(t, 403)
	// Public without a grant: visible, but not listed here.
	_, err := f.control.PutRepository(t.Context(), "acme/open", emulator.RepositoryInput{Public: true})
	f.must(err)
	f.call("GET", "/repositories/acme/open", token, nil).want(t, 200)
	if a := f.call("GET", path, token, nil); len(a.values()) != 5 {
		t.Errorf("public repository is listed: %s", a.raw)
	}
}

func TestPagination_ofSection4_7(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	ws := url.PathEscape("{" + emulator.SeededUUID("workspace", "acme") + "}")
	next := f.server.APIURL() + "/repositories/" + ws + "?role=member&pagelen=2&sort=name"
	var slugs []string
	for page := 1; next != ""; page++ {
		a := f.call("GET", next, token, nil).want(t, 200)
		if a.json["page"] != float64(page) || a.json["pagelen"] != 2.0 || a.json["size"] != 5.0 || has(a.json, "previous") != (page > 1) {
			t.Fatalf("page %d: %s", page, a.raw)
		}
		slugs = append(slugs, a.names("slug")...)
		more, _ := a.json["next"].(string)
		if more == "" && has(a.json, "next") {
			t.Error("the last page has a next key")
		}
		if more != "" {
			u, err := url.Parse(more)
			f.must(err)
			// Absolute, with all original parameters, addressed as before.
			if !strings.HasPrefix(more, f.server.APIURL()+"/repositories/"+ws+"?") || u.Query().Get("role") != "member" || u.Query().Get("sort") != "name" {
				t.Errorf("next is %s", more)
			}
		}
		next = more
	}
	if !slices.Equal(slugs, []string{"api", "docs", "empty", "legacy", "web"}) {
		t.Errorf("got %v", slugs)
	}
	if a := f.call("GET", "/repositories/acme", token, nil); a.json["pagelen"] != 10.0 {
		t.Errorf("default pagelen %v", a.json["pagelen"])
	}
	f.call("GET", "/repositories/acme?pagelen=100", token, nil).want(t, 200)
	for _, pagelen := range []string{"101", "0", "-1", "x"} {
		f.call("GET", "/repositories/acme?pagelen="+pagelen, token, nil).want(t, 400, "Invalid pagelen")
	}
	for _, page := range []string{"2", "0", "x"} {
		f.call("GET", "/repositories/acme?page="+page, token, nil).want(t, 404, "Invalid page")
	}
	f.call("GET", "/repositories/acme?page=1&role=owner", token, nil).want(t, 200)

	f.must(f.control.Switch(t.Context(), func(s *emulator.Switches) { s.OmitSize, s.OpaquePages = true, true }))
	a := f.call("GET", "/repositories/acme?pagelen=3", token, nil).want(t, 200)
	if has(a.json, "size") || strings.Contains(a.json["next"].(string), "page=2") {
		t.Errorf("got %v", a.json["next"])
	}
	if got := f.call("GET", a.json["next"].(string), token, nil).want(t, 200).names("slug"); !slices.Equal(got, []string{"legacy", "web"}) {
		t.Errorf("opaque page 2: %v", got)
	}
}

func TestFields_whitelistAndRemove(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	a := f.call("GET", "/repositories/acme?pagelen=2&fields=next,values.uuid,values.mainbranch.name,values.links.*.href", token, nil).want(t, 200)
	first, _ := a.at("values", 0).(map[string]any)
	if len(a.json) != 2 || len(first) != 3 || fmt.Sprint(first["mainbranch"]) != "map[name:main]" || dig(first, "links", "self", "href") == nil {
		t.Errorf("got %s", a.raw)
	}
	if a := f.call("GET", "/repositories/acme?pagelen=2&fields=values.uuid", token, nil); has(a.json, "next") {
		t.Error("next survived a whitelist that does not name it")
	}
	if a := f.call("GET", "/repositories/acme?fields=-values.links,%2Bvalues.owner", token, nil); has(a.at("values", 0), "links") || !has(a.at("values", 0), "owner") {
		t.Errorf("got %s", a.raw)
	}
}

func TestBranches_ofSection5(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	const path = "/repositories/acme/web/refs/branches"
	a := f.call("GET", path+"?pagelen=100", token, nil).want(t, 200)
	if got := a.names("name"); !slices.Equal(got, []string{"develop", "feature/login", "main", "release/1.0"}) {
		t.Fatalf("branches %v", got)
	}
	login := a.at("values", 1)
	hash, _ := dig(login, "target", "hash").(string)
	if dig(login, "type") != "branch" || len(hash) != 40 || dig(login, "target", "message") != "Add a login page\n" ||
		dig(login, "target", "date") != "2026-03-02T13:00:00+00:00" || dig(login, "target", "author", "raw") != "Jane Developer <jane@example.test>" ||
		dig(login, "target", "author", "user", "nickname") != "Jane" || dig(login, "target", "repository", "full_name") != "acme/web" ||
		dig(login, "default_merge_strategy") != "merge_commit" || len(dig(login, "target", "parents").([]any)) != 1 {
		t.Errorf("got %v", login)
	}
	if self := dig(login, "links", "self", "href"); self != f.server.APIURL()+path+"/feature/login" {
		t.Errorf("self link %v", self)
	}
	if got := f.call("GET", path+"?sort=-target.date", token, nil).names("name"); got[0] != "feature/login" || got[1] != "develop" {
		t.Errorf("newest first: %v", got)
	}
	if got := f.call("GET", path+"?q=name~%22REL%22", token, nil).names("name"); !slices.Equal(got, []string{"release/1.0"}) {
		t.Errorf("q: %v", got)
	}
	for _, name := range []string{"feature/login", "feature%2Flogin"} {
		if a := f.call("GET", path+"/"+name, token, nil).want(t, 200); a.at("target", "hash") != hash {
			t.Errorf("%s: %s", name, a.raw)
		}
	}
	odd := "odd/#1 ü%"
	f.push("acme/web", emulator.RefChange{Branch: "odd/#1-ü%", From: "main"})
	f.call("GET", path+"/"+url.PathEscape("odd/#1-ü%"), token, nil).want(t, 200)
	missing := f.call("GET", path+"/"+url.PathEscape(odd), token, nil).want(t, 404)
	if missing.at("data", "shas", 0) != odd || missing.at("error", "data", "shas", 0) != odd {
		t.Errorf("got %s", missing.raw)
	}
	if a := f.call("GET", "/repositories/acme/empty/refs/branches", token, nil).want(t, 200); len(a.values()) != 0 || !has(a.json, "values") {
		t.Errorf("empty: %s", a.raw)
	}
	f.push("acme/web", emulator.RefChange{Branch: "stranger", From: "main", Commits: []emulator.CommitSpec{{Message: "x", AuthorName: "Someone", AuthorEmail: "someone@else.test"}}})
	if a := f.call("GET", path+"/stranger", token, nil); has(a.at("target", "author"), "user") {
		t.Error("an unknown e-mail has a user")
	}
	f.call("GET", "/repositories/acme/payroll/refs/branches", token, nil).want(t, 404, noRepository)
	f.call("GET", "/repositories/acme/docs/refs/branches", "", nil).want(t, 200)
}

func TestTags_lightAndAnnotated(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	const path = "/repositories/acme/web/refs/tags"
	f.push("acme/web", emulator.RefChange{Tag: "v9/light", From: "main"}, emulator.RefChange{Tag: "v9/annotated", From: "feature/login", Annotation: "Nine"})
	main := f.call("GET", "/repositories/acme/web/refs/branches/main", token, nil).at("target", "hash")
	if got := f.call("GET", path+"?q=name~%22V9%22&sort=-target.date", token, nil).want(t, 200).names("name"); !slices.Equal(got, []string{"v9/annotated", "v9/light"}) {
		t.Errorf("search: %v", got)
	}
	for _, name := range []string{"v9/light", "v9%2Flight"} {
		light := f.call("GET", path+"/"+name, token, nil).want(t, 200)
		if light.at("type") != "tag" || light.at("target", "hash") != main || light.at("message") != nil || !has(light.json, "tagger") {
			t.Errorf("%s: %s", name, light.raw)
		}
	}
	annotated := f.call("GET", path+"/v9/annotated", token, nil).want(t, 200)
	if hash, _ := annotated.at("target", "hash").(string); len(hash) != 40 || annotated.at("target", "type") != "commit" || annotated.at("message") != "Nine\n" ||
		annotated.at("target", "message") != "Add a login page\n" || annotated.at("tagger", "raw") == nil {
		t.Errorf("annotated: %s", annotated.raw)
	}
	if missing := f.call("GET", path+"/v10", token, nil).want(t, 404); missing.at("data", "shas", 0) != "v10" {
		t.Errorf("missing: %s", missing.raw)
	}
	f.call("GET", "/repositories/acme/payroll/refs/tags", token, nil).want(t, 404, noRepository)
}

func TestCommits_includeExclude(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	const path = "/repositories/acme/web/commits"
	pushed := f.push("acme/web", emulator.RefChange{Branch: "topic/one", From: "main", Commits: []emulator.CommitSpec{{Message: "One\n"}, {Message: "Two\n"}}})
	tip := pushed[0].New
	if got := f.call("GET", path+"?include=topic/one&exclude=main", token, nil).want(t, 200).names("message"); !slices.Equal(got, []string{"Two\n", "One\n"}) {
		t.Errorf("of the branch alone: %q", got)
	}
	if a := f.call("GET", path+"?include=main&exclude=topic/one", token, nil).want(t, 200); len(a.values()) != 0 || !has(a.json, "values") || has(a.json, "size") {
		t.Errorf("main is contained: %s", a.raw)
	}
	if a := f.call("GET", path+"/topic/one?pagelen=1", token, nil).want(t, 200); a.at("values", 0, "hash") != tip {
		t.Errorf("by a path: %s", a.raw)
	}
	if a := f.call("GET", "/repositories/acme/web/commit/"+tip[:7], token, nil).want(t, 200); a.at("hash") != tip {
		t.Errorf("by its beginning: %s", a.raw)
	}
	for _, query := range []string{"?include=gone", "?include=main&exclude=gone", "?include=" + tip[:6]} {
		f.call("GET", path+query, token, nil).want(t, 404, "Commit not found")
	}
	if a := f.call("GET", "/repositories/acme/empty/commits", token, nil).want(t, 200); len(a.values()) != 0 {
		t.Errorf("empty: %s", a.raw)
	}
	f.call("GET", "/repositories/acme/payroll/commits", token, nil).want(t, 404, noRepository)
}

func TestAPI_unknownPathsAndMethods(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.call("GET", "/nothing/here", "", nil).want(t, 404, "Resource not found")
	f.call("GET", "/hook_events", "", nil).want(t, 404, "Resource not found")
	if a := f.call("DELETE", "/user", f.tokens("jane-dev").AccessToken, nil).want(t, 405); a.Header.Get("Allow") != "GET" {
		t.Errorf("Allow: %v", a.Header)
	}
	a := f.call("GET", "/hook_events/repository?pagelen=100", "", nil).want(t, 200)
	if !slices.Contains(a.names("event"), "repo:push") {
		t.Errorf("events: %s", a.raw)
	}
}

func TestRateLimit_budgetPerConsumerAndUser(t *testing.T) {
	t.Parallel()
	f := start(t)
	jane, admin := f.tokens("jane-dev").AccessToken, f.tokens("acme-admin").AccessToken
	limit := func(l emulator.RateLimit) {
		f.must(f.control.Switch(t.Context(), func(s *emulator.Switches) { s.RateLimit = l }))
	}
	limit(emulator.RateLimit{Budget: 3})
	for range 3 {
		f.call("GET", "/repositories/acme/web", jane, nil).want(t, 200)
	}
	const message = "Rate limit for this resource has been exceeded"
	a := f.call("GET", "/repositories/acme/web", admin, nil).want(t, 429, message)
	if a.Header.Get("Retry-After") != "" || a.Header.Get("X-RateLimit-Limit") != "" {
		t.Errorf("headers Bitbucket does not send: %v", a.Header)
	}
	// Webhooks and accounts have budgets of their own.
	f.call("GET", "/repositories/acme/web/hooks", jane, nil).want(t, 200)
	f.call("GET", "/user", jane, nil).want(t, 200)
	f.must(f.control.AdvanceClock(t.Context(), time.Hour))
	f.call("GET", "/repositories/acme/web", admin, nil).want(t, 200)

	limit(emulator.RateLimit{Budget: 1, Per: "user", Text: true, RetryAfter: true, Window: time.Minute})
	f.call("GET", "/repositories/acme/web", jane, nil).want(t, 200)
	f.call("GET", "/repositories/acme/web", admin, nil).want(t, 200)
	b := f.call("GET", "/repositories/acme/web", jane, nil).want(t, 429)
	if string(b.raw) != message || b.Header.Get("Retry-After") != "60" {
		t.Errorf("got %v %s", b.Header, b.raw)
	}
	f.must(f.control.AdvanceClock(t.Context(), time.Minute))
	f.call("GET", "/repositories/acme/web", jane, nil).want(t, 200)
}

func TestLatency_delaysEveryAnswer(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	f.must(f.control.SetLatency(t.Context(), 50*time.Millisecond))
	started := time.Now()
	f.call("GET", "/user", token, nil).want(t, http.StatusOK)
	if took := time.Since(started); took < 50*time.Millisecond {
		t.Errorf("answered after %s", took)
	}
}
