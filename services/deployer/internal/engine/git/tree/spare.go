package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
)

// ErrNoRoom ends the making of a pristine copy: it is a luxury.
var ErrNoRoom = errors.New("tree: too little room for a pristine copy")

const (
	// Trees smaller than both are checked out in full as fast as a copy is brought up to date.
	copyFiles = 500
	copyBytes = 8 << 20 // bytes of files that are copied at a time
)

// Copier writes a tree once more, for Update to begin with, and returns its manifest. It has the
// lowest claim to processors and disk, and asks pause now and then, which may hold it up or end
// it. It reads the mirror without keeping others from changing it: if what it needs is gone, it
// fails, and nothing is lost. Nothing is on disk for good yet when it returns.
type Copier func(ctx context.Context, dir *os.Root, pause func(ctx context.Context) error) ([]byte, error)

// Copier returns what writes the tree of the snapshot again, also after Close; nil when a pristine
// copy would not help: before Checkout or Update, for a tree that is small, or larger than
// Limits.SpareBytes.
func (t *Tree) Copier() Copier {
	p := t.planned
	most := t.Limits.SpareBytes
	if p == nil || p.bytes > most || len(p.Entries) < copyFiles && p.bytes < copyBytes {
		return nil
	}
	return func(ctx context.Context, dir *os.Root, pause func(context.Context) error) (list []byte, err error) {
		err = lowered(func() error {
			list, err = p.copy(ctx, dir, pause)
			return err
		})
		return list, err
	}
}

// Copy is what a Copier does, in the foreground, whatever the tree's size. The tree was listed before.
func (t *Tree) Copy(ctx context.Context, dir *os.Root, pause func(context.Context) error) ([]byte, error) {
	return t.planned.copy(ctx, dir, pause)
}

func (p *Plan) copy(ctx context.Context, dir *os.Root, pause func(context.Context) error) ([]byte, error) {
	// A reserve beyond the reserve stays free, and the copy must fit above it.
	reserve := p.root.Disk.Reserve
	if err := p.root.Disk.checkMore(dir.Name(), reserve+uint64(p.bytes)+blockSize*uint64(len(p.Entries))); err != nil { // sizes are positive
		return nil, err
	}
	var files []*entry
	entries := slices.Clone(p.Entries)
	for i := range entries {
		if entries[i].regular() {
			files = append(files, &entries[i])
		}
	}
	j := &job{plan: p, dir: dir, all: len(files), pause: pause, reserve: reserve}
	if err := j.files(ctx, files, true); err != nil {
		return nil, fmt.Errorf("pristine copy: %w", err)
	}
	if err := j.rest(entries); err != nil {
		return nil, err
	}
	m, err := p.describe(dir)
	if err != nil {
		return nil, err
	}
	return m.encode(), nil
}
