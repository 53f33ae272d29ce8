package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/history"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/lfs"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/submodule"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
)

// addSubmodules brings the commit's submodules, and theirs, each into a mirror of its own.
func (s *Snapshot) addSubmodules(ctx context.Context, b *budget, allowed []string, progress func(string, int64, int64)) error {
	ctx, cancel := s.m.timed(ctx)
	defer cancel()
	owner, _, _ := strings.Cut(s.target.fullName, "/")
	cfg := submodule.Config{Site: s.m.cfg.Site, Owner: owner, Allowed: allowed, Progress: progressOf("submodules", progress)}
	cfg.Bring = func(ctx context.Context, fullName, commit string) (*tree.Tree, error) {
		sub, err := s.m.bring(ctx, target{workspace: s.target.workspace, id: submoduleID(fullName), fullName: fullName, commit: commit, known: true}, b)
		if err != nil {
			return nil, err
		}
		s.subs = append(s.subs, sub)
		return &sub.Tree, nil
	}
	return submodule.Add(ctx, &s.Tree, s.target.fullName, cfg)
}

// submoduleID names the directory of a submodule's mirror. The same repository may also be an app's
// own; that one is kept under its id.
func submoduleID(fullName string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(fullName)))
	return "submodule-" + hex.EncodeToString(sum[:16])
}

// addLFS brings what the pointers of the commit and of its submodules point to.
func (s *Snapshot) addLFS(ctx context.Context, b *budget, progress func(string, int64, int64)) error {
	ctx, cancel := s.m.timed(ctx)
	defer cancel()
	for _, in := range append(s.subs, s) {
		r := lfs.Repository{Workspace: in.target.workspace, FullName: in.target.fullName, Ref: in.target.ref, Dir: lfsOf(in.dir)}
		came, err := s.m.lfs.Bring(ctx, &in.Tree, r, b.bytes, s.notice, progressOf("lfs", progress))
		if err != nil {
			return err
		}
		if b.bytes -= came; came > 0 {
			s.m.used(ctx, in.dir)
		}
	}
	return nil
}

// lfsOf is where the content that pointers of LFS name is kept, in the mirror's directory.
func lfsOf(dir string) string { return filepath.Join(dir, "lfs") }

func progressOf(what string, progress func(string, int64, int64)) func(done, all int64) {
	if progress == nil {
		return nil
	}
	return func(done, all int64) { progress(what, done, all) }
}

// HasLFSPointers tells whether files of the commit are pointers of LFS, for a word in the log where
// Source.LFS is off.
func (s *Snapshot) HasLFSPointers(ctx context.Context) (bool, error) {
	return lfs.Has(ctx, &s.Tree, s.m.temporary())
}

// ErrNoHistory says that a snapshot was fetched without Source.FullHistory.
var ErrNoHistory = errors.New("mirror: the commit was fetched without history")

// WriteGit writes a .git directory of its own into dir, which holds the checked-out commit: all history
// of the commit and the tags on it. Without Source.FullHistory it fails with ErrNoHistory.
func (s *Snapshot) WriteGit(ctx context.Context, dir *os.Root) error {
	if !s.target.full {
		return ErrNoHistory
	}
	return history.History{Tree: &s.Tree, Ref: s.target.ref, Tags: s.tags}.WriteGit(ctx, dir, s.m.temporary())
}

// Lacks tells whether it is known that the commit's history does not contain another commit.
func (s *Snapshot) Lacks(ctx context.Context, commit string) bool {
	return history.Lacks(ctx, &s.Tree, s.commit.Parents, commit)
}
