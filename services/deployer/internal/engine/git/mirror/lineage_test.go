package mirror

import (
	"testing"

	"devpilot.io/bitbucket/pkg/bitbucket"
)

// TestLacks: what cannot be told is not said. The mirror has one commit of each head that was fetched.
func TestLacks(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	commit := func(content string) string {
		return repo.Commit("main", content, map[string]string{"f": content})
	}
	fetched := func(full bool) *Snapshot {
		t.Helper()
		src := source("main")
		src.FullHistory = full
		s, err := f.mirrors.Fetch(t.Context(), src)
		must(t, err)
		t.Cleanup(s.Close)
		return s
	}
	lacks := func(s *Snapshot, commit string, want bool) {
		t.Helper()
		if got := s.Lacks(t.Context(), commit); got != want {
			t.Errorf("%s lacks %s: %v", s.Head().Message, bitbucket.ShortHash(commit), got)
		}
	}
	commit("beyond")
	one := commit("one")
	s := fetched(false)
	lacks(s, one, false)
	two := commit("two")
	three := commit("three") // two was never fetched
	s = fetched(false)
	lacks(s, two, false)
	lacks(s, one, false)
	four := commit("four")
	s = fetched(false)
	lacks(s, three, false) // its parent
	lacks(s, two, false)   // its parent's parent, which is known only by name

	repo.Set("main", one)
	commit("amended")
	s = fetched(false)
	lacks(s, four, false) // one's own parent is beyond the boundary: four could be there

	repo.Delete("main")
	root := commit("anew")
	s = fetched(false)
	lacks(s, four, true)
	lacks(s, root, false)
	next := commit("next")
	s = fetched(false)
	lacks(s, four, true) // all the way down to a first commit
	lacks(s, root, false)

	repo.Set("main", one)
	commit("with history")
	s = fetched(true)
	lacks(s, four, true)
	lacks(s, next, true)
	lacks(s, one, false)
	lacks(s, "", false)
	asked := len(f.git.Requests())
	lacks(s, four, true)
	if now := len(f.git.Requests()); now != asked {
		t.Errorf("Bitbucket was asked %d times", now-asked)
	}
}
