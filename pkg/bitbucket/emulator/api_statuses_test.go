package emulator_test

import (
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

func statusBody(change ...func(object)) object {
	body := object{"key": "acme-deploy-web-prod", "state": "INPROGRESS", "name": "Deploy web", "url": "https://console.example.test/d/42", "refname": "main"}
	for _, c := range change {
		c(body)
	}
	return body
}

func TestStatuses_createOverwriteReadUpdate(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	refs, err := f.control.Refs(t.Context(), "acme/web")
	f.must(err)
	hash := refs["refs/heads/main"]
	base := "/repositories/acme/web/commit/" + hash + "/statuses"

	a := f.call("POST", base+"/build", token, statusBody()).want(t, 201)
	if a.json["type"] != "build" || a.json["state"] != "INPROGRESS" || a.json["refname"] != "main" || a.at("commit", "hash") != hash || a.at("repository", "full_name") != "acme/web" {
		t.Errorf("got %s", a.raw)
	}
	over := f.call("POST", base+"/build", token, statusBody(set("state", "SUCCESSFUL"), without("refname"))).want(t, 200)
	if over.json["state"] != "SUCCESSFUL" || over.json["created_on"] != a.json["created_on"] {
		t.Errorf("got %s", over.raw)
	}
	put := f.call("PUT", base+"/build/acme-deploy-web-prod", token, object{"state": "FAILED", "description": "No"}).want(t, 200)
	if put.json["state"] != "FAILED" || put.json["url"] != "https://console.example.test/d/42" || put.json["description"] != "No" {
		t.Errorf("got %s", put.raw)
	}
	f.call("PUT", base+"/build/other", token, object{"state": "FAILED"}).want(t, 404)
	f.call("GET", base+"/build/other", token, nil).want(t, 404)
	f.call("POST", base+"/build", token, statusBody(set("key", "a/b c"), set("refname", "develop"))).want(t, 201)
	f.call("GET", base+"/build/a%2Fb%20c", token, nil).want(t, 200)
	f.call("GET", "/repositories/acme/web/commit/"+hash[:10]+"/statuses/build/acme-deploy-web-prod", token, nil).want(t, 200)
	if list := f.call("GET", base, token, nil).want(t, 200); list.json["size"] != 2.0 {
		t.Errorf("got %s", list.raw)
	}
	if list := f.call("GET", base+"?refname=develop", token, nil).want(t, 200); len(list.values()) != 1 {
		t.Errorf("got %s", list.raw)
	}
}

func TestStatuses_validationPermissionAndUnknownCommits(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	refs, err := f.control.Refs(t.Context(), "acme/web")
	f.must(err)
	base := "/repositories/acme/web/commit/" + refs["refs/heads/main"] + "/statuses/build"
	for field, change := range map[string]func(object){
		"key": set("key", strings.Repeat("k", 41)), "state": set("state", "PENDING"), "url": set("url", "http://localhost:8080/d/42"),
		"name": set("name", strings.Repeat("n", 255)), "description": set("description", strings.Repeat("d", 256)),
	} {
		if a := f.call("POST", base, token, statusBody(change)).want(t, 400); a.at("error", "fields", field, 0) == nil {
			t.Errorf("%s: %s", field, a.raw)
		}
	}
	long := f.call("POST", base, token, statusBody(set("key", strings.Repeat("k", 48)))).want(t, 400, "key: Ensure this value has at most 40 characters (it has 48).")
	if long.at("error", "fields", "key", 0) != "Ensure this value has at most 40 characters (it has 48)." {
		t.Errorf("got %s", long.raw)
	}
	f.call("POST", base, token, statusBody(set("url", "https://console.example.test/"+strings.Repeat("u", 421)))).want(t, 400, "url: Ensure this value has at most 449 characters (it has 450).")
	f.call("POST", base, token, statusBody(set("state", "PENDING"))).want(t, 400, "Bad request")
	if a := f.call("POST", base, token, statusBody(without("url"))).want(t, 400); a.at("error", "fields", "url", 0) != "Enter a valid URL." {
		t.Errorf("got %s", a.raw)
	}
	gone := strings.Repeat("ab", 20)
	a := f.call("POST", "/repositories/acme/web/commit/"+gone+"/statuses/build", token, statusBody()).want(t, 404, "Commit not found")
	if a.at("data", "shas", 0) != gone {
		t.Errorf("got %s", a.raw)
	}
	legacy, err := f.control.Refs(t.Context(), "acme/legacy")
	f.must(err)
	f.call("POST", "/repositories/acme/legacy/commit/"+legacy["refs/heads/main"]+"/statuses/build", token, statusBody()).want(t, 201) // reading is enough
	f.call("POST", base, f.tokens("jane-dev", "account").AccessToken, statusBody()).want(t, 403)
}

func TestStatuses_overwrittenOnlyByTheirCreatorOrAnAdministrator(t *testing.T) {
	t.Parallel()
	f := start(t)
	must(f.control.PutAccount(t.Context(), "mallory", emulator.Account{}))(t)
	f.must(f.control.SetPermission(t.Context(), "acme/web", "jane-dev", "read"))
	f.must(f.control.SetPermission(t.Context(), "acme/web", "mallory", "write"))
	jane, mallory, admin := f.tokens("jane-dev").AccessToken, f.tokens("mallory").AccessToken, f.tokens("acme-admin").AccessToken
	hash := must(f.control.Refs(t.Context(), "acme/web"))(t)["refs/heads/main"]
	base := "/repositories/acme/web/commit/" + hash + "/statuses/build"
	f.call("POST", base, jane, statusBody()).want(t, 201)
	f.call("POST", base, mallory, statusBody(set("state", "FAILED"))).want(t, 403)
	f.call("PUT", base+"/acme-deploy-web-prod", mallory, object{"state": "FAILED"}).want(t, 403)
	if a := f.call("GET", base+"/acme-deploy-web-prod", mallory, nil).want(t, 200); a.json["state"] != "INPROGRESS" {
		t.Errorf("got %s", a.raw)
	}
	f.call("POST", base, mallory, statusBody(set("key", "another"))).want(t, 201)
	f.call("POST", base, admin, statusBody(set("state", "STOPPED"))).want(t, 200)
	f.call("POST", base, jane, statusBody(set("state", "SUCCESSFUL"))).want(t, 200) // an administrator's change takes it from nobody
}
