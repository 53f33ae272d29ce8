package uploadpack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
)

const (
	advertisement = "application/x-git-upload-pack-advertisement"
	result        = "application/x-git-upload-pack-result"
)

// server answers the two requests of a question with the given bodies.
func server(t testing.TB, able, refs string) (q Question, asked *bytes.Buffer) {
	t.Helper()
	asked = &bytes.Buffer{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Type", advertisement)
			_, _ = io.WriteString(w, able)
			return
		}
		_, _ = asked.ReadFrom(r.Body)
		w.Header().Set("Content-Type", result)
		_, _ = io.WriteString(w, refs)
	}))
	t.Cleanup(srv.Close)
	return Question{Remote: srv.URL, Prefixes: []string{"refs/heads/", "refs/tags/"}, MaxBytes: 1 << 20}, asked
}

func lines(texts ...string) string {
	var b []byte
	for _, text := range texts {
		if text == flushLine || text == delimiterLine || text == "0002" {
			b = append(b, text...)
			continue
		}
		b = appendLine(b, text)
	}
	return string(b)
}

func list(t testing.TB, q Question) ([]Ref, error) {
	t.Helper()
	var refs []Ref
	err := New("test", 10*time.Second).List(context.Background(), q, func(r Ref) { refs = append(refs, r) })
	return refs, err
}

var (
	one      = strings.Repeat("1a", 20)
	two      = strings.Repeat("2b", 20)
	long     = strings.Repeat("3c", 32)
	able     = lines("version 2", "agent=git/2.47", "ls-refs=unborn", "fetch=shallow", "object-format=sha1", flushLine)
	ableLong = lines("version 2", "ls-refs", "object-format=sha256", flushLine)
)

func TestList_readsWhatServersSay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		able, refs string
		want       []Ref
		asks       string // that the question holds
	}{
		"branches and tags":              {able, lines(one+" refs/heads/main", two+" refs/tags/v1 peeled:"+one, flushLine), []Ref{{"refs/heads/main", one, ""}, {"refs/tags/v1", two, one}}, "001bref-prefix refs/heads/\n"},
		"with the service's name before": {lines("# service=git-upload-pack", flushLine) + able, lines(one+" refs/heads/main", flushLine), []Ref{{"refs/heads/main", one, ""}}, "agent=test\n"},
		"none":                           {able, flushLine, nil, "object-format=sha1\n"},
		"a server without prefixes":      {able, lines(one+" HEAD symref-target:refs/heads/main", one+" refs/pull-requests/1/from", one+" refs/heads/main", flushLine), []Ref{{"refs/heads/main", one, ""}}, "peel\n"},
		"nothing is there yet":           {able, lines("unborn HEAD symref-target:refs/heads/main", flushLine), nil, ""},
		"attributes nobody knows":        {able, lines(one+" refs/heads/main later:x peeled:"+two+" more", flushLine), []Ref{{"refs/heads/main", one, two}}, ""},
		"long hashes":                    {ableLong, lines(long+" refs/heads/main", flushLine), []Ref{{"refs/heads/main", long, ""}}, "object-format=sha256\n"},
		"a server that says little":      {lines("version 2", "ls-refs", flushLine), lines(one+" refs/heads/main", flushLine), []Ref{{"refs/heads/main", one, ""}}, "0014command=ls-refs\n0001"},
	} {
		q, asked := server(t, c.able, c.refs)
		got, err := list(t, q)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(c.want) || !strings.Contains(asked.String(), c.asks) {
			t.Errorf("%s: %v, %v, asked %q", name, got, err, asked)
		}
	}
}

