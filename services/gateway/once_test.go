package gateway_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
)

// TestCreateApiKey_repeated: a client that lost the answer asks again with the same request id and
// gets the same key with its secret; one that was deleted since does not come back.
func TestCreateApiKey_repeated(t *testing.T) {
	g := start(t)
	c := g.withToken(adminToken)
	const path = "/v1/workspaces/default/apiKeys"
	body := map[string]any{"label": "ci", "role": "ADMIN", "requestId": "one"}
	type made struct {
		APIKey struct{ ID string } `json:"apiKey"`
		Secret string
	}
	var first, again, other made
	c.post(path, body).want(http.StatusOK).into(&first)
	c.post(path, body).want(http.StatusOK).into(&again)
	if first.Secret == "" || first != again {
		t.Errorf("the same request made %v and %v", first, again)
	}
	g.withToken(first.Secret).get("/v1/me").want(http.StatusOK)
	var list struct {
		APIKeys []any `json:"apiKeys"`
	}
	c.get(path).want(http.StatusOK).into(&list)
	if len(list.APIKeys) != 1 {
		t.Errorf("%d keys were made", len(list.APIKeys))
	}
	body["requestId"] = "two"
	if c.post(path, body).want(http.StatusOK).into(&other); other.Secret == first.Secret {
		t.Error("another request got the same key")
	}
	body["requestId"], body["label"] = "one", "another"
	c.post(path, body).problem(http.StatusConflict, "REQUEST_ID_REUSED")
	body["label"] = "ci"
	c.do(http.MethodDelete, path+"/"+first.APIKey.ID, nil).want(http.StatusOK)
	c.post(path, body).problem(http.StatusNotFound, "API_KEY_NOT_FOUND")
	g.withToken(first.Secret).get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	// What is remembered of a request does not tell the secret.
	ctx := t.Context()
	bucket, err := g.js.KeyValue(ctx, "gateway_short_lived")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := bucket.Keys(ctx)
	if err != nil || len(keys) == 0 {
		t.Fatalf("nothing is remembered: %v", err)
	}
	for _, k := range keys {
		if e, err := bucket.Get(ctx, k); err == nil && (bytes.Contains(e.Value(), []byte(other.Secret)) || bytes.Contains(e.Value(), []byte(other.Secret[20:]))) {
			t.Errorf("%s has the secret in clear", k)
		}
	}
	// All that is wrong with a key is told at once.
	p := c.post(path, map[string]any{"label": strings.Repeat("x", 101), "role": "KING", "expireTime": "2001-01-01T00:00:00Z", "requestId": strings.Repeat("x", 201)}).
		problem(http.StatusBadRequest, "INVALID_ARGUMENT")
	if len(p.Fields) != 4 {
		t.Errorf("fields %v", p.Fields)
	}
	p = c.post("/v1/workspaces", map[string]any{"workspaceId": "No!", "displayName": strings.Repeat("x", 201), "colour": 1}).problem(http.StatusBadRequest, "INVALID_ARGUMENT")
	if len(p.Fields) != 3 {
		t.Errorf("fields %v", p.Fields)
	}
}

// TestSignInCode_repeated: the repeat gets the same code, which works once all the same.
func TestSignInCode_repeated(t *testing.T) {
	g := start(t)
	c := g.withToken(adminToken)
	var first, again, other struct{ Code string }
	c.post("/v1/session/codes", map[string]any{"requestId": "one"}).want(http.StatusOK).into(&first)
	c.post("/v1/session/codes", map[string]any{"requestId": "one"}).want(http.StatusOK).into(&again)
	c.post("/v1/session/codes", map[string]any{"requestId": "two"}).want(http.StatusOK).into(&other)
	if first.Code == "" || first != again || first == other {
		t.Errorf("codes %v, %v, %v", first, again, other)
	}
	g.browser().post("/v1/session", map[string]any{"token": first.Code}).want(http.StatusOK)
	c.post("/v1/session/codes", map[string]any{"requestId": "one"}).want(http.StatusOK)
	g.browser().post("/v1/session", map[string]any{"token": first.Code}).problem(http.StatusUnauthorized, "UNAUTHENTICATED")
}
