package uploadpack

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
)

// distance asks a real git.
func distance(t *testing.T, git *gittest.Server, older, newer string) (Distance, error) {
	t.Helper()
	s, err := New("test", 10*time.Second).Open(t.Context(), Question{Remote: git.URL.String() + "/acme/web.git", User: "x-token-auth", Password: "token", MaxBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return s.Distance(t.Context(), older, newer)
}

func TestDistance_countsWhatGitCounts(t *testing.T) {
	t.Parallel()
	git := gittest.New(t, "token")
	repo := git.Repo("acme/web")
	commits := []string{repo.Commit("main", "0", map[string]string{"a": "0"})}
	for i := range 25 {
		commits = append(commits, repo.Commit("main", fmt.Sprint(i+1), map[string]string{"a": fmt.Sprint(i + 1)}))
	}
	for _, n := range []int{1, 3, 25} {
		if d, err := distance(t, git, commits[25-n], commits[25]); err != nil || d != (Distance{Commits: n}) {
			t.Errorf("%d commits: %+v, %v", n, d, err)
		}
	}
	if d, err := distance(t, git, commits[25], commits[20]); err != nil || d != (Distance{Apart: true}) {
		t.Errorf("set back: %+v, %v", d, err)
	}

	// Amended: it has the same parent, so that both sides have one commit that the other has not.
	repo.Set("amended", commits[24])
	amended := repo.Commit("amended", "another", map[string]string{"a": "another"})
	if d, err := distance(t, git, commits[25], amended); err != nil || d != (Distance{Commits: 1, Apart: true}) {
		t.Errorf("amended: %+v, %v", d, err)
	}

	// A merge brings commits that are older than what is live.
	repo.Set("feature", commits[3])
	feature := repo.Commit("feature", "feature", map[string]string{"b": "1"})
	merge := strings.TrimSpace(repo.Git("commit-tree", commits[25]+"^{tree}", "-p", commits[25], "-p", feature, "-m", "merge"))
	repo.Set("main", merge)
	if d, err := distance(t, git, commits[20], merge); err != nil || d != (Distance{Commits: 7}) {
		t.Errorf("over a merge: %+v, %v", d, err)
	}

	// What was live is nowhere any more: never is all history counted.
	if d, err := distance(t, git, strings.Repeat("1", 40), merge); err != nil || d != (Distance{Apart: true}) {
		t.Errorf("what is gone: %+v, %v", d, err)
	}
	if d, err := distance(t, git, commits[25], strings.Repeat("1", 40)); err == nil {
		t.Errorf("to what is not there: %+v", d)
	}
}

func TestDistance_whatServersSend(t *testing.T) {
	t.Parallel()
	able := lines("version 2", "agent=git/2.47", "ls-refs=unborn", "fetch=shallow filter wait-for-done", "object-format=sha1", flushLine)
	pack := func(n byte) string {
		return lines("packfile") + band(1, "PACK\x00\x00\x00\x02\x00\x00\x00"+string([]byte{n})) + flushLine
	}
	refused := lines("ERR upload-pack: not our ref " + one)
	for name, c := range map[string]struct {
		able    string
		answers []string // the last one over and over
		want    Distance
		is      func(error) bool // nil: no error
	}{
		"in parts":                       {able, []string{pack(0), lines("packfile") + band(2, "x") + band(1, "PACK\x00\x00") + band(1, "\x00\x02\x00\x00\x01\x02rest") + flushLine}, Distance{Commits: 258}, nil},
		"a server without filters":       {ableFetch, nil, Distance{}, func(err error) bool { return errors.Is(err, ErrVersion) }},
		"it gives no commit by its hash": {able, []string{refused, lines("acknowledgments", "ACK "+one, flushLine)}, Distance{}, func(err error) bool { return errors.Is(err, ErrVersion) }},
		"… and does not have it":         {able, []string{refused, lines("acknowledgments", "NAK", flushLine)}, Distance{Apart: true}, nil},
		"… nor the other":                {able, []string{refused, lines("ERR upload-pack: not our ref " + two)}, Distance{}, func(err error) bool { var r *RemoteError; return errors.As(err, &r) }},
		"no pack":                        {able, []string{lines("packfile") + band(1, "<html><body>x") + flushLine}, Distance{}, IsProtocol},
		"cut off":                        {able, []string{lines("packfile") + band(1, "PACK\x00")}, Distance{}, IsProtocol},
		"more than anybody has":          {able, []string{lines("packfile") + band(1, "PACK\x00\x00\x00\x02\xff\xff\xff\xff") + flushLine}, Distance{}, IsProtocol},
		"an empty acknowledgment":        {able, []string{refused, lines("acknowledgments", flushLine)}, Distance{}, IsProtocol},
	} {
		q, asked := answering(t, c.able, c.answers)
		s, err := New("test", 10*time.Second).Open(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Distance(t.Context(), one, two)
		if got != c.want || (err != nil) != (c.is != nil) || c.is != nil && !c.is(err) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if n := int(asked.Load()); n < len(c.answers) || n > 2 {
			t.Errorf("%s: asked %d times", name, n)
		}
	}
}

// answering is a server that says what it can, and then gives one answer after the other.
func answering(t *testing.T, able string, answers []string) (Question, *atomic.Int32) {
	t.Helper()
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Type", advertisement)
			_, _ = io.WriteString(w, able)
			return
		}
		w.Header().Set("Content-Type", result)
		if n := int(asked.Add(1)); n <= len(answers) {
			_, _ = io.WriteString(w, answers[n-1])
		} else {
			_, _ = io.WriteString(w, answers[len(answers)-1])
		}
	}))
	t.Cleanup(srv.Close)
	return Question{Remote: srv.URL, MaxBytes: 1 << 20}, &asked
}
