package release

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func siteOf(app, lane uint64, numbers ...int32) Site {
	s := Site{Generation: 7, App: app, Lane: lane}
	for _, n := range numbers {
		s.Releases = append(s.Releases, SiteRelease{Number: n, Directory: DirectoryName(n, 1), Serve: "."})
		s.Last = n
	}
	return s
}

func (s *Store) served(t *testing.T) (numbers []int32) {
	t.Helper()
	site, err := s.Site("acme", "web")
	must(t, err)
	if site == nil {
		return nil
	}
	for _, r := range site.Releases {
		numbers = append(numbers, r.Number)
	}
	return numbers
}

func wantServed(t *testing.T, s *Store, what string, want ...int32) {
	t.Helper()
	got := s.served(t)
	if len(got) != len(want) {
		t.Fatalf("%s: %v are served, want %v", what, got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: %v are served, want %v", what, got, want)
		}
	}
}

// live makes a release, announces it and switches to it.
func (s *Store) live(t *testing.T, epoch int64, number int32) {
	t.Helper()
	must(t, s.Claim(t.Context(), "acme", "web", epoch, 1))
	dir, err := s.Prepare("acme", "web", DirectoryName(number, 1))
	must(t, err)
	must(t, dir.Close())
	must(t, s.Announce(t.Context(), "acme", "web", epoch, 7, SiteRelease{Number: number, Directory: DirectoryName(number, 1), Serve: "."}))
	must(t, s.Switch(t.Context(), "acme", "web", epoch, DirectoryName(number, 1)))
}

func TestSetSite_neverTakesAwayWhatIsLive(t *testing.T) {
	s := openSite(t)
	s.live(t, 1, 1)
	wantServed(t, s, "announced", 1)
	must(t, s.SetSite(t.Context(), "acme", "web", siteOf(10, 11), Runs{1, 1}))
	wantServed(t, s, "records that do not know the run's end yet", 1)
	must(t, s.SetSite(t.Context(), "acme", "web", siteOf(10, 12, 1), Runs{1, 0}))
	wantServed(t, s, "records that know it", 1)
	s.live(t, 2, 2)
	must(t, s.SetSite(t.Context(), "acme", "web", siteOf(10, 12, 1), Runs{1, 0})) // a watch that lags: before the claim even
	wantServed(t, s, "a watch that lags", 1, 2)
	must(t, s.SetSite(t.Context(), "acme", "web", siteOf(10, 20, 2), Runs{2, 0}))
	wantServed(t, s, "the first is kept no longer", 2)
	must(t, s.SetSite(t.Context(), "acme", "web", siteOf(10, 19, 1, 2), Runs{2, 0}))
	wantServed(t, s, "records older than what is there", 2)
}

// A store that was restored counts from lower numbers: it is believed when nothing newer came for a while.
func TestSetSite_believesAStoreThatWasRestored(t *testing.T) {
	s := openSite(t)
	s.live(t, 1, 1)
	must(t, s.SetSite(t.Context(), "acme", "web", siteOf(100, 120, 1), Runs{1, 0}))
	long := time.Now().Add(-2 * recently)
	must(t, os.Chtimes(filepath.Join(s.dir, "apps", "acme", "web", siteFile), long, long))
	lower := siteOf(5, 6, 1)
	lower.Releases[0].Serve = "public"
	must(t, s.SetSite(t.Context(), "acme", "web", lower, Runs{1, 0}))
	site, err := s.Site("acme", "web")
	must(t, err)
	if site.Releases[0].Serve != "public" {
		t.Errorf("what is served: %+v", site)
	}
}

func TestAnnounce_isFenced(t *testing.T) {
	s := openSite(t)
	must(t, s.Claim(t.Context(), "acme", "web", 2, 1))
	if err := s.Announce(t.Context(), "acme", "web", 1, 7, SiteRelease{Number: 1, Directory: "1"}); !errors.Is(err, ErrStale) {
		t.Errorf("a worker that was replaced announces: %v", err)
	}
	wantServed(t, s, "nothing")
}

// A worker that dies between the announcement and the switch leaves what is live as it was.
func TestAnnounce_aloneChangesNothingThatIsLive(t *testing.T) {
	s := openSite(t)
	s.live(t, 1, 1)
	must(t, s.Claim(t.Context(), "acme", "web", 2, 1))
	must(t, s.Announce(t.Context(), "acme", "web", 2, 7, SiteRelease{Number: 2, Directory: "2", Serve: "."}))
	if current, err := s.Current("acme", "web"); err != nil || current != "1" {
		t.Errorf("current is %q, %v", current, err)
	}
	lagging := siteOf(10, 12, 1)
	must(t, s.SetSite(t.Context(), "acme", "web", lagging, Runs{1, 0}))
	wantServed(t, s, "a watch that has not seen the run", 1, 2)
	must(t, s.SetSite(t.Context(), "acme", "web", siteOf(10, 30, 1), Runs{2, 0})) // the run ended without it
	wantServed(t, s, "the run is over", 1)
}

func TestRemoveSite_leavesANewerApp(t *testing.T) {
	s := openSite(t)
	s.live(t, 1, 1)
	must(t, s.RemoveSite(t.Context(), "acme", "web", 6))
	wantServed(t, s, "of the app before", 1)
	must(t, s.RemoveSite(t.Context(), "acme", "web", 7))
	wantServed(t, s, "its own")
	must(t, s.RemoveSite(t.Context(), "acme", "none", 7))
	// What a deleted app leaves goes with its directory.
	s.live(t, 2, 2)
	must(t, s.Remove(t.Context(), "acme", "web", 3))
	wantServed(t, s, "removed")
}

func openSite(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.Context(), t.TempDir(), "default")
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}
