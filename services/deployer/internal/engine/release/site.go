package release

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"reflect"
	"slices"
	"time"
)

// siteFile stands beside an app's releases. What is served is known from it alone, while every store is
// away. It is not synced: after a power cut a damaged one is made anew from the records.
const siteFile = "site.json"

// Site is what of an app's releases on this server is served, and how. Which of them is live, `current`
// tells.
type Site struct {
	// Generation is that of the app.
	Generation int64 `json:"generation"`
	// App and Lane are the revisions of the records that it was made from.
	App  uint64 `json:"app"`
	Lane uint64 `json:"lane"`
	// Last is the newest deployment's number.
	Last int32 `json:"last"`
	// Elsewhere is the server that has the live release, where that is another.
	Elsewhere string `json:"elsewhere,omitempty"`
	// Releases that are kept here. Of two with the same directory the later is meant: a rollback uses
	// a directory a second time.
	Releases []SiteRelease `json:"releases"`
	// Announced is the epoch of the run that put its release here before its end was on record.
	Announced int64 `json:"announced,omitempty"`
}

// SiteRelease is one kept release of a Site.
type SiteRelease struct {
	Number    int32  `json:"number"`
	Directory string `json:"directory"`
	Hash      string `json:"hash"`
	// Serve is the directory that is served, empty for none, and Fallback the page in place of what is
	// not there.
	Serve    string   `json:"serve,omitempty"`
	Fallback string   `json:"fallback,omitempty"`
	Shared   []string `json:"shared,omitempty"`
}

// recently is how long a record on disk stands against one made from older revisions. Later the older
// one is believed: a store that was restored counts from lower numbers.
const recently = time.Minute

// SiteStamp tells versions of a site's record apart, without reading it.
type SiteStamp struct {
	written time.Time
	size    int64
	file    os.FileInfo
}

// Same tells whether two stamps are of the same version.
func (s SiteStamp) Same(t SiteStamp) bool {
	return s.file != nil && t.file != nil && s.size == t.size && s.written.Equal(t.written) && os.SameFile(s.file, t.file)
}

// SiteStamp returns the stamp of an app's site; fs.ErrNotExist when it has none.
func (s *Store) SiteStamp(workspace, app string) (SiteStamp, error) {
	info, err := s.root.Lstat(path.Join(appDir(workspace, app), siteFile))
	if err != nil {
		return SiteStamp{}, fmt.Errorf("release: the site of %s/%s: %w", workspace, app, err)
	}
	return SiteStamp{written: info.ModTime(), size: info.Size(), file: info}, nil
}

// Site reads what is served of an app; nil when there is no record, or a damaged one.
func (s *Store) Site(workspace, app string) (*Site, error) {
	b, err := s.root.ReadFile(path.Join(appDir(workspace, app), siteFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("release: read the site of %s/%s: %w", workspace, app, err)
	}
	var site Site
	if json.Unmarshal(b, &site) != nil {
		return nil, nil //nolint:nilerr // a damaged record is none
	}
	return &site, nil
}

// Announce adds a release to what is served, before Switch makes it live; ErrStale when epoch is no
// longer the fence.
func (s *Store) Announce(ctx context.Context, workspace, app string, epoch, generation int64, r SiteRelease) error {
	return s.locked(ctx, appDir(workspace, app), func(_ *os.File, has int64) error {
		if has != epoch {
			return ErrStale
		}
		site, err := s.Site(workspace, app)
		if err != nil {
			return err
		}
		if site == nil || site.Generation != generation {
			site = &Site{Generation: generation}
		}
		site.Releases = append(slices.DeleteFunc(site.Releases, func(o SiteRelease) bool { return o.Number == r.Number }), r)
		site.Last, site.Announced, site.Elsewhere = max(site.Last, r.Number), epoch, ""
		return s.writeSite(workspace, app, site)
	})
}

// Runs are the runs of an app that its records know of, by epoch.
type Runs struct {
	Newest  int64
	Running int64 // 0: none
}

// SetSite replaces what is served of an app by what its records say. What a run announced stays until
// they know of the run, and of its end. Nothing is written when they are older than what is there, when
// nothing changes, and where there is nothing to serve.
func (s *Store) SetSite(ctx context.Context, workspace, app string, site Site, seen Runs) error {
	if _, err := s.root.Lstat(appDir(workspace, app)); errors.Is(err, fs.ErrNotExist) {
		return nil // nothing of it was ever deployed here
	}
	return s.locked(ctx, appDir(workspace, app), func(*os.File, int64) error {
		old, err := s.Site(workspace, app)
		if err != nil {
			return err
		}
		if old == nil && len(site.Releases) == 0 && site.Elsewhere == "" {
			return nil
		}
		if old != nil && (site.App < old.App || site.Lane < old.Lane) {
			if stamp, err := s.SiteStamp(workspace, app); err != nil || time.Since(stamp.written) < recently {
				return err
			}
		}
		if old != nil && old.Generation == site.Generation {
			keepNewest(old, &site, seen)
		}
		if old != nil && reflect.DeepEqual(*old, site) {
			return nil
		}
		return s.writeSite(workspace, app, &site)
	})
}

// keepNewest takes over from the old record what the new one cannot know yet.
func keepNewest(old, site *Site, seen Runs) {
	if old.Announced == 0 || len(old.Releases) == 0 || seen.Newest >= old.Announced && seen.Running != old.Announced {
		return
	}
	announced := old.Releases[len(old.Releases)-1]
	if !slices.ContainsFunc(site.Releases, func(r SiteRelease) bool { return r.Number == announced.Number }) {
		site.Releases = append(site.Releases, announced)
	}
	site.Announced, site.Last, site.Elsewhere = old.Announced, max(site.Last, announced.Number), ""
}

// RemoveSite ends serving an app of some generation, or an older one.
func (s *Store) RemoveSite(ctx context.Context, workspace, app string, generation int64) error {
	if _, err := s.SiteStamp(workspace, app); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return s.locked(ctx, appDir(workspace, app), func(*os.File, int64) error {
		site, err := s.Site(workspace, app)
		if err != nil || site != nil && generation != 0 && site.Generation > generation {
			return err
		}
		err = s.root.Remove(path.Join(appDir(workspace, app), siteFile))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

// Sites calls fn with every app that has a record of what is served.
func (s *Store) Sites(fn func(workspace, app string)) error {
	workspaces, err := s.readDir("apps")
	if err != nil {
		return fmt.Errorf("release: list sites: %w", err)
	}
	for _, workspace := range workspaces {
		apps, err := s.readDir(path.Join("apps", workspace))
		if err != nil {
			return fmt.Errorf("release: list sites: %w", err)
		}
		for _, app := range apps {
			if _, err := s.SiteStamp(workspace, app); err == nil {
				fn(workspace, app)
			}
		}
	}
	return nil
}

func (s *Store) writeSite(workspace, app string, site *Site) error {
	b, err := json.Marshal(site)
	if err != nil {
		return err
	}
	name := path.Join(appDir(workspace, app), siteFile)
	next := name + ".next"
	s.step("site")
	if err := s.root.WriteFile(next, append(b, '\n'), 0o640); err != nil {
		return err
	}
	s.step("site renamed")
	return s.root.Rename(next, name)
}
