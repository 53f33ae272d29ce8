package pagetoken_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
)

func codec(t testing.TB) *pagetoken.Codec {
	t.Helper()
	k, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	c, err := pagetoken.New(k)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCodec_roundTripWithinTheScope(t *testing.T) {
	c := codec(t)
	scope := pagetoken.Scope("ListApps", "acme-inc", "branch=main")
	token := c.Encode(scope, []byte("web"))
	if got, err := c.Decode(scope, token); err != nil || string(got) != "web" {
		t.Fatalf("%q, %v", got, err)
	}
	if token != c.Encode(scope, []byte("web")) {
		t.Error("an unchanged page would change its ETag")
	}
	if strings.Contains(token, base64.RawURLEncoding.EncodeToString([]byte("web"))) {
		t.Error("the cursor shows")
	}
}

func TestCodec_firstAndLastPage(t *testing.T) {
	c := codec(t)
	if c.Encode("s", nil) != "" {
		t.Error("no cursor makes a token")
	}
	if got, err := c.Decode("s", ""); err != nil || got != nil {
		t.Errorf("%v, %v", got, err)
	}
}

func TestCodec_refuses(t *testing.T) {
	c := codec(t)
	scope := pagetoken.Scope("ListApps", "acme-inc", "")
	token := c.Encode(scope, []byte("web"))
	for name, try := range map[string]struct{ scope, token string }{
		"another workspace":       {pagetoken.Scope("ListApps", "other", ""), token},
		"another method":          {pagetoken.Scope("ListWebhooks", "acme-inc", ""), token},
		"another filter":          {pagetoken.Scope("ListApps", "acme-inc", "branch=main"), token},
		"shifted parts":           {pagetoken.Scope("ListApps", "acme-in", "c"), token},
		"changed":                 {scope, token[:len(token)-2] + "AA"},
		"cut":                     {scope, token[:8]},
		"not base64":              {scope, "???"},
		"padded":                  {scope, token + "="},
		"plain cursor":            {scope, base64.RawURLEncoding.EncodeToString([]byte("web"))},
		"too long":                {scope, strings.Repeat("A", pagetoken.MaxLength+1)},
		"of another installation": {scope, codec(t).Encode(scope, []byte("web"))},
	} {
		got, err := c.Decode(try.scope, try.token)
		if !apierr.Has(err, apierr.ReasonPageTokenInvalid) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func FuzzCodec_Decode(f *testing.F) {
	c := codec(f)
	scope := pagetoken.Scope("ListApps", "acme-inc")
	good := c.Encode(scope, []byte("web"))
	f.Add(good)
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, token string) {
		got, err := c.Decode(scope, token)
		if err == nil && token != "" && (token != good || string(got) != "web") {
			t.Errorf("%q opened as %q", token, got)
		}
	})
}
