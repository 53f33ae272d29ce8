package uploadpack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
)

// ableFetch is what a server says that can do all.
var ableFetch = lines("version 2", "agent=git/2.47", "ls-refs=unborn", "fetch=shallow wait-for-done", "object-format=sha1", flushLine)

// band is a part of a pack's answer.
func band(n byte, content string) string {
	return fmt.Sprintf("%04x%c%s", len(content)+5, n, content)
}

// fetched fetches, and returns what came.
func fetched(t testing.TB, q Question, w Wish) (Boundary, string, error) {
	t.Helper()
	return fetchedBy(t, New("test", 10*time.Second), q, w)
}

func fetchedBy(t testing.TB, c *Client, q Question, w Wish) (b Boundary, pack string, err error) {
	t.Helper()
	s, err := c.Open(t.Context(), q)
	if err != nil {
		return b, "", err
	}
	err = s.Fetch(t.Context(), w, func(got Boundary, r io.Reader) error {
		b = got
		all, err := io.ReadAll(r)
		pack = string(all)
		return err
	})
	return b, pack, err
}

func TestFetch_readsWhatServersSend(t *testing.T) {
	t.Parallel()
	boundary := lines("shallow-info", "shallow "+one, "unshallow "+two, delimiterLine)
	for name, c := range map[string]struct {
		answer string
		want   Boundary
		pack   string
	}{
		"a pack in parts":      {boundary + lines("packfile") + band(1, "PACK\n") + band(1, "rest\n") + flushLine, Boundary{[]string{one}, []string{two}}, "PACK\nrest\n"},
		"with words between":   {boundary + lines("packfile") + band(2, "Counting") + band(1, "PACK") + band(2, "done\r") + band(1, "ERR x") + flushLine, Boundary{[]string{one}, []string{two}}, "PACKERR x"},
		"an empty part":        {lines("packfile") + band(1, "") + band(1, "PACK") + flushLine, Boundary{}, "PACK"},
		"nothing is cut off":   {lines("packfile") + band(1, "PACK") + flushLine, Boundary{}, "PACK"},
		"an empty boundary":    {lines("shallow-info", delimiterLine, "packfile") + band(1, "PACK") + flushLine, Boundary{}, "PACK"},
		"more after the flush": {lines("packfile") + band(1, "PACK") + flushLine + "0002", Boundary{}, "PACK"},
	} {
		q, asked := server(t, ableFetch, c.answer)
		got, pack, err := fetched(t, q, Wish{Want: one, Have: []string{two}, Shallow: []string{two}})
		if err != nil || fmt.Sprint(got) != fmt.Sprint(c.want) || pack != c.pack {
			t.Errorf("%s: %v %q, %v", name, got, pack, err)
		}
		want := lines("command=fetch", "agent=test", "object-format=sha1", delimiterLine, "thin-pack", "no-progress", "ofs-delta", "shallow "+two, "deepen 1", "want "+one, "have "+two, "done", flushLine)
		if asked.String() != want {
			t.Errorf("%s: asked %q", name, asked)
		}
	}
}

