package mirror

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/address"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/uploadpack"
)

// A mirror's refs and the end of its history are files as git's documentation (gitrepository-layout)
// describes them. Nobody packs its refs, and whoever writes holds the mirror's lock.

// hashLength is that of the hashes in a mirror.
const hashLength = 40

// maxHave is how many commits a server is told of that are here already.
const maxHave = 64

// refs are the commits that branches and tags of the mirror point to, that of the named one first, then
// those that moved last.
func (r *repository) refs(first string) ([]string, error) {
	dir := filepath.Join(r.git, "refs", "devpilot")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	type moved struct {
		name string
		at   time.Time
	}
	var all []moved
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			all = append(all, moved{e.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b moved) int {
		if named := filepath.Base(first); a.name == named || b.name == named {
			return map[bool]int{true: -1, false: 1}[a.name == named]
		}
		return b.at.Compare(a.at)
	})
	var out []string
	for _, e := range all[:min(len(all), maxHave)] {
		if hash, err := r.ref("refs/devpilot/" + e.name); err == nil && !slices.Contains(out, hash) {
			out = append(out, hash)
		}
	}
	return out, nil
}

// ref is what a ref of the mirror points to.
func (r *repository) ref(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(r.git, filepath.FromSlash(name)))
	hash := strings.TrimSpace(string(b))
	if err == nil && (!address.ValidHash(hash) || len(hash) != hashLength) {
		err = fmt.Errorf("mirror: %s holds no hash", name)
	}
	return hash, err
}

// setRef has a ref point to a commit or tag, and writes down what it pointed to before.
func (r *repository) setRef(name, hash string) error {
	old, err := r.ref(name)
	if err != nil {
		old = strings.Repeat("0", hashLength)
	}
	if old == hash {
		return nil
	}
	log := filepath.Join(r.git, "logs", filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		return fmt.Errorf("mirror: %w", err)
	}
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("mirror: %w", err)
	}
	_, err = fmt.Fprintf(f, "%s %s devpilot <devpilot@localhost> %d +0000\tfetch\n", old, hash, time.Now().Unix())
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("mirror: %w", err)
	}
	return r.replace(name, hash+"\n")
}

// replace writes a file of the repository, whole or not at all.
func (r *repository) replace(name, content string) error {
	path := filepath.Join(r.git, filepath.FromSlash(name))
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.WriteFile(path+".lock", []byte(content), 0o600)
	}
	if err == nil {
		err = os.Rename(path+".lock", path)
	}
	if err != nil {
		return fmt.Errorf("mirror: %w", err)
	}
	return nil
}

// boundary are the commits of the mirror whose parents are left out.
func (r *repository) boundary() ([]string, error) {
	b, err := os.ReadFile(filepath.Join(r.git, "shallow"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	return slices.DeleteFunc(strings.Fields(string(b)), func(h string) bool { return !address.ValidHash(h) }), nil
}

// moveBoundary changes which commits those are.
func (r *repository) moveBoundary(now []string, b uploadpack.Boundary) error {
	next := append(slices.DeleteFunc(slices.Clone(now), func(h string) bool { return slices.Contains(b.Unshallow, h) }), b.Shallow...)
	slices.Sort(next)
	next = slices.Compact(next)
	if slices.Equal(next, now) {
		return nil
	}
	if len(next) == 0 {
		return os.Remove(filepath.Join(r.git, "shallow"))
	}
	return r.replace("shallow", strings.Join(next, "\n")+"\n")
}
