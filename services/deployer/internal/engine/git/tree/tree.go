package tree

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/address"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// entry is one file of a tree as it is to be written.
type entry struct {
	Mode string // git's: 100644, 100755, 120000 (symbolic link), 160000 (a submodule's place)
	OID  string
	Size int64
	Path string
	link string // where a symbolic link points, once it was read

	Git     string       // the bare repository that holds the object
	replace *Replacement // content that stands in the object's place
}

// Modes of git.
const (
	ModeFile       = "100644"
	modeExecutable = "100755"
	ModeLink       = "120000"
	ModeSubmodule  = "160000"
	ModeTree       = "040000"
)

func (e *entry) regular() bool { return e.Mode == ModeFile || e.Mode == modeExecutable }

// Bounds that no setting moves. They keep what a tree costs in memory and in the system's own
// limits small, whatever a repository claims.
const (
	maxPath      = 3072     // of a path: leaves room for the data directory within the 4,096 bytes of a path
	maxDepth     = 256      // directories within one another
	maxPathBytes = 64 << 20 // all paths together
)

// Refuse is the error about a tree that is not written.
func Refuse(format string, args ...any) error {
	return &remote.Error{Reason: remote.ReasonTreeRefused, Message: "The commit was not deployed: " + fmt.Sprintf(format, args...)}
}

func tooLarge(format string, args ...any) error {
	return &remote.Error{Reason: remote.ReasonRepositoryTooLarge, Message: fmt.Sprintf(format, args...)}
}

// Plan is a whole tree, submodules and replaced content included, within the limits.
type Plan struct {
	root    *Tree
	Entries []entry
	bytes   int64
	dirs    int
	paths   int64 // bytes of all paths

	directory string // the app's own; empty for all
}

// List lists the snapshot's tree and refuses what must not be written, but for where symbolic
// links point: see resolve.
func (t *Tree) List(ctx context.Context) (*Plan, error) {
	if t.planned != nil {
		return t.planned, nil
	}
	p := &Plan{root: t, directory: t.Directory}
	if err := p.gather(ctx, t, ""); err != nil {
		return nil, err
	}
	if err := p.checkCollisions(); err != nil {
		return nil, err
	}
	t.planned = p
	return p, nil
}

// gather adds a snapshot's tree at prefix, which is empty or ends in a slash. The list is read as
// git prints it, so that a tree of endless size costs no more than the limit.
func (p *Plan) gather(ctx context.Context, t *Tree, prefix string) error {
	from := len(p.Entries)
	listing, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	pr, pw := io.Pipe()
	read := make(chan error, 1)
	go func() {
		err := p.read(pr, t, prefix)
		if err != nil {
			stop(err)
		}
		_ = pr.CloseWithError(err)
		read <- err
	}()
	// With -t directories are listed too: those without any file would else be walked, and cost,
	// without a limit.
	err := t.Local(listing, program.Command{Operation: "ls-tree", Stdout: pw, Args: []string{"ls-tree", "-r", "-t", "-l", "-z", "--full-tree", t.Commit}})
	_ = pw.Close()
	if rerr := <-read; rerr != nil && !errors.Is(rerr, io.ErrClosedPipe) {
		return rerr
	}
	if err != nil {
		return err
	}
	return p.graft(ctx, t, prefix, from)
}

// graft puts the trees of submodules in their places.
func (p *Plan) graft(ctx context.Context, t *Tree, prefix string, from int) error {
	for _, g := range t.Grafts {
		at := slices.IndexFunc(p.Entries[from:], func(e entry) bool { return e.Mode == ModeSubmodule && e.Path == prefix+g.Path })
		if at < 0 {
			return Refuse("it has no submodule at %q.", prefix+g.Path)
		}
		if err := p.gather(ctx, g.Tree, prefix+g.Path+"/"); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) read(r io.Reader, t *Tree, prefix string) error {
	limits := p.root.Limits
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 64<<10), 64<<10)
	sc.Split(splitNUL)
	for sc.Scan() {
		e, err := parseEntry(sc.Text())
		if err != nil {
			return err
		}
		name := e.Path
		e.Path, e.Git = prefix+e.Path, t.GitDir
		if err := CheckPath(e.Path); err != nil {
			return err
		}
		if e.Mode == ModeTree {
			if p.dirs++; p.dirs > limits.Files {
				return tooLarge("The commit has more than %d directories.", limits.Files)
			}
			continue
		}
		if r, ok := t.Replace[name]; ok && e.regular() {
			e.Size, e.replace = r.Size, &r
		}
		if e.Mode == ModeLink && e.Size > maxLink {
			return Refuse("the symbolic link %q is longer than a path may be.", e.Path)
		}
		p.Entries = append(p.Entries, e)
		p.bytes += e.Size
		p.paths += int64(len(e.Path))
		switch {
		case len(p.Entries) > limits.Files:
			return remote.TooManyFiles(limits.Files)
		case p.bytes > limits.Bytes || p.bytes < 0:
			return tooLarge("The commit's files are larger than %d MiB together.", limits.Bytes>>20)
		case p.paths > maxPathBytes:
			return tooLarge("The names of the commit's files are longer than %d MiB together.", maxPathBytes>>20)
		}
	}
	if errors.Is(sc.Err(), bufio.ErrTooLong) {
		return Refuse("it has a path longer than %d bytes.", maxPath)
	}
	return sc.Err()
}

