package bitbucket

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devpilot.io/bitbucket/pkg/seal"
)

const (
	webUUID  = "85d08b4e-571d-44e9-a507-fa476535aa98"
	acmeUUID = "6f1c2d3e-0000-4000-8000-00000000acce"
)

// The repository object of BITBUCKET.md#one-repository.
const repositoryJSON = `{"type":"repository","uuid":"{85D08B4E-571d-44e9-a507-fa476535aa98}","full_name":"acme/web","name":"Web","slug":"web",
 "scm":"git","is_private":true,"size":657151990,"updated_on":"2026-03-17T11:18:32.485296+00:00","mainbranch":{"type":"branch","name":"main"},"parent":null,
 "workspace":{"type":"workspace","uuid":"{6f1c2d3e-0000-4000-8000-00000000acce}","name":"Acme","slug":"acme"},
 "links":{"clone":[{"name":"https","href":"https://jane-dev@bitbucket.org/acme/web.git"}]},"some_new_field":{"x":1}}`

var webRepository = Repository{
	UUID: webUUID, FullName: "acme/web", Name: "Web", Slug: "web", Private: true, MainBranch: "main",
	Workspace: Workspace{UUID: acmeUUID, Slug: "acme", Name: "Acme"},
	UpdatedOn: time.Date(2026, 3, 17, 11, 18, 32, 485296000, time.UTC),
}

func TestUser(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) { answerText(w, 200, "application/json", userJSON) })
	u, err := s.account(t, ClientOptions{}).User(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := User{UUID: "0b7c0e0a-1111-4222-8333-444455556666", AccountID: "557058:x", Username: "jane-dev", Nickname: "Jane",
		DisplayName: "Jane Developer", AvatarURL: "https://avatar.example.test/abc"}
	if diff := cmp.Diff(want, u); diff != "" {
		t.Error(diff)
	}
	for _, step := range []string{"jane-dev", "Jane", "Jane Developer"} {
		if u.Label() != step {
			t.Errorf("label = %q, want %q", u.Label(), step)
		}
		switch {
		case u.Username != "":
			u.Username = ""
		default:
			u.Nickname = ""
		}
	}
	u.DisplayName = " "
	if u.Label() != "account 0b7c0e0a" {
		t.Errorf("label = %q of an account without any name", u.Label())
	}
}

func TestWorkspaces_areNestedAndNameless(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		answerText(w, 200, "application/json", `{"pagelen":25,"page":1,"size":1,"values":[{"type":"workspace_access","administrator":true,
		 "workspace":{"type":"workspace_base","slug":"acme","uuid":"{6F1C2D3E-0000-4000-8000-00000000ACCE}","links":{}}}]}`)
	})
	l, err := s.account(t, ClientOptions{}).Workspaces(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []WorkspaceAccess{{Workspace: Workspace{UUID: acmeUUID, Slug: "acme"}, Administrator: true}}
	if diff := cmp.Diff(want, l.Values); diff != "" {
		t.Error(diff)
	}
}

