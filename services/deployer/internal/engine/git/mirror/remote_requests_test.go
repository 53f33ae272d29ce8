package mirror

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// Bitbucket accepts the token elsewhere: the same is handed out again.
func TestFetch_401AboutOneRepository(t *testing.T) {
	f := setUp(t, Limits{})
	f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
	var n atomic.Int32
	f.git.Fail(func(r *http.Request) (int, string) {
		if r.Header.Get("Authorization") != "" && n.Add(1) <= 2 { // git itself asks twice
			return http.StatusUnauthorized, "now and then"
		}
		return 0, ""
	})
	if _, _, err := f.deploy("main"); err != nil || len(f.tokens.Rejected) != 1 {
		t.Fatalf("once: %v after %d reports", err, len(f.tokens.Rejected))
	}
	f.git.Fail(func(*http.Request) (int, string) { return http.StatusUnauthorized, "always" })
	for name, ask := range map[string]func() error{
		"fetch": func() error { _, _, err := f.deploy("main"); return err },
		"heads": func() error {
			_, err := f.mirrors.Heads(t.Context(), "acme-inc", "acme/web", remote.Wanted{Branch: named("main")})
			return err
		},
	} {
		f.tokens.Rejected = nil
		e, ok := remote.AsError(ask())
		if !ok || e.Reason != string(apierr.ReasonAccessRefused) || !e.Temporary || !strings.Contains(e.Message, "acme/web") || !strings.Contains(e.Message, "Check") {
			t.Errorf("%s: %+v", name, e)
		}
		if len(f.tokens.Rejected) != 1 {
			t.Errorf("%s: reported %d times", name, len(f.tokens.Rejected))
		}
	}
}

func TestFetch_waitsAsLongAsItIsAskedTo(t *testing.T) {
	f := setUp(t, Limits{})
	f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
	for name, c := range map[string]struct {
		step   string // of git
		header string
		value  string
		least  time.Duration
		most   time.Duration
	}{
		"two seconds":       {"/info/refs", "Retry-After", "2", 2 * time.Second, 2 * time.Second},
		"an hour and a bit": {"/info/refs", "Retry-After", "4000", 4000 * time.Second, 4000 * time.Second},
		"a date":            {"/info/refs", "Retry-After", time.Now().Add(10 * time.Minute).UTC().Format(http.TimeFormat), time.Minute, 10 * time.Minute},
		"a later step":      {"/git-upload-pack", "Retry-After", "3", 3 * time.Second, 3 * time.Second},
		"a reset":           {"/info/refs", "X-RateLimit-Reset", "745", 745 * time.Second, 745 * time.Second},
		"not said":          {"/info/refs", "X-Other", "5", 0, 0},
	} {
		f.git.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, c.step) {
				w.Header().Set(c.header, c.value)
				w.WriteHeader(http.StatusTooManyRequests)
				return true
			}
			return false
		})
		_, _, err := f.deploy("main")
		e, ok := remote.AsError(err)
		if !ok || e.Reason != string(apierr.ReasonBitbucketRateLimited) || e.RetryAfter < c.least || e.RetryAfter > c.most {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
	f.logs.MustNotContain(t, remote.Forms(seal.NewSecret(token))...)
}
