package heads

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// named wants exactly these.
func named(names ...string) func(string) bool {
	return func(name string) bool { return slices.Contains(names, name) }
}

func every(string) bool { return true }

func TestHeads_branchesAndTagsInOneQuestion(t *testing.T) {
	t.Parallel()
	f := setUp(t, time.Minute)
	repo := f.git.Repo("acme/web")
	one := repo.Commit("main", "one", map[string]string{"f": "1"})
	two := repo.Commit("feature/a", "two", map[string]string{"f": "2"})
	repo.Set("refs/heads/main", two) // a branch with a name that is no easy one
	repo.Git("update-ref", "refs/tags/light", one)
	repo.Git("-c", "user.name=Jane Developer", "-c", "user.email=jane@example.test", "tag", "-a", "-m", "annotated", "v1.0", two)
	repo.Git("update-ref", "refs/pull-requests/1/from", one)
	repo.Git("update-ref", "refs/x/refs/heads/main", two)
	ask := func(want remote.Wanted) remote.Heads {
		t.Helper()
		before := len(f.git.Requests())
		heads, err := f.lister.Heads(t.Context(), "acme-inc", "acme/web", want)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(f.git.Requests()) - before; n > 3 { // what git is, the list, and once more without a token
			t.Errorf("%d requests", n)
		}
		return heads
	}
	for name, c := range map[string]struct {
		want           remote.Wanted
		branches, tags map[string]string
	}{
		"one branch":    {remote.Wanted{Branch: named("main", "nope")}, map[string]string{"main": one}, nil},
		"all branches":  {remote.Wanted{Branch: every}, map[string]string{"main": one, "feature/a": two, "refs/heads/main": two}, nil},
		"all tags":      {remote.Wanted{Tag: every}, nil, map[string]string{"light": one, "v1.0": two}},
		"some of both":  {remote.Wanted{Branch: named("feature/a"), Tag: named("v1.0")}, map[string]string{"feature/a": two}, map[string]string{"v1.0": two}},
		"there is none": {remote.Wanted{Branch: named("v1.0"), Tag: named("main")}, nil, nil},
		"nothing asked": {remote.Wanted{}, nil, nil},
	} {
		if got := ask(c.want); !maps.Equal(got.Branches, c.branches) || !maps.Equal(got.Tags, c.tags) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestHeads_thousandsOfThem(t *testing.T) {
	t.Parallel()
	f := setUp(t, time.Minute)
	repo := f.git.Repo("acme/web")
	hash := repo.Commit("main", "x", map[string]string{"f": "1"})
	var in strings.Builder
	for i := range 20_000 { // over 1 MiB of text
		fmt.Fprintf(&in, "%s refs/heads/feature/branch-%05d\n", hash, i)
	}
	packed := filepath.Join(repo.Git("rev-parse", "--absolute-git-dir"), "packed-refs")
	if err := os.WriteFile(packed, []byte("# pack-refs with: sorted \n"+in.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	heads, err := f.lister.Heads(t.Context(), "acme-inc", "acme/web", remote.Wanted{Branch: func(name string) bool { return strings.HasPrefix(name, "feature/") }})
	if err != nil || len(heads.Branches) != 20_000 || heads.Branches["feature/branch-19999"] != hash {
		t.Fatalf("%d branches, %v", len(heads.Branches), err)
	}
}

func TestHeads_namesThatCannotBeStoredAreLeftOut(t *testing.T) {
	t.Parallel()
	list := headList{want: remote.Wanted{Branch: every, Tag: every}, most: 1 << 20}
	list.begin()
	hash := strings.Repeat("ab", 20)
	for _, part := range []string{
		hash + "\trefs/heads/go", "od\n" + hash + "\trefs/heads/latin-\xe9\n", hash + "\trefs/tags/latin-\xe9\n" + hash + "\trefs/heads/" + strings.Repeat("x", 245) + "\nnot a hash\trefs/heads/bad\n",
		hash[:39] + "\trefs/heads/short\n" + strings.ToUpper(hash) + "\trefs/heads/upper\n\n" + hash + "\tHEAD\n" + hash + "\trefs/tags/nope^{}\n" + hash + "\trefs/heads/unfinished",
	} {
		if n, err := list.Write([]byte(part)); err != nil || n != len(part) {
			t.Fatal(n, err)
		}
	}
	if !list.any || len(list.heads.Branches) != 1 || list.heads.Branches["good"] != hash || len(list.heads.Tags) != 0 {
		t.Fatalf("%v", list.heads)
	}
}

func TestHeads_aPageIsNoListOfBranches(t *testing.T) {
	t.Parallel()
	f := setUp(t, time.Minute)
	f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
	f.git.Fail(func(*http.Request) (int, string) { return 200, "<html>down for maintenance</html>" })
	for _, want := range []remote.Wanted{{Branch: named("main")}, {Tag: every}} {
		heads, err := f.lister.Heads(t.Context(), "acme-inc", "acme/web", want)
		if e, ok := remote.AsError(err); !ok || !e.Temporary || len(heads.Branches)+len(heads.Tags) != 0 {
			t.Fatalf("%v %v", heads, err)
		}
	}
	f.git.Fail(nil)
	for _, want := range []remote.Wanted{{Branch: named("nope")}, {Tag: every}} { // git says that there are none
		if heads, err := f.lister.Heads(t.Context(), "acme-inc", "acme/web", want); err != nil || len(heads.Branches)+len(heads.Tags) != 0 {
			t.Fatalf("%v %v", heads, err)
		}
	}
}

func TestLimits_answersOfAnyLengthAreCut(t *testing.T) {
	t.Parallel()
	f := setUp(t, time.Minute)
	hash := f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
	f.git.Advertise(func(ref func(hash, name string)) {
		for i := range 1_000 { // twice what is read
			ref(hash, "refs/heads/"+strconv.Itoa(i)+strings.Repeat("y", 2000))
		}
	})
	f.lister.maxBytes = 1 << 20
	begin := time.Now()
	_, err := f.lister.Heads(t.Context(), "acme-inc", "acme/web", remote.Wanted{Branch: named("main")})
	if e, ok := remote.AsError(err); !ok || !e.Temporary || !strings.Contains(e.Message, "more than was asked for") || time.Since(begin) > 2*time.Minute {
		t.Fatalf("after %v: %v", time.Since(begin), err)
	}
	for _, form := range remote.Forms(seal.NewSecret(token)) {
		if strings.Contains(err.Error(), form) {
			t.Error("the token is in the error")
		}
	}
}

// TestHeads_needNoDirectory: neither way to ask leaves, or needs, a file of ours.
func TestHeads_needNoDirectory(t *testing.T) {
	directory := t.TempDir()
	t.Setenv("TMPDIR", directory)
	t.Chdir(directory)
	f := setUp(t, time.Minute)
	hash := f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
	before, err := os.ReadDir(directory)
	must(t, err)
	for name, list := range map[string]listRefs{"connection": f.lister.byConnection, "program": f.lister.byProgram} {
		f.lister.list = list
		got, err := f.lister.Heads(t.Context(), "acme-inc", "acme/web", remote.Wanted{Branch: every})
		if err != nil || got.Branches["main"] != hash {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
	must(t, f.lister.Reach(t.Context(), "acme/web", f.git.URL.String()+"/acme/web.git", seal.NewSecret(token), "refs/heads/main"))
	left, err := os.ReadDir(directory)
	must(t, err)
	if len(left) != len(before) {
		t.Errorf("left behind: %v, %v before", left, before)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
