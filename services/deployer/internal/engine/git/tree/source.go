package tree

import (
	"context"
	"io"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
)

// Tree is the tree of a commit in a bare repository, with what stands in the places of some of its files.
// Its fields are complete before it is read, and never change afterwards.
type Tree struct {
	Git    *program.Git
	GitDir string // the bare repository
	Commit string // its hash
	Limits Limits
	Disk   Disk

	// Replace holds what stands in the place of a file, by its path; Grafts are other commits' trees in
	// the places of submodules.
	Replace map[string]Replacement
	Grafts  []Graft
	// Directory is the app's own, which links must stay within the tree from; empty for all of it.
	Directory string

	planned *Plan // once it was listed
}

// Limits bound what a tree may cost.
type Limits struct {
	Bytes      int64
	Files      int
	SpareBytes int64 // a larger tree gets no pristine copy
}

// Replacement is content that stands in a file's place: what a pointer of LFS points to. The file's mode
// stays the tree's.
type Replacement struct {
	Size int64
	Open func() (io.ReadCloser, error)
}

// Graft is another tree in the place of a submodule. Its own replacements and grafts count below Path.
type Graft struct {
	Path string
	Tree *Tree
}

// Stats says what a checkout wrote.
type Stats struct {
	Files int
	Bytes int64
	Kept  int // of the files, those that a pristine copy held already
}

// Local runs git on the repository without a credential; its failure means damage, unless git says
// otherwise.
func (t *Tree) Local(ctx context.Context, c program.Command) error {
	c.GitDir, c.Token = t.GitDir, seal.Secret{}
	return program.LocalFailure(t.Git.Run(ctx, c))
}
