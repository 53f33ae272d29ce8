package gittest

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1" // git's name of an object
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Objects and refs are written without the git program: tests make them by the thousand, and a
// process for each costs more than all else. git reads them, and finds whatever would be wrong.

// object stores an object as git does before it packs any, and returns its name.
func (r *Repo) object(kind string, body []byte) string {
	r.t.Helper()
	all := append(fmt.Appendf(nil, "%s %d\x00", kind, len(body)), body...)
	sum := sha1.Sum(all) // git's name of an object
	name := hex.EncodeToString(sum[:])
	path := filepath.Join(r.Dir, "objects", name[:2], name[2:])
	if _, err := os.Stat(path); err == nil {
		return name
	}
	var packed bytes.Buffer
	z := zlib.NewWriter(&packed)
	_, err := z.Write(all)
	r.must(errors.Join(err, z.Close()))
	r.must(os.MkdirAll(filepath.Dir(path), 0o755))
	// Others may be reading: it appears whole.
	f, err := os.CreateTemp(filepath.Join(r.Dir, "objects"), "tmp_obj_")
	r.must(err)
	_, err = f.Write(packed.Bytes())
	r.must(errors.Join(err, f.Close(), os.Rename(f.Name(), path)))
	return name
}

func (r *Repo) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("git repository for a test: %v", err)
	}
}

// treeEntry is an entry of a tree as it is stored.
type treeEntry struct{ mode, name, id string }

// tree stores a tree of exactly these entries, in git's order: directories as if their names ended
// with a slash.
func (r *Repo) tree(entries []treeEntry) string {
	r.t.Helper()
	key := func(e treeEntry) string {
		if e.mode == "040000" {
			return e.name + "/"
		}
		return e.name
	}
	slices.SortStableFunc(entries, func(a, b treeEntry) int { return strings.Compare(key(a), key(b)) })
	var body []byte
	for _, e := range entries {
		id, err := hex.DecodeString(e.id)
		r.must(err)
		body = append(fmt.Appendf(body, "%s %s\x00", strings.TrimPrefix(e.mode, "0"), e.name), id...)
	}
	return r.object("tree", body)
}

// files stores the tree of some files (path to content).
func (r *Repo) files(files map[string]string) string {
	r.t.Helper()
	var here []treeEntry
	below := map[string]map[string]string{}
	for p, content := range files {
		dir, rest, nested := strings.Cut(p, "/")
		if !nested {
			here = append(here, treeEntry{"100644", p, r.Blob(content)})
			continue
		}
		if below[dir] == nil {
			below[dir] = map[string]string{}
		}
		below[dir][rest] = content
	}
	for dir, inner := range below {
		here = append(here, treeEntry{"040000", dir, r.files(inner)})
	}
	return r.tree(here)
}

const person = "Jane Developer <jane@example.test>"

// commit stores a commit and makes it the head of a branch.
func (r *Repo) commit(branch, tree, message string) string {
	r.t.Helper()
	text := "tree " + tree + "\n"
	if parent := r.Head(branch); parent != "" {
		text += "parent " + parent + "\n"
	}
	now := time.Now().Unix()
	text += fmt.Sprintf("author %s %d +0000\ncommitter %s %d +0000\n\n%s", person, now, person, now, message)
	hash := r.object("commit", []byte(text))
	r.Set(branch, hash)
	return hash
}

// Set points a branch at a commit.
func (r *Repo) Set(branch, hash string) {
	r.t.Helper()
	path := filepath.Join(r.Dir, "refs", "heads", filepath.FromSlash(branch))
	r.must(os.MkdirAll(filepath.Dir(path), 0o755))
	lock := path + ".lock"
	r.must(errors.Join(os.WriteFile(lock, []byte(hash+"\n"), 0o600), os.Rename(lock, path)))
}

// create makes an empty bare repository.
func (r *Repo) create() {
	r.t.Helper()
	for _, dir := range []string{"objects/info", "objects/pack", "refs/heads", "refs/tags"} {
		r.must(os.MkdirAll(filepath.Join(r.Dir, dir), 0o755))
	}
	for name, text := range map[string]string{
		"HEAD":   "ref: refs/heads/main\n",
		"config": "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n[uploadpack]\n\tallowFilter = true\n[fastimport]\n\tunpackLimit = 1\n",
	} {
		r.must(os.WriteFile(filepath.Join(r.Dir, name), []byte(text), 0o600))
	}
}

// there tells whether the repository was made.
func (r *Repo) there() bool {
	_, err := os.Stat(r.Dir)
	return !errors.Is(err, fs.ErrNotExist)
}
