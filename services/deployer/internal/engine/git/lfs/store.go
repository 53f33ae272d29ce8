package lfs

import (
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
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
)

// place is where an object is kept.
func (p pointer) place(dir string) string {
	return filepath.Join(dir, p.oid[:2], p.oid[2:4], p.oid)
}

// stored tells whether the object is kept, and notes that it is used.
func (p pointer) stored(dir string) bool {
	info, err := os.Stat(p.place(dir))
	if err != nil || !info.Mode().IsRegular() || info.Size() != p.size {
		return false
	}
	now := time.Now()
	_ = os.Chtimes(p.place(dir), now, now) // only for Prune
	return true
}

// openVerified opens a kept object. Reading it to its end fails with ErrDamaged when it is not what
// the pointer names, and removes it, so that the next fetch brings it anew.
func openVerified(p pointer, dir string) (io.ReadCloser, error) {
	f, err := os.Open(p.place(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(program.ErrDamaged, err)
	}
	if err != nil {
		return nil, fmt.Errorf("lfs: %w", err)
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

// InUse is how long after its last use an object is left alone: readers open them one by one.
const InUse = time.Hour

// Prune removes kept objects, the least recently used first, until enough is freed.
func Prune(dir string, enough int64) (int64, error) {
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
		return 0, fmt.Errorf("lfs: %w", err)
	}
	slices.SortFunc(all, func(a, b kept) int { return a.used.Compare(b.used) })
	var freed int64
	for _, k := range all {
		if freed >= enough || time.Since(k.used) < InUse {
			break
		}
		if err := os.Remove(k.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return freed, fmt.Errorf("lfs: %w", err)
		}
		freed += k.size
	}
	return freed, nil
}
