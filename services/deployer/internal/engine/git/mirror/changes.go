package mirror

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/address"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// Bounds of one answer of Changes.
const (
	maxChangedPaths = 50_000
	maxChangedBytes = 8 << 20
)

// ChangesRequest names a push: a branch or tag that went from one commit to another.
type ChangesRequest struct {
	Workspace, Repository, FullName string
	Branch, Tag                     string // exactly one
	Old, New                        string // full hashes; Old is empty, or all zeros, for a first push
}

// Changes says what differs between the trees of two commits.
type Changes struct {
	// Paths are the files and submodules that were added, changed or removed, sorted; of one that
	// was renamed, both paths.
	Paths     []string
	Truncated bool   // there are more paths than are listed
	Message   string // of the new commit
	// First says that there was no commit before; BaseUnknown, that Bitbucket no longer has it. Paths
	// is empty in both cases, and says nothing.
	First       bool
	BaseUnknown bool
}

// Changes compares the trees of two commits, whatever history lies between them: after a forced
// push too, it is what a deployment of the new one changes. What the mirror lacks is fetched, by
// hash; where it has both commits, nobody is asked. Errors that concern the repository are *Error.
func (m *Mirrors) Changes(ctx context.Context, req ChangesRequest) (Changes, error) {
	ref, err := remoteRef(req.Branch, req.Tag)
	if err != nil {
		return Changes{}, err
	}
	if strings.Trim(req.Old, "0") == "" {
		req.Old = ""
	}
	for _, hash := range []string{req.Old, req.New} {
		if hash != "" && !address.ValidCommit(hash) || req.New == "" {
			return Changes{}, notACommit(hash)
		}
	}
	s, err := m.reader(ctx, req.Workspace, req.Repository)
	if err != nil {
		return Changes{}, err
	}
	if s != nil {
		defer s.Close()
		if s.has(ctx, req.New) && (req.Old == "" || s.has(ctx, req.Old)) {
			c, err := s.changes(ctx, req)
			if err == nil || !errors.Is(err, program.ErrDamaged) {
				return c, err
			}
		}
		s.Close() // what follows may have to make the mirror anew
	}
	base, err := m.bringPair(ctx, req, ref)
	if err != nil {
		return Changes{}, err
	}
	defer base.Close()
	return base.changes(ctx, req)
}

// bringPair fetches both commits of a push, the old one if it can be had.
func (m *Mirrors) bringPair(ctx context.Context, req ChangesRequest, ref string) (*Snapshot, error) {
	return m.bring(ctx, target{
		workspace: req.Workspace, id: req.Repository, fullName: req.FullName, ref: ref,
		// The branch went to New, Bitbucket says: it need not be there any more.
		commit: req.New, known: true, also: req.Old,
	}, &budget{bytes: m.cfg.Limits.FetchBytes})
}

// reader opens a mirror that is there, for reading; nil where there is none.
func (m *Mirrors) reader(ctx context.Context, workspace, id string) (*Snapshot, error) {
	dir := m.dirOf(workspace, id)
	r := &repository{m: m, dir: dir, git: filepath.Join(dir, "git")}
	if !r.usable() {
		return nil, nil
	}
	use, err := lockFile(ctx, filepath.Join(dir, "use.lock"), unix.LOCK_SH)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	return m.open(r, use), nil
}

// has tells whether a commit is in the mirror, with its tree's root.
func (s *Snapshot) has(ctx context.Context, commit string) bool {
	return s.Local(ctx, program.Command{Operation: "cat-file", Args: []string{"cat-file", "-e", commit + "^{tree}"}}) == nil
}

func (s *Snapshot) changes(ctx context.Context, req ChangesRequest) (Changes, error) {
	head, err := s.describe(ctx, req.New)
	if err != nil {
		return Changes{}, err
	}
	c := Changes{Message: head.Message}
	switch {
	case req.Old == "":
		c.First = true
		return c, nil
	case !s.has(ctx, req.Old):
		c.BaseUnknown = true
		return c, ctx.Err()
	}
	bytes := 0
	err = s.Git.Records(ctx, program.Command{
		Operation: "diff-tree", GitDir: s.GitDir,
		Args: []string{"diff-tree", "-r", "-z", "--name-only", "--no-renames", "--no-ext-diff", "--ignore-submodules=none", "--end-of-options", req.Old, req.New, "--"},
	}, func(path string) error {
		if bytes += len(path); len(c.Paths) == maxChangedPaths || bytes > maxChangedBytes {
			c.Truncated = true
			return program.ErrEnough
		}
		c.Paths = append(c.Paths, path)
		return nil
	})
	slices.Sort(c.Paths)
	return c, err
}

// alsoObtain brings a second commit, if it can be had.
func (f *fetcher) alsoObtain(ctx context.Context) error {
	also := *f
	also.target.commit, also.target.also = f.target.also, ""
	if also.target.commit == "" || also.whole(ctx, also.target.commit) {
		return nil
	}
	err := also.obtain(ctx)
	if remote.HasReason(err, remote.ReasonCommitGone) || remote.HasReason(err, remote.ReasonRepositoryTooLarge) {
		return nil
	}
	return err
}
