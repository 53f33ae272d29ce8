package mirror

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// named wants exactly these.
func named(names ...string) func(string) bool {
	return func(name string) bool { return slices.Contains(names, name) }
}

func every(string) bool { return true }

func TestHeads_branchesAndTagsInOneQuestion(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	one := repo.Commit("main", "one", map[string]string{"f": "1"})
	two := repo.Commit("feature/a", "two", map[string]string{"f": "2"})
	repo.Set("refs/heads/main", two) // a branch with a name that is no easy one
	repo.Git("update-ref", "refs/tags/light", one)
	repo.Git("-c", "user.name=Jane Developer", "-c", "user.email=jane@example.test", "tag", "-a", "-m", "annotated", "v1.0", two)
	repo.Git("update-ref", "refs/pull-requests/1/from", one)
	repo.Git("update-ref", "refs/x/refs/heads/main", two)
	ask := func(want Wanted) Heads {
		t.Helper()
		before := len(f.git.Requests())
		heads, err := f.mirrors.Heads(t.Context(), "acme-inc", "acme/web", want)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(f.git.Requests()) - before; n > 3 { // what git is, the list, and once more without a token
			t.Errorf("%d requests", n)
		}
		return heads
	}
	for name, c := range map[string]struct {
		want           Wanted
		branches, tags map[string]string
	}{
		"one branch":    {Wanted{Branch: named("main", "nope")}, map[string]string{"main": one}, nil},
		"all branches":  {Wanted{Branch: every}, map[string]string{"main": one, "feature/a": two, "refs/heads/main": two}, nil},
		"all tags":      {Wanted{Tag: every}, nil, map[string]string{"light": one, "v1.0": two}},
		"some of both":  {Wanted{Branch: named("feature/a"), Tag: named("v1.0")}, map[string]string{"feature/a": two}, map[string]string{"v1.0": two}},
		"there is none": {Wanted{Branch: named("v1.0"), Tag: named("main")}, nil, nil},
		"nothing asked": {Wanted{}, nil, nil},
	} {
		if got := ask(c.want); !maps.Equal(got.Branches, c.branches) || !maps.Equal(got.Tags, c.tags) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestHeads_thousandsOfThem(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
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
	heads, err := f.mirrors.Heads(t.Context(), "acme-inc", "acme/web", Wanted{Branch: func(name string) bool { return strings.HasPrefix(name, "feature/") }})
	if err != nil || len(heads.Branches) != 20_000 || heads.Branches["feature/branch-19999"] != hash {
		t.Fatalf("%d branches, %v", len(heads.Branches), err)
	}
}

func TestHeads_namesThatCannotBeStoredAreLeftOut(t *testing.T) {
	t.Parallel()
	list := headList{want: Wanted{Branch: every, Tag: every}, most: 1 << 20}
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
	f := setUp(t, Limits{})
	f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
	f.git.Fail(func(*http.Request) (int, string) { return 200, "<html>down for maintenance</html>" })
	for _, want := range []Wanted{{Branch: named("main")}, {Tag: every}} {
		heads, err := f.mirrors.Heads(t.Context(), "acme-inc", "acme/web", want)
		if e, ok := asError(err); !ok || !e.Temporary || len(heads.Branches)+len(heads.Tags) != 0 {
			t.Fatalf("%v %v", heads, err)
		}
	}
	f.git.Fail(nil)
	for _, want := range []Wanted{{Branch: named("nope")}, {Tag: every}} { // git says that there are none
		if heads, err := f.mirrors.Heads(t.Context(), "acme-inc", "acme/web", want); err != nil || len(heads.Branches)+len(heads.Tags) != 0 {
			t.Fatalf("%v %v", heads, err)
		}
	}
}