// checkCollisions refuses a tree with two entries in one place, or with a file where another entry
// needs a directory. git's own check at the fetch refuses them too; nothing here depends on it.
func (p *Plan) checkCollisions() error {
	files := make(map[string]bool, len(p.Entries))
	for i := range p.Entries {
		e := &p.Entries[i]
		if e.Mode == ModeSubmodule {
			continue // an empty directory, or the tree that was grafted there
		}
		if files[e.Path] {
			return Refuse("it has two files called %q.", e.Path)
		}
		files[e.Path] = true
	}
	last := ""
	for i := range p.Entries {
		e := &p.Entries[i]
		dir := parent(e.Path)
		if e.Mode == ModeSubmodule {
			dir = e.Path
		}
		if dir == last {
			continue
		}
		last = dir
		for ; dir != ""; dir = parent(dir) {
			if files[dir] {
				return Refuse("%q is a file and a directory in it.", dir)
			}
		}
	}
	return nil
}

// parent is the directory of a path, empty at the top.
func parent(p string) string {
	i := strings.LastIndexByte(p, '/')
	return p[:max(i, 0)]
}

// directories are the directories of a tree, the places of submodules included.
func (p *Plan) directories() map[string]bool {
	dirs := map[string]bool{}
	last := ""
	for i := range p.Entries {
		e := &p.Entries[i]
		dir := parent(e.Path)
		if e.Mode == ModeSubmodule {
			dir = e.Path
		}
		if dir == last {
			continue
		}
		for last = dir; dir != "" && !dirs[dir]; dir = parent(dir) {
			dirs[dir] = true
		}
	}
	return dirs
}

func splitNUL(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return 0, nil, nil
}

// parseEntry reads "<mode> <type> <oid> <size>\t<path>"; the size of a
// submodule or directory is "-".
func parseEntry(line string) (entry, error) {
	head, name, ok := strings.Cut(line, "\t")
	f := strings.Fields(head)
	if !ok || len(f) != 4 || !address.ValidHash(f[2]) {
		return entry{}, fmt.Errorf("%w: cannot read git's list of files", program.ErrDamaged)
	}
	e := entry{Mode: f[0], OID: f[2], Path: name}
	switch e.Mode {
	case ModeSubmodule, ModeTree:
		return e, nil
	case ModeFile, modeExecutable, ModeLink:
	case "100664": // of old versions of git
		e.Mode = ModeFile
	default:
		return entry{}, Refuse("%q has the unknown mode %s.", name, e.Mode)
	}
	size, err := strconv.ParseInt(f[3], 10, 64)
	if err != nil || size < 0 {
		return entry{}, fmt.Errorf("%w: no size for a file", program.ErrDamaged)
	}
	e.Size = size
	return e, nil
}

// PlainPath tells whether a path is one that CheckPath takes.
func PlainPath(p string) bool { return CheckPath(p) == nil }

// CheckPath refuses names that are no plain path below the tree, and every spelling of .git that
// some file system takes for it.
func CheckPath(p string) error {
	if p == "" || strings.HasPrefix(p, "/") {
		return Refuse("it has a path that is empty or absolute.")
	}
	if len(p) > maxPath {
		return Refuse("it has a path longer than %d bytes.", maxPath)
	}
	if strings.Count(p, "/") >= maxDepth {
		return Refuse("it has directories more than %d deep.", maxDepth)
	}
	for part := range strings.SplitSeq(p, "/") {
		switch {
		case part == "" || part == "." || part == "..":
			return Refuse("the path %q does not stay where it is.", p)
		case len(part) > 255:
			return Refuse("the path %q has a name longer than 255 bytes.", p)
		case isDotGit(part):
			return Refuse("the path %q holds a name that git keeps for itself.", p)
		}
	}
	return nil
}

// isDotGit knows .git in any case, with the characters that macOS ignores, and as Windows spells
// it.
func isDotGit(name string) bool {
	plain := strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, name)
	plain = strings.ToLower(strings.TrimRight(plain, ". "))
	plain, _, _ = strings.Cut(plain, ":")
	return plain == ".git" || plain == "git~1"
}
