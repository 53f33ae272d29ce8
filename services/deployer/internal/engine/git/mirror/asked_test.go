package mirror

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal"
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
	if _, _, err := f.deploy("main"); err != nil || len(f.tokens.rejected) != 1 {
		t.Fatalf("once: %v after %d reports", err, len(f.tokens.rejected))
	}
	f.git.Fail(func(*http.Request) (int, string) { return http.StatusUnauthorized, "always" })
	for name, ask := range map[string]func() error{
		"fetch": func() error { _, _, err := f.deploy("main"); return err },
		"heads": func() error {
			_, err := f.mirrors.Heads(t.Context(), "acme-inc", "acme/web", Wanted{Branch: named("main")})
			return err
		},
	} {
		f.tokens.rejected = nil
		e, ok := asError(ask())
		if !ok || e.Reason != string(apierr.ReasonAccessRefused) || !e.Temporary || !strings.Contains(e.Message, "acme/web") || !strings.Contains(e.Message, "Check") {
			t.Errorf("%s: %+v", name, e)
		}
		if len(f.tokens.rejected) != 1 {
			t.Errorf("%s: reported %d times", name, len(f.tokens.rejected))
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
		e, ok := asError(err)
		if !ok || e.Reason != string(apierr.ReasonBitbucketRateLimited) || e.RetryAfter < c.least || e.RetryAfter > c.most {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
	f.logs.MustNotContain(t, Forms(seal.NewSecret(token))...)
}

func TestAsked(t *testing.T) {
	now := time.Now()
	a := asked{last: http.Header{}}
	for _, part := range []string{
		"12:00:00.000001 http.c:725              <= Recv header: HTTP/1.1 429 Too Many\n12:00:00.000002 http.c:725 <= Recv hea", "der: retry-after: 7\r\n",
		strings.Repeat("x", 3*maxLine), "\n== Info: Retry-After: 9\n",
	} {
		if n, err := a.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	if d := a.wait(now); d != 7*time.Second {
		t.Errorf("%v", d)
	}
	_, _ = a.Write([]byte("<= Recv header: HTTP/2 200\n"))
	if d := a.wait(now); d != 0 {
		t.Errorf("another answer: %v", d)
	}
}
