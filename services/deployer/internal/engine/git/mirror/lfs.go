package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
)

// lfsOf is where the content that pointers of LFS name is kept, in the mirror's directory.
func lfsOf(dir string) string { return filepath.Join(dir, "lfs") }

// place is where an object is kept.
func (p pointer) place(dir string) string {
	return filepath.Join(lfsOf(dir), p.oid[:2], p.oid[2:4], p.oid)
}

// stored tells whether the object is kept, and notes that it is used.
func (p pointer) stored(dir string) bool {
	info, err := os.Stat(p.place(dir))
	if err != nil || !info.Mode().IsRegular() || info.Size() != p.size {
		return false
	}
	now := time.Now()
	_ = os.Chtimes(p.place(dir), now, now) // only for pruneLFS
	return true
}

// addLFS brings what the pointers of the commit and of its submodules point to.
func (s *Snapshot) addLFS(ctx context.Context, b *budget, progress func(string, int64, int64)) error {
	for _, sub := range s.subs {
		if err := sub.addLFS(ctx, b, progress); err != nil {
			return err
		}
	}
	pointers, odd, err := s.pointers(ctx, s.EachObject)
	if len(odd) > 0 && s.notice != nil {
		s.notice(oddWords(odd))
	}
	if err != nil || len(pointers) == 0 {
		return err
	}
	missing := map[string]*wanted{}
	var all int64
	for at, p := range pointers {
		if p.size == 0 || missing[p.oid] != nil || p.stored(s.dir) {
			continue
		}
		missing[p.oid] = &wanted{pointer: p, path: at}
		if all += p.size; p.size > b.bytes || all > b.bytes {
			return &remote.Error{Reason: remote.ReasonRepositoryTooLarge, Message: fmt.Sprintf("The files that LFS keeps are larger than the %s that a fetch may bring.", remote.Bytes(s.m.cfg.Limits.FetchBytes))}
		}
	}
	if len(missing) > 0 {
		if err := s.download(ctx, missing, all, progress); err != nil {
			return err
		}
		b.bytes -= all
		s.m.used(ctx, s.dir)
	}
	s.Replace = make(map[string]tree.Replacement, len(pointers))
	for at, p := range pointers {
		if p.size == 0 { // git-lfs asks nobody for nothing
			s.Replace[at] = tree.Replacement{Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("")), nil }}
			continue
		}
		s.Replace[at] = tree.Replacement{Size: p.size, Open: func() (io.ReadCloser, error) { return openVerified(p, s.dir) }}
	}
	return nil
}

// openVerified opens a kept object. Reading it to its end fails with ErrDamaged when it is not what
// the pointer names, and removes it, so that the next fetch brings it anew.
func openVerified(p pointer, dir string) (io.ReadCloser, error) {
	f, err := os.Open(p.place(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(program.ErrDamaged, err)
	}
	if err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	return &verified{f: f, pointer: p, sum: sha256.New()}, nil
}

type verified struct {
	f       *os.File
	pointer pointer
	sum     hash.Hash
	read    int64
}

func (v *verified) Read(b []byte) (int, error) {
	n, err := v.f.Read(b)
	v.read += int64(n)
	_, _ = v.sum.Write(b[:n])
	// A reader who knows the size may never ask for the end.
	if over := v.read > v.pointer.size; over || errors.Is(err, io.EOF) || v.read == v.pointer.size && n > 0 {
		if over || hex.EncodeToString(v.sum.Sum(nil)) != v.pointer.oid {
			_ = os.Remove(v.f.Name())
			return 0, fmt.Errorf("%w: the kept content of an LFS object is not what it was", program.ErrDamaged)
		}
	}
	return n, err
}

func (v *verified) Close() error { return v.f.Close() }

// inUse is how long after its last use an object of LFS is left alone: readers open them one by one.
const inUse = time.Hour

// pruneLFS removes kept objects, the least recently used first, until enough is freed.
func pruneLFS(dir string, enough int64) (int64, error) {
	type kept struct {
		path string
		used time.Time
		size int64
	}
	var all []kept
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			all = append(all, kept{path: path, used: info.ModTime(), size: info.Size()})
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("mirror: %w", err)
	}
	slices.SortFunc(all, func(a, b kept) int { return a.used.Compare(b.used) })
	var freed int64
	for _, k := range all {
		if freed >= enough || time.Since(k.used) < inUse {
			break
		}
		if err := os.Remove(k.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return freed, fmt.Errorf("mirror: %w", err)
		}
		freed += k.size
	}
	return freed, nil
}