func TestRepositories_query(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		answerText(w, 200, "application/json", `{"values":[`+repositoryJSON+`,{"uuid":"{00000000-0000-0000-0000-000000000002}","full_name":"acme/empty","mainbranch":null,"updated_on":null}],"size":2}`)
	})
	l, err := s.account(t, ClientOptions{}).Repositories(t.Context(), Workspace{UUID: "{" + strings.ToUpper(acmeUUID) + "}"}, RepositoriesOptions{Role: RoleMember, Filter: Contains("name", `we"b\`)})
	if err != nil {
		t.Fatal(err)
	}
	want := []Repository{webRepository, {UUID: "00000000-0000-0000-0000-000000000002", FullName: "acme/empty", Name: "empty", Slug: "empty", Workspace: Workspace{Slug: "acme"}}}
	if diff := cmp.Diff(want, l.Values); diff != "" {
		t.Error(diff)
	}
	r := s.requests()[0]
	if r.Path != "/2.0/repositories/%7B"+acmeUUID+"%7D" {
		t.Errorf("path = %q: braces must be encoded", r.Path)
	}
	q, err := url.ParseQuery(r.Query)
	if err != nil {
		t.Fatal(err)
	}
	if q.Get("role") != "member" || q.Get("sort") != "name" || q.Get("pagelen") != "100" || q.Get("q") != `name~"we\"b\\"` {
		t.Errorf("query = %v", q)
	}
	fields := strings.Split(q.Get("fields"), ",")
	for _, f := range []string{"next", "size", "page", "pagelen", "values.uuid", "values.full_name", "values.mainbranch.name", "values.workspace.uuid"} {
		if !strings.Contains(","+strings.Join(fields, ",")+",", ","+f+",") {
			t.Errorf("field %q is not asked for in %v", f, fields)
		}
	}
}

func TestRepository_paths(t *testing.T) {
	byName := Ref{Workspace: "acme", Repository: "web", Label: "acme/web"}
	tests := map[string]struct {
		ref  Ref
		path string
	}{
		"by name":            {byName, "/2.0/repositories/acme/web"},
		"by UUIDs":           {RefByID(acmeUUID, webUUID, ""), "/2.0/repositories/%7B" + acmeUUID + "%7D/%7B" + webUUID + "%7D"},
		"by UUID alone":      {RefByID("", webUUID, ""), "/2.0/repositories/%7B%7D/%7B" + webUUID + "%7D"},
		"with braces":        {RefByID("{"+acmeUUID+"}", "{"+strings.ToUpper(webUUID)+"}", ""), "/2.0/repositories/%7B" + acmeUUID + "%7D/%7B" + webUUID + "%7D"},
		"of a read one":      {webRepository.Ref(), "/2.0/repositories/%7B" + acmeUUID + "%7D/%7B" + webUUID + "%7D"},
		"odd slug, escaped":  {Ref{Workspace: "a b", Repository: "../x?y"}, "/2.0/repositories/a%20b/..%2Fx%3Fy"},
		"a slug that is hex": {Ref{Workspace: "acme", Repository: "deadbeef"}, "/2.0/repositories/acme/deadbeef"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, func(w http.ResponseWriter, _ *http.Request) { answerText(w, 200, "application/json", repositoryJSON) })
			r, err := s.account(t, ClientOptions{}).Repository(t.Context(), tt.ref)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(webRepository, r); diff != "" {
				t.Error(diff)
			}
			if got := s.requests()[0].Path; got != tt.path {
				t.Errorf("path = %q, want %q", got, tt.path)
			}
		})
	}
}

func TestRepositoryPermission(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		answerText(w, 200, "application/json", `{"values":[{"type":"repository_permission","permission":"admin","user":{},
		 "repository":{"type":"repository","name":"web","full_name":"acme/web","uuid":"{`+webUUID+`}"}}]}`)
	})
	a := s.account(t, ClientOptions{})
	p, err := a.RepositoryPermission(t.Context(), Workspace{UUID: acmeUUID}, webUUID)
	if err != nil || p != PermissionAdmin {
		t.Errorf("permission = %q, %v", p, err)
	}
	p, err = a.RepositoryPermission(t.Context(), Workspace{UUID: acmeUUID}, "00000000-0000-0000-0000-000000000002")
	if err != nil || p != PermissionNone {
		t.Errorf("permission on another = %q, %v", p, err)
	}
	r := s.requests()[0]
	q, _ := url.ParseQuery(r.Query)
	if r.Path != "/2.0/user/workspaces/%7B"+acmeUUID+"%7D/permissions/repositories" || q.Get("q") != `repository.uuid="{`+webUUID+`}"` || q.Get("sort") != "repository.name" {
		t.Errorf("request = %+v", r)
	}
}

func TestBranches(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		answerText(w, 200, "application/json", `{"values":[{"type":"branch","name":"feature/login","target":{"type":"commit","hash":"e5d1cde9069fcb9f0af90403a4de2150c125a148",
		 "date":"2026-04-12T06:44:38+00:00","message":"Fix login\n","author":{"type":"author","raw":"Jane <jane@example.test>"}}},
		 {"type":"branch","name":"odd","target":{"hash":"f","date":"yesterday","author":{"raw":"","user":{"display_name":"Jane Developer"}}}}]}`)
	})
	a := s.account(t, ClientOptions{})
	l, err := a.Branches(t.Context(), webRepository.Ref(), BranchesOptions{Contains: "log", Sort: "-target.date"})
	if err != nil {
		t.Fatal(err)
	}
	want := []Branch{
		{Name: "feature/login", Target: Commit{Hash: "e5d1cde9069fcb9f0af90403a4de2150c125a148", Message: "Fix login\n", AuthorName: "Jane",
			AuthorEmail: "jane@example.test", Time: time.Date(2026, 4, 12, 6, 44, 38, 0, time.UTC)}},
		{Name: "odd", Target: Commit{Hash: "f", AuthorName: "Jane Developer"}},
	}
	if diff := cmp.Diff(want, l.Values); diff != "" {
		t.Error(diff)
	}
	q, _ := url.ParseQuery(s.requests()[0].Query)
	if q.Get("q") != `name~"log"` || q.Get("sort") != "-target.date" {
		t.Errorf("query = %v", q)
	}
}

func TestFiles(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		answerText(w, 200, "application/json", `{"values":[{"type":"commit_directory","path":"index.html.d"},
		 {"type":"commit_file","path":"public/index.html"},{"type":"commit_file"},7],"next":"http://elsewhere.test/"}`)
	})
	paths, err := s.account(t, ClientOptions{}).Files(t.Context(), webRepository.Ref(), strings.Repeat("a", 40), 2, "index.html", "hugo.")
	if err != nil || !slices.Equal(paths, []string{"public/index.html"}) {
		t.Errorf("%q, %v", paths, err)
	}
	if len(s.requests()) != 1 {
		t.Fatalf("%d calls", len(s.requests()))
	}
	q, _ := url.ParseQuery(s.requests()[0].Query)
	if q.Get("max_depth") != "2" || q.Get("q") != `path~"index.html" OR path~"hugo."` || q.Get("pagelen") != "100" {
		t.Errorf("query = %v", q)
	}
	if p := s.requests()[0].Path; !strings.HasSuffix(p, "/src/"+strings.Repeat("a", 40)+"/") {
		t.Errorf("path = %s", p)
	}
}

func TestBranch_namesInPaths(t *testing.T) {
	for name, path := range map[string]string{
		"main":          "main",
		"feature/login": "feature/login",
		"fix#1":         "fix%231",
		"50%":           "50%25",
		"ümlaut/ok":     "%C3%BCmlaut/ok",
		"a+b@c":         "a+b@c",
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
				answer(w, 200, map[string]any{"name": name, "target": map[string]any{"hash": "e5d1cde9069fcb9f0af90403a4de2150c125a148"}})
			})
			b, err := s.account(t, ClientOptions{}).Branch(t.Context(), Ref{Workspace: "acme", Repository: "web"}, name)
			if err != nil || b.Name != name {
				t.Fatalf("Branch = %+v, %v", b, err)
			}
			if got := s.requests()[0].Path; got != "/2.0/repositories/acme/web/refs/branches/"+path {
				t.Errorf("path = %q", got)
			}
		})
	}
}

func TestBranch_impossibleNamesCostNoCall(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, map[string]any{}) })
	a := s.account(t, ClientOptions{})
	for _, name := range []string{
		"", "@", "-x", "a..b", "../hooks", "a/../b", "/a", "a/", "a//b", ".a", "a/.b", "a.lock", "a.lock/b", "a.", "a b", "a~", "a^", "a:b", "a?", "a*", "a[", `a\b`, "a@{1}", "a\x00", "a\x7f",
		strings.Repeat("a", 2000),
	} {
		if _, err := a.Branch(t.Context(), Ref{Workspace: "acme", Repository: "web"}, name); !IsKind(err, KindNotFound) {
			t.Errorf("Branch(%q): err = %v", name, err)
		}
	}
	if n := len(s.requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestBranch_anotherOneInTheAnswer(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"name": "main", "target": map[string]any{"hash": "e5d1"}})
	})
	if _, err := s.account(t, ClientOptions{}).Branch(t.Context(), Ref{Workspace: "acme", Repository: "web"}, "Main"); !IsKind(err, KindBadResponse) {
		t.Errorf("err = %v", err)
	}
}

const hookJSON = `{"type":"webhook_subscription","uuid":"{202CF34E-7ccf-44b7-ba6b-8827a14d5324}","description":"Acme deploy",
 "url":"https://hooks.example.test/bitbucket/6c1f","active":true,"events":["repo:push"],"skip_cert_verification":false,
 "secret_set":true,"history_enabled":false,"read_only":null,"source":null,"created_at":"2026-08-23T15:07:25.469063524Z"}`

var acmeHook = Hook{
	UUID: "202cf34e-7ccf-44b7-ba6b-8827a14d5324", Description: "Acme deploy", URL: "https://hooks.example.test/bitbucket/6c1f",
	Active: true, Events: []string{"repo:push"}, SecretSet: true, CreatedAt: time.Date(2026, 8, 23, 15, 7, 25, 469063524, time.UTC),
}

func TestHooks(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			w.Header().Set("Location", "https://elsewhere.example.test/x") // 201 is no redirect
			answerText(w, 201, "application/json", hookJSON)
		case r.Method == http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
		case strings.HasSuffix(r.URL.Path, "/hooks"):
			answerText(w, 200, "application/json", `{"pagelen":10,"page":1,"size":1,"values":[`+hookJSON+`]}`)
		default:
			answerText(w, 200, "application/json", hookJSON)
		}
	})
	a := s.account(t, ClientOptions{})
	ref := webRepository.Ref()
	in := HookInput{Description: "Acme deploy", URL: acmeHook.URL, Active: true, Events: []string{EventPush}, Secret: seal.NewSecret("s3cret")}
	created, err := a.CreateHook(t.Context(), ref, in)
	if err != nil {
		t.Fatal(err)
	}
	in.Secret = seal.Secret{}
	updated, err := a.UpdateHook(t.Context(), ref, created.UUID, in)
	if err != nil {
		t.Fatal(err)
	}
	read, err := a.Hook(t.Context(), ref, created.UUID)
	if err != nil {
		t.Fatal(err)
	}
	listed, err := a.Hooks(t.Context(), ref)
	if err != nil || len(listed) != 1 {
		t.Fatalf("Hooks = %v, %v", listed, err)
	}
	for what, got := range map[string]Hook{"created": created, "updated": updated, "read": read, "listed": listed[0]} {
		if diff := cmp.Diff(acmeHook, got); diff != "" {
			t.Errorf("%s:\n%s", what, diff)
		}
	}
	if err := a.DeleteHook(t.Context(), ref, created.UUID); err != nil {
		t.Fatal(err)
	}

	base := "/2.0/repositories/%7B" + acmeUUID + "%7D/%7B" + webUUID + "%7D/hooks"
	one := base + "/%7B202cf34e-7ccf-44b7-ba6b-8827a14d5324%7D"
	var got []string
	for _, r := range s.requests() {
		got = append(got, r.Method+" "+r.Path)
	}
	if diff := cmp.Diff([]string{"POST " + base, "PUT " + one, "GET " + one, "GET " + base, "DELETE " + one}, got); diff != "" {
		t.Errorf("requests:\n%s", diff)
	}
	for i, wantSecret := range []bool{true, false} {
		var body map[string]any
		if err := json.Unmarshal([]byte(s.requests()[i].Body), &body); err != nil {
			t.Fatal(err)
		}
		secret, has := body["secret"]
		if has != wantSecret || (has && secret != "s3cret") || body["active"] != true || body["url"] != acmeHook.URL || body["description"] != "Acme deploy" {
			t.Errorf("body %d = %v", i, body)
		}
		if s.requests()[i].ContentType != "application/json" {
			t.Errorf("content type = %q", s.requests()[i].ContentType)
		}
	}
}

func TestSetBuildStatus(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, 201, map[string]any{"type": "build"}) })
	a := s.account(t, ClientOptions{})
	hash := strings.Repeat("a", 40)
	status := BuildStatus{Key: StatusKey("acme-inc", "web", "connection"), State: BuildInProgress, Name: strings.Repeat("ü", 300),
		URL: "https://console.example.test/d/{42}", Description: "Building…", RefName: "main"}
	if err := a.SetBuildStatus(t.Context(), webRepository.Ref(), hash, status); err != nil {
		t.Fatal(err)
	}
	r := s.requests()[0]
	if !strings.HasSuffix(r.Path, "/commit/"+hash+"/statuses/build") || r.Method != http.MethodPost {
		t.Errorf("request = %+v", r)
	}
	var body struct{ Key, State, Name, URL, Description, Refname string }
	if err := json.Unmarshal([]byte(r.Body), &body); err != nil {
		t.Fatal(err)
	}
	if len(body.Key) != MaxStatusKey || body.State != "INPROGRESS" || len([]rune(body.Name)) != 254 ||
		body.URL != "https://console.example.test/d/%7B42%7D" || body.Refname != "main" {
		t.Errorf("body = %+v", body)
	}
	if err := a.SetBuildStatus(t.Context(), webRepository.Ref(), hash, BuildStatus{Key: strings.Repeat("k", 41)}); err == nil {
		t.Error("a key of 41 characters was sent")
	}
	if StatusKey("a", "bc") == StatusKey("ab", "c") {
		t.Error("keys collide")
	}
	if want := status.Key; StatusKey("acme-inc", "web", "connection") != want {
		t.Error("the key of the same parts changed")
	}
}

func TestUUIDs(t *testing.T) {
	for in, want := range map[string]string{
		"{85D08B4E-571D-44E9-A507-FA476535AA98}": webUUID, webUUID: webUUID, " {" + webUUID + "} ": webUUID, "{": "{", "": "", "{}": "",
	} {
		if got := NormalizeUUID(in); got != want {
			t.Errorf("NormalizeUUID(%q) = %q, want %q", in, got, want)
		}
	}
	for s, want := range map[string]bool{webUUID: true, strings.ToUpper(webUUID): false, "": false, "{" + webUUID + "}": false, strings.Repeat("-", 36): false, strings.Repeat("a", 36): false} {
		if got := IsUUID(s); got != want {
			t.Errorf("IsUUID(%q) = %t", s, got)
		}
	}
}