func TestList_refusesWhatIsNoAnswer(t *testing.T) {
	t.Parallel()
	good := lines(one+" refs/heads/main", flushLine)
	version := func(err error) bool { return errors.Is(err, ErrVersion) }
	tooLong := func(err error) bool { return errors.Is(err, ErrTooLong) }
	remote := func(err error) bool {
		var e *RemoteError
		return errors.As(err, &e) && e.Said == "access denied"
	}
	for name, c := range map[string]struct {
		able, refs string
		is         func(error) bool
	}{
		"version 0":             {lines("# service=git-upload-pack", flushLine, one+" HEAD\x00multi_ack", flushLine), good, version},
		"version 1":             {lines("version 1", one+" HEAD\x00multi_ack", flushLine), good, version},
		"no refs":               {lines("version 2", "fetch", flushLine), good, IsProtocol},
		"an unknown hash":       {lines("version 2", "ls-refs", "object-format=md5", flushLine), good, IsProtocol},
		"not the repository's":  {able, lines(long+" refs/heads/main", flushLine), IsProtocol},
		"refused":               {lines("ERR access denied"), good, remote},
		"refused late":          {able, lines(one+" refs/heads/main", "ERR access denied", flushLine), remote},
		"cut between lines":     {able, lines(one + " refs/heads/main"), IsProtocol},
		"a delimiter":           {able, lines(one+" refs/heads/main", delimiterLine), IsProtocol},
		"an end":                {able, lines(one+" refs/heads/main", "0002"), IsProtocol},
		"no hash":               {able, lines("main refs/heads/main", flushLine), IsProtocol},
		"no name":               {able, lines(one, flushLine), IsProtocol},
		"an upper-case hash":    {able, lines(strings.ToUpper(one)+" refs/heads/main", flushLine), IsProtocol},
		"a broken peeled hash":  {able, lines(one+" refs/tags/v1 peeled:beef", flushLine), IsProtocol},
		"an impossible length":  {able, "0003" + good, IsProtocol},
		"a length beyond git's": {able, "ffff" + strings.Repeat("x", 1<<16), IsProtocol},
		"no length":             {able, "<html>" + good, IsProtocol},
		"a sign":                {able, "+01f" + good, IsProtocol},
		"no end":                {able, strings.Repeat(lines(one+" refs/heads/"+strings.Repeat("x", 1000)), 2000), tooLong},
		"one that never starts": {strings.Repeat(lines("later="+strings.Repeat("x", 1000)), 2000), good, version},
		"abilities without end": {lines("version 2", "ls-refs") + strings.Repeat(lines("later="+strings.Repeat("x", 1000)), 2000), good, tooLong},
	} {
		q, _ := server(t, c.able, c.refs)
		if got, err := list(t, q); err == nil || !c.is(err) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// TestList_aCutAnswerIsNoList wherever it is cut.
func TestList_aCutAnswerIsNoList(t *testing.T) {
	t.Parallel()
	whole := lines(one+" refs/heads/main", two+" refs/tags/v1 peeled:"+one, flushLine)
	for n := range len(whole) {
		q, _ := server(t, able, whole[:n])
		if got, err := list(t, q); err == nil {
			t.Fatalf("cut after %d bytes: %v", n, got)
		}
	}
}

// TestList_ofGitItself: git's own server, with hashes of both kinds.
func TestList_ofGitItself(t *testing.T) {
	t.Parallel()
	srv := gittest.New(t, "secret")
	repo := srv.Repo("acme/web")
	head := repo.Commit("main", "x", map[string]string{"f": "1"})
	repo.Git("-c", "user.name=Jane", "-c", "user.email=jane@example.test", "tag", "-a", "-m", "m", "v1", head)
	tag := repo.Git("rev-parse", "v1")
	q := Question{Remote: srv.URL.JoinPath("acme/web.git").String(), User: "x-token-auth", Password: "secret", Prefixes: []string{"refs/tags/"}, MaxBytes: 1 << 20}
	if got, err := list(t, q); err != nil || fmt.Sprint(got) != fmt.Sprint([]Ref{{"refs/tags/v1", tag, head}}) {
		t.Errorf("%v, %v", got, err)
	}
	q.Password = "wrong"
	var status *StatusError
	if _, err := list(t, q); !errors.As(err, &status) || status.Status != http.StatusUnauthorized {
		t.Errorf("%v", err)
	}
	if out, err := exec.CommandContext(t.Context(), "git", "-C", repo.Dir, "init", "--quiet", "--bare", "--object-format=sha256", repo.Dir+"/../long.git").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	longer := srv.Repo("acme/long")
	empty := longer.Git("hash-object", "-w", "-t", "tree", "/dev/null")
	commit := longer.Git("-c", "user.name=Jane", "-c", "user.email=jane@example.test", "commit-tree", "-m", "x", empty)
	longer.Git("update-ref", "refs/heads/main", commit)
	q = Question{Remote: srv.URL.JoinPath("acme/long.git").String(), User: "x-token-auth", Password: "secret", Prefixes: []string{"refs/heads/"}, MaxBytes: 1 << 20}
	if got, err := list(t, q); err != nil || len(commit) != 64 || fmt.Sprint(got) != fmt.Sprint([]Ref{{"refs/heads/main", commit, ""}}) {
		t.Errorf("%v, %v", got, err)
	}
}

func FuzzScanner(f *testing.F) {
	for _, seed := range []string{able, ableLong, lines(one+" refs/heads/main", flushLine), "0004", "0005\n", "0000", "0003", "fff0", "ffff", "", "00", "0009ERR x", lines("ERR access denied")} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &scanner{r: bytes.NewReader(b)}
		var again []byte
		for {
			line, k, err := s.next()
			if err != nil {
				var refused *RemoteError
				if !IsProtocol(err) && !errors.As(err, &refused) {
					t.Fatalf("%v", err)
				}
				break
			}
			if len(line) > maxLine-4 || k != data && line != nil {
				t.Fatalf("%d bytes of kind %d", len(line), k)
			}
			switch k {
			case data:
				again = append(again, line...)
				if r, ok, err := parseRef(string(line), 40); ok && (err != nil || !isHash(r.Hash, 40) || r.Name == "" || strings.Contains(r.Name, " ")) {
					t.Fatalf("%+v, %v", r, err)
				}
			default:
			}
		}
		if len(again) > len(b) {
			t.Fatal("more came out than went in")
		}
	})
}
