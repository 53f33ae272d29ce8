package handshake

import (
	"net/url"
	"strings"
	"testing"
)

func mustParse(t testing.TB, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestReturnPath(t *testing.T) {
	public := mustParse(t, "https://devpilot.example.com")
	for raw, want := range map[string]string{
		"":                                           "/",
		"/":                                          "/",
		"/settings/integrations":                     "/settings/integrations",
		"/apps/web?tab=log&line=7":                   "/apps/web?tab=log&line=7",
		"/apps/web/":                                 "/apps/web/",
		"/a%20b?x=%2F%2Fevil.example":                "/a%20b?x=%2F%2Fevil.example",
		"/apps#fragment":                             "/apps",
		"?tab=1":                                     "/",
		"https://devpilot.example.com/x?y=":          "/x?y=",
		"HTTPS://DEVPILOT.example.com/x":             "/x",
		"https://devpilot.example.com":               "/",
		"http://devpilot.example.com/x":              "/",
		"https://evil.example/x":                     "/",
		"//evil.example":                             "/",
		"///evil.example":                            "/",
		"/\\evil.example":                            "/",
		"\\\\evil.example":                           "/",
		"/%5cevil.example":                           "/",
		"/%255cevil.example":                         "/",
		"/%2f%2fevil.example":                        "/",
		"/%2fevil.example":                           "/",
		"/%252fevil.example":                         "/",
		"/.//evil.example":                           "/",
		"/..//evil.example":                          "/",
		"/x/../../y":                                 "/",
		"/%2e%2e/%2fevil.example":                    "/",
		"/\t/evil.example":                           "/",
		"\t//evil.example":                           "/",
		"/x\r\nSet-Cookie: a=b":                      "/",
		"/x%0d%0aSet-Cookie:%20a=b":                  "/",
		"javascript:alert(1)":                        "/",
		"data:text/html,x":                           "/",
		"https:evil.example":                         "/",
		"https:///evil.example":                      "/",
		"https://devpilot.example.com@evil.example/": "/",
		"https://user@devpilot.example.com/":         "/",
		"https://devpilot.example.com:444/":          "/",
		"https://devpilot.example.com.evil.example/": "/",
		"evil.example/x":                             "/",
		"/%":                                         "/",
		"/" + strings.Repeat("a", 3000):              "/",
	} {
		if got := ReturnPath(public, raw); got != want {
			t.Errorf("%q became %q, want %q", raw, got, want)
		}
	}
}

// FuzzReturnPath holds that whatever comes in, what goes out stays on our origin, also for a browser
// that takes backslashes for slashes and drops tabs and line ends.
func FuzzReturnPath(f *testing.F) {
	for _, s := range []string{"/", "//evil.example", "/\\evil", "/%2f%2fevil", "/a?b=c", "https://devpilot.example.com/x", "/..//x", "/%5c", "/a%00b", "\u2028/x", "/%e2%80%a8"} {
		f.Add(s)
	}
	public := mustParse(f, "https://devpilot.example.com")
	f.Fuzz(func(t *testing.T, raw string) {
		got := ReturnPath(public, raw)
		browser := strings.NewReplacer("\\", "/", "\t", "", "\n", "", "\r", "").Replace(got)
		if browser != got {
			t.Fatalf("%q became %q, which browsers change", raw, got)
		}
		if !strings.HasPrefix(got, "/") || strings.HasPrefix(got, "//") {
			t.Fatalf("%q became %q, which is no rooted path", raw, got)
		}
		u, err := public.Parse(got)
		if err != nil || u.Scheme != public.Scheme || u.Host != public.Host || u.User != nil {
			t.Fatalf("%q became %q, which leads to %v (%v)", raw, got, u, err)
		}
		if decoded, err := url.PathUnescape(u.Path); err != nil || strings.HasPrefix(decoded, "//") || strings.Contains(decoded, "\\") {
			t.Fatalf("%q became %q, which leads elsewhere when it is decoded again", raw, got)
		}
		if again := ReturnPath(public, got); again != got {
			t.Fatalf("%q became %q and then %q", raw, got, again)
		}
	})
}