func TestFetch_refusesWhatIsNoAnswer(t *testing.T) {
	t.Parallel()
	pack := lines("packfile") + band(1, "PACK") + flushLine
	remote := func(said, before string) func(error) bool {
		return func(err error) bool {
			var e *RemoteError
			return errors.As(err, &e) && e.Said == said && e.Before == before
		}
	}
	is := func(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }
	for name, c := range map[string]struct {
		able, answer string
		is           func(error) bool
	}{
		"a server that cuts nothing off": {lines("version 2", "ls-refs", "fetch", flushLine), pack, is(ErrVersion)},
		"no fetch at all":                {lines("version 2", "ls-refs", flushLine), pack, is(ErrVersion)},
		"version 0":                      {lines("# service=git-upload-pack", flushLine, one+" HEAD\x00multi_ack", flushLine), pack, is(ErrVersion)},
		"refused":                        {ableFetch, lines("ERR upload-pack: not our ref " + one), remote("upload-pack: not our ref "+one, "")},
		"refused in the pack":            {ableFetch, lines("packfile") + band(1, "PACK") + band(2, "fatal: bad tree\n") + band(3, "aborting\n") + flushLine, remote("aborting", "fatal: bad tree")},
		"negotiation":                    {ableFetch, lines("acknowledgments", "NAK", flushLine), IsProtocol},
		"no pack":                        {ableFetch, flushLine, IsProtocol},
		"a boundary without a pack":      {ableFetch, lines("shallow-info", "shallow "+one, flushLine), IsProtocol},
		"a boundary of no hash":          {ableFetch, lines("shallow-info", "shallow main", delimiterLine) + pack, IsProtocol},
		"a boundary of a long hash":      {ableFetch, lines("shallow-info", "shallow "+long, delimiterLine) + pack, IsProtocol},
		"a boundary of two lines":        {ableFetch, lines("shallow-info", "shallow "+one+"\n"+two, delimiterLine) + pack, IsProtocol},
		"another line of a boundary":     {ableFetch, lines("shallow-info", "deep "+one, delimiterLine) + pack, IsProtocol},
		"a boundary without end":         {ableFetch, lines("shallow-info") + strings.Repeat(lines("shallow "+one), maxBoundary+1) + lines(delimiterLine) + pack, IsProtocol},
		"a delimiter first":              {ableFetch, lines(delimiterLine) + pack, IsProtocol},
		"a delimiter in the pack":        {ableFetch, lines("packfile") + band(1, "PACK") + lines(delimiterLine), IsProtocol},
		"no band":                        {ableFetch, lines("packfile") + "0004" + flushLine, IsProtocol},
		"another band":                   {ableFetch, lines("packfile") + band(4, "PACK") + flushLine, IsProtocol},
		"a page":                         {ableFetch, "<html>", IsProtocol},
		"more than is allowed":           {ableFetch, lines("packfile") + strings.Repeat(band(1, strings.Repeat("x", 60_000)), 40) + flushLine, is(ErrTooLong)},
		"endless words":                  {ableFetch, lines("packfile") + strings.Repeat(band(2, strings.Repeat("x", 60_000)), 40) + flushLine, is(ErrTooLong)},
	} {
		q, _ := server(t, c.able, c.answer)
		if _, got, err := fetched(t, q, Wish{Want: one}); err == nil || !c.is(err) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// TestFetch_aCutPackIsNone wherever it is cut, also where who takes it is content.
func TestFetch_aCutPackIsNone(t *testing.T) {
	t.Parallel()
	whole := lines("shallow-info", "shallow "+one, delimiterLine, "packfile") + band(1, "PACK") + band(2, "x") + band(1, "rest") + flushLine
	for n := range len(whole) {
		q, _ := server(t, ableFetch, whole[:n])
		s, err := New("test", 10*time.Second).Open(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		err = s.Fetch(t.Context(), Wish{Want: one}, func(_ Boundary, r io.Reader) error {
			_, _ = io.Copy(io.Discard, r)
			return nil
		})
		if !IsProtocol(err) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
	}
}

// TestFetch_stalls: a server that falls silent in a pack is given up, one that is at the end is not.
func TestFetch_stalls(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sent string
		want error
	}{
		"in a pack":    {lines("packfile") + band(1, "PACK"), ErrStalled},
		"at once":      {"", ErrStalled},
		"after it all": {lines("packfile") + band(1, "PACK") + flushLine, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					w.Header().Set("Content-Type", advertisement)
					_, _ = io.WriteString(w, ableFetch)
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				w.Header().Set("Content-Type", result)
				_, _ = io.WriteString(w, c.sent)
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}))
			t.Cleanup(srv.Close)
			_, _, err := fetchedBy(t, New("test", 3*time.Second), Question{Remote: srv.URL, MaxBytes: 1 << 20}, Wish{Want: one})
			if !errors.Is(err, c.want) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestFetch_endsWithItsContext and gives the context's cause.
func TestFetch_endsWithItsContext(t *testing.T) {
	t.Parallel()
	q, _ := server(t, ableFetch, lines("packfile")+band(1, "PACK")+flushLine)
	s, err := New("test", 10*time.Second).Open(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Fetch(ctx, Wish{Want: one}, func(Boundary, io.Reader) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestFetch_ofGitItself: what git's own server sends is a commit with its tree, and with what is there
// already only what differs.
func TestFetch_ofGitItself(t *testing.T) {
	t.Parallel()
	srv := gittest.New(t, "secret")
	repo := srv.Repo("acme/web")
	files := map[string]string{"same": strings.Repeat("same text ", 1000), "f": "1"}
	first := repo.Commit("main", "one", files)
	q := Question{Remote: srv.URL.JoinPath("acme/web.git").String(), User: "x-token-auth", Password: "secret", MaxBytes: 1 << 20}
	dir := filepath.Join(t.TempDir(), "git")
	git := func(stdin string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"--git-dir=" + dir}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
		return string(bytes.TrimSpace(out))
	}
	git("", "init", "--quiet", "--bare")
	b, pack, err := fetched(t, q, Wish{Want: first})
	if err != nil || len(b.Unshallow) != 0 {
		t.Fatalf("%v, %v", b, err)
	}
	git(pack, "index-pack", "--stdin", "--fix-thin")
	files["f"] = "2"
	second := repo.Commit("main", "two", files)
	b, pack, err = fetched(t, q, Wish{Want: second, Have: []string{first}, Shallow: []string{first}})
	if err != nil || fmt.Sprint(b.Shallow) != fmt.Sprint([]string{second}) {
		t.Fatalf("%v, %v", b, err)
	}
	if n := binary.BigEndian.Uint32([]byte(pack[8:12])); n != 3 { // a commit, a tree, a file
		t.Errorf("%d objects", n)
	}
	git(pack, "index-pack", "--stdin", "--fix-thin")
	if got := git("", "cat-file", "-p", second+":f"); got != "2" {
		t.Errorf("f is %q", got)
	}
	if _, _, err := fetched(t, q, Wish{Want: strings.Repeat("9", 40)}); err == nil || !strings.Contains(err.Error(), "not our ref") {
		t.Errorf("a commit that there is not: %v", err)
	}
}
