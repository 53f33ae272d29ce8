package release

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// SharedError says why a shared path cannot be had, in words for people.
type SharedError struct{ Path, Message string }

// Error implements error.
func (e *SharedError) Error() string {
	return fmt.Sprintf("release: shared path %q: %s", e.Path, e.Message)
}

const (
	sharedDir     = "shared"
	maxSharedPath = 1024 // bytes of a shared path
)

// shared is one shared path.
type shared struct {
	path string // clean, without the slash
	dir  bool
}

// parseShared reads the paths that are shared, or gives a *SharedError about the first that cannot be:
// each names something below the release, and none is another one or lies within one.
func parseShared(paths []string) ([]shared, error) {
	var out []shared
	for _, p := range paths {
		name, dir := strings.CutSuffix(p, "/")
		refuse := func(message string) ([]shared, error) { return nil, &SharedError{p, message} }
		switch {
		case len(p) > maxSharedPath:
			return refuse("It is longer than 1,024 bytes.")
		case name == "" || name == "." || path.Clean(name) != name || !filepath.IsLocal(name):
			return refuse("It is not a plain path below the release, such as \"uploads/\" or \".env\".")
		case strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return refuse("It holds a control character.")
		}
		for _, other := range out {
			if other.path == name || strings.HasPrefix(name, other.path+"/") || strings.HasPrefix(other.path, name+"/") {
				return refuse(fmt.Sprintf("It is, or lies within, the shared path %q, or the other way round.", other.path))
			}
		}
		out = append(out, shared{name, dir})
	}
	return out, nil
}

