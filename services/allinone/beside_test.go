package allinone

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// Every form of a path has a handler's own answer, never a redirect: Bitbucket follows none.
func TestBeside(t *testing.T) {
	says := func(what string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, what) })
	}
	h := beside(says("webhooks"), says("others"))
	for path, want := range map[string]string{
		"/webhooks/bitbucket/x": "webhooks", "//webhooks/bitbucket/x": "webhooks", "/webhooks//bitbucket///x": "webhooks", "/./webhooks/bitbucket/x": "webhooks",
		"/webhooks/bitbucket/": "webhooks", "/webhooks/bitbucket": "webhooks", "/webhooks/bitbucket/../x": "others", "/webhooks": "others",
		"/": "others", "//": "others", "//v1/me": "others", "/v1/../v1/me": "others", "/webhooks/bitbucketx": "others",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodHead} {
			r := httptest.NewRequest(method, "/", nil)
			r.URL.Path = path
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, r); w.Code != http.StatusOK || w.Body.String() != want {
				t.Errorf("%s %s: %d %s, want %s", method, path, w.Code, w.Body, want)
			}
		}
	}
}
