package emulator_test

import (
	"strings"
	"testing"
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
		"name": set("name", strings.Repeat("n", 256)), "description": set("description", strings.Repeat("d", 256)),
	} {
		if a := f.call("POST", base, token, statusBody(change)).want(t, 400, "Bad request"); a.at("error", "fields", field, 0) == nil {
			t.Errorf("%s: %s", field, a.raw)
		}
	}
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
	f.call("POST", "/repositories/acme/legacy/commit/"+legacy["refs/heads/main"]+"/statuses/build", token, statusBody()).want(t, 403)
	f.call("POST", base, f.tokens("jane-dev", "account").AccessToken, statusBody()).want(t, 403)
}