// Shared links an app's lasting files into the release directory of an attempt, if epoch is still
// the fence; else ErrStale. A path that ends in a slash is a directory, any other a file. What the
// app keeps at shared/<path> stands in the release by a relative symbolic link; what the repository
// has there moves to shared/ the first time and is hidden by the link from then on. What is
// nowhere yet is made: an empty directory, or an empty file that its owner may write and its group
// read, so that the commands of the app find something to write to.
//
// It returns the absolute paths of what is shared, in the order of paths, and may be called again.
// A *SharedError tells what people have to change. Shared files are removed only with the app.
func (s *Store) Shared(ctx context.Context, workspace, app, directory string, epoch int64, paths []string) ([]string, error) {
	all, err := parseShared(paths)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	if _, err := releasePath(workspace, app, directory); err != nil {
		return nil, err
	}
	dir := appDir(workspace, app)
	var out []string
	err = s.locked(ctx, dir, func(_ *os.File, has int64) error {
		if has != epoch {
			return ErrStale
		}
		r, err := s.root.OpenRoot(dir)
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }()
		sh := sharer{s: s, root: r, release: path.Join(releasesDir, directory)}
		if err := sh.root.Mkdir(sharedDir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		for _, p := range all {
			if err := sh.share(p); err != nil {
				return err
			}
			out = append(out, filepath.Join(s.dir, filepath.FromSlash(dir), sharedDir, filepath.FromSlash(p.path)))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// sharer links the shared paths of one release. All is done below the app's directory, by a root
// that leads nowhere else.
type sharer struct {
	s       *Store
	root    *os.Root
	release string
}

// link is what the symbolic link says that stands for it in every release.
func (p shared) link() string {
	return strings.Repeat("../", strings.Count(p.path, "/")+2) + path.Join(sharedDir, p.path)
}

// SharedLinks are the links of the directories among shared paths, by their place in a release: files
// are not among them. Paths that parseShared refuses have none.
func SharedLinks(paths []string) map[string]string {
	all, err := parseShared(paths)
	if err != nil {
		return nil
	}
	links := make(map[string]string, len(all))
	for _, p := range all {
		if p.dir {
			links[p.path] = p.link()
		}
	}
	return links
}

// OpenShared opens the directory of what an app shares, for reading; by a link it is never reached.
// The error is fs.ErrNotExist when the app shares nothing yet. The caller closes it.
func (s *Store) OpenShared(workspace, app string) (*os.Root, error) {
	p := path.Join(appDir(workspace, app), sharedDir)
	before, err := s.root.Lstat(p)
	if err != nil {
		return nil, fmt.Errorf("release: look for %s: %w", p, err)
	}
	if !before.IsDir() {
		return nil, fmt.Errorf("release: %s is no directory: %w", p, fs.ErrNotExist)
	}
	r, err := s.root.OpenRoot(p)
	if err != nil {
		return nil, fmt.Errorf("release: open %s: %w", p, err)
	}
	// What was opened must be what was checked: a link may have taken its place since.
	if now, err := r.Stat("."); err != nil || !os.SameFile(before, now) {
		return nil, errors.Join(fmt.Errorf("release: %s is no directory: %w", p, fs.ErrNotExist), err, r.Close())
	}
	return r, nil
}

func (h *sharer) share(p shared) error {
	target := p.link()
	lasting, place := path.Join(sharedDir, p.path), path.Join(h.release, p.path)
	for _, base := range []string{sharedDir, h.release} {
		if err := h.parents(base, p); err != nil {
			return err
		}
	}
	has, err := h.lstat(place)
	if err != nil {
		return err
	}
	if has != nil && has.Mode()&fs.ModeSymlink != 0 {
		if got, err := h.root.Readlink(place); err != nil || got != target {
			// A link of the repository's own: there is nothing in it to keep.
			if err := errors.Join(err, h.root.Remove(place)); err != nil {
				return err
			}
			has = nil
		}
	}
	if err := h.keep(p, lasting, place, has); err != nil {
		return err
	}
	now, err := h.lstat(place)
	if err != nil {
		return err
	}
	if now != nil && now.Mode()&fs.ModeSymlink != 0 {
		return nil
	}
	if now != nil { // hidden: it stays in the repository
		h.s.step("share-hide")
		if err := h.root.Rename(place, path.Join(releasesDir, trashPrefix+randomID())); err != nil {
			return err
		}
	}
	h.s.step("share-link")
	return h.root.Symlink(target, place)
}

// keep sees to it that what lasts is there, and of the kind it should be.
func (h *sharer) keep(p shared, lasting, place string, repository fs.FileInfo) error {
	has, err := h.lstat(lasting)
	if err != nil {
		return err
	}
	fits := func(i fs.FileInfo) bool { return p.dir && i.IsDir() || !p.dir && i.Mode().IsRegular() }
	switch {
	case has != nil && !fits(has):
		return &SharedError{p.path, "What the app keeps there is not a " + p.kind() + "."}
	case has != nil:
		return nil
	case repository != nil && !fits(repository) && repository.Mode()&fs.ModeSymlink == 0:
		return &SharedError{p.path, "The repository has something there that is not a " + p.kind() + "."}
	case repository != nil && fits(repository):
		h.s.step("share-move")
		return h.root.Rename(place, lasting)
	}
	h.s.step("share-make")
	if p.dir {
		return h.root.Mkdir(lasting, 0o755)
	}
	f, err := h.root.OpenFile(lasting, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	return f.Close()
}

func (p shared) kind() string {
	if p.dir {
		return "directory"
	}
	return "file"
}

// parents makes the directories down to a path. None may be a link: the path would not be where
// the relative link counts from.
func (h *sharer) parents(base string, p shared) error {
	parts := strings.Split(p.path, "/")
	for i := range parts[:len(parts)-1] {
		at := path.Join(base, path.Join(parts[:i+1]...))
		info, err := h.lstat(at)
		if err != nil {
			return err
		}
		if info == nil {
			if err := h.root.Mkdir(at, 0o755); err != nil {
				return err
			}
			continue
		}
		if !info.IsDir() {
			return &SharedError{p.path, fmt.Sprintf("%q on its way is not a directory.", path.Join(parts[:i+1]...))}
		}
	}
	return nil
}

// lstat describes a path, with nil for none.
func (h *sharer) lstat(p string) (fs.FileInfo, error) {
	info, err := h.root.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return info, err
}
