package release

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// A spare is a pristine copy of a tree, kept for the app's next deployment to begin with:
//
//	releases/.spare/tree        the copy
//	releases/.spare/manifest    what it holds, written and synced after the copy
//	releases/.making-<random>/  one that is being made
//
// It gets its name only when it is whole and on disk, by a rename under the app's lock and fence;
// and it is taken by a rename of the tree, before anything in it is changed. A spare that can be
// found is therefore whole, at whatever point its maker or its taker died.

const (
	spareDir      = ".spare"
	makingPrefix  = ".making-"
	spareTree     = "tree"
	spareManifest = "manifest"
)

// MakeSpare makes the app's spare in place of the one it may have. fill writes the tree into an
// empty directory and returns the manifest; it takes as long as it likes, since nobody waits for
// it and the fence is checked afterwards. ErrStale when another attempt has claimed the directory
// meanwhile. Whatever goes wrong, nothing is left behind and the deployments are none the worse.
func (s *Store) MakeSpare(ctx context.Context, workspace, app string, epoch int64, fill func(tree *os.Root) (manifest []byte, err error)) error {
	dir := appDir(workspace, app)
	making := path.Join(dir, releasesDir, makingPrefix+randomID())
	s.step("spare-begin")
	var old string
	err := s.draft(making, fill)
	if err == nil {
		old, err = s.publish(ctx, dir, making, epoch)
	}
	if old != "" {
		err = errors.Join(err, s.remove(old))
	}
	if err != nil { // after a success there is nothing under that name
		err = errors.Join(err, s.remove(making))
		return fmt.Errorf("release: make a spare of %s/%s: %w", workspace, app, err)
	}
	return nil
}

// publish gives a spare that is whole its name. It returns the path of the one before.
func (s *Store) publish(ctx context.Context, dir, making string, epoch int64) (old string, err error) {
	err = s.locked(ctx, dir, func(_ *os.File, has int64) error {
		if has != epoch {
			return ErrStale
		}
		s.step("spare-replace")
		var err error
		if old, err = s.toTrash(dir, spareDir); err != nil {
			return err
		}
		s.step("spare-publish")
		if err := s.root.Rename(making, path.Join(dir, releasesDir, spareDir)); err != nil {
			return err
		}
		s.step("spare-published")
		return s.syncDir(path.Join(dir, releasesDir))
	})
	return old, err
}

// draft has the tree written, and then the manifest, all on disk when it returns.
func (s *Store) draft(making string, fill func(tree *os.Root) ([]byte, error)) error {
	if err := s.root.Mkdir(making, 0o700); err != nil { // not MkdirAll: the app may be gone
		return err
	}
	tree := path.Join(making, spareTree)
	if err := s.root.Mkdir(tree, 0o755); err != nil {
		return err
	}
	r, err := s.root.OpenRoot(tree)
	if err != nil {
		return err
	}
	manifest, err := fill(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	s.step("spare-sync")
	if err := s.syncVolume(tree); err != nil {
		return err
	}
	s.step("spare-manifest")
	f, err := s.root.OpenFile(path.Join(making, spareManifest), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(manifest)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return s.syncDir(making)
}

// TakeSpare makes the app's spare the release directory of an attempt, if epoch is still the
// fence; else ErrStale. It returns the directory, which the caller closes, and the manifest; nil
// when there is no spare. What it holds is to be checked against the manifest before use.
func (s *Store) TakeSpare(ctx context.Context, workspace, app string, epoch int64, directory string) (tree *os.Root, manifest []byte, err error) {
	dir := appDir(workspace, app)
	spare := path.Join(dir, releasesDir, spareDir)
	if _, err := s.root.Lstat(spare); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	err = s.locked(ctx, dir, func(_ *os.File, has int64) error {
		if has != epoch {
			return ErrStale
		}
		b, err := s.root.ReadFile(path.Join(spare, spareManifest))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if _, terr := s.root.Lstat(path.Join(spare, spareTree)); err != nil || terr != nil {
			return s.remove(spare) // its taker died, or there is no telling what it is
		}
		if _, err := s.toTrash(dir, directory); err != nil { // of a dead attempt
			return err
		}
		s.step("spare-take")
		target := path.Join(dir, releasesDir, directory)
		if err := s.root.Rename(path.Join(spare, spareTree), target); err != nil {
			return err
		}
		s.step("spare-taken")
		if err := s.remove(spare); err != nil {
			return err
		}
		tree, err = s.root.OpenRoot(target)
		manifest = b
		return err
	})
	return tree, manifest, err
}

// toTrash gives a directory among the releases a name that nobody looks for, for Sweep to remove.
// It returns the new path, empty when there was nothing. It is called under the app's lock, or for
// a directory that is the caller's alone.
func (s *Store) toTrash(dir, name string) (string, error) {
	trash := path.Join(dir, releasesDir, trashPrefix+randomID())
	err := s.root.Rename(path.Join(dir, releasesDir, name), trash)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return trash, nil
}

// DropSpares removes the spares of all apps, those that are being made too, and reports how many
// there were: they are the first to go when the disk is short. Apps whose lock somebody holds are
// left out.
func (s *Store) DropSpares(ctx context.Context) (int, error) {
	dropped := 0
	workspaces, err := s.readDir("apps")
	if err != nil {
		return 0, fmt.Errorf("release: %w", err)
	}
	for _, workspace := range workspaces {
		apps, err := s.readDir(path.Join("apps", workspace))
		if err != nil {
			return dropped, fmt.Errorf("release: %w", err)
		}
		for _, app := range apps {
			if err := ctx.Err(); err != nil {
				return dropped, err
			}
			n, err := s.dropSpare(appDir(workspace, app))
			dropped += n
			if err != nil {
				return dropped, fmt.Errorf("release: drop the spare of %s/%s: %w", workspace, app, err)
			}
		}
	}
	return dropped, nil
}

func (s *Store) dropSpare(dir string) (dropped int, err error) {
	var found []string
	names, err := s.readDir(path.Join(dir, releasesDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	for _, name := range names {
		if name == spareDir || strings.HasPrefix(name, makingPrefix) {
			found = append(found, name)
		}
	}
	if len(found) == 0 {
		return 0, nil
	}
	f, err := tryLock(s.root, path.Join(dir, epochFile))
	if f == nil || err != nil {
		return 0, err
	}
	var trash []string
	for _, name := range found {
		p, terr := s.toTrash(dir, name)
		err = errors.Join(err, terr)
		if p != "" {
			trash = append(trash, p)
		}
	}
	_ = unlock(f)
	for _, p := range trash {
		err = errors.Join(err, s.remove(p))
	}
	return len(trash), err
}
