package mirror

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
	mode string // git's: 100644, 100755, 120000 (symbolic link), 160000 (a submodule's place)
	oid  string
	size int64
	path string
	link string // where a symbolic link points, once it was read

	git     string       // the bare repository that holds the object
	replace *replacement // content that stands in the object's place
}

const (
	modeFile       = "100644"
	modeExecutable = "100755"
	modeLink       = "120000"
	modeSubmodule  = "160000"
	modeTree       = "040000"
)

func (e *entry) regular() bool { return e.mode == modeFile || e.mode == modeExecutable }

// Bounds that no setting moves. They keep what a tree costs in memory and in the system's own
// limits small, whatever a repository claims.
const (
	maxPath      = 3072     // of a path: leaves room for the data directory within the 4,096 bytes of a path
	maxDepth     = 256      // directories within one another
	maxPathBytes = 64 << 20 // all paths together
)

// refuse is the error about a tree that is not written.
func refuse(format string, args ...any) error {
	return &remote.Error{Reason: remote.ReasonTreeRefused, Message: "The commit was not deployed: " + fmt.Sprintf(format, args...)}
}

func tooLarge(format string, args ...any) error {
	return &remote.Error{Reason: remote.ReasonRepositoryTooLarge, Message: fmt.Sprintf(format, args...)}
}

// plan is a whole tree, submodules and replaced content included, within the limits.
type plan struct {
	m       *Mirrors
	entries []entry
	bytes   int64
	dirs    int
	paths   int64 // bytes of all paths

	directory string // the app's own; empty for all
}

// list lists the snapshot's tree and refuses what must not be written, but for where symbolic
// links point: see resolve.
func (s *Snapshot) list(ctx context.Context) (*plan, error) {
	if s.planned != nil {
		return s.planned, nil
	}
	p := &plan{m: s.m, directory: s.directory}
	if err := p.gather(ctx, s, ""); err != nil {
		return nil, err
	}
	if err := p.checkCollisions(); err != nil {
		return nil, err
	}
	s.planned = p
	return p, nil
}

// gather adds a snapshot's tree at prefix, which is empty or ends in a slash. The list is read as
// git prints it, so that a tree of endless size costs no more than the limit.
func (p *plan) gather(ctx context.Context, s *Snapshot, prefix string) error {
	from := len(p.entries)
	listing, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	pr, pw := io.Pipe()
	read := make(chan error, 1)
	go func() {
		err := p.read(pr, s, prefix)
		if err != nil {
			stop(err)
		}
		_ = pr.CloseWithError(err)
		read <- err
	}()
	// With -t directories are listed too: those without any file would else be walked, and cost,
	// without a limit.
	err := s.local(listing, program.Command{Operation: "ls-tree", Stdout: pw, Args: []string{"ls-tree", "-r", "-t", "-l", "-z", "--full-tree", s.commit.Hash}})
	_ = pw.Close()
	if rerr := <-read; rerr != nil && !errors.Is(rerr, io.ErrClosedPipe) {
		return rerr
	}
	if err != nil {
		return err
	}
	return p.graft(ctx, s, prefix, from)
}

// graft puts the trees of submodules in their places.
func (p *plan) graft(ctx context.Context, s *Snapshot, prefix string, from int) error {
	for _, g := range s.grafts {
		at := slices.IndexFunc(p.entries[from:], func(e entry) bool { return e.mode == modeSubmodule && e.path == prefix+g.path })
		if at < 0 {
			return refuse("it has no submodule at %q.", prefix+g.path)
		}
		if err := p.gather(ctx, g.snap, prefix+g.path+"/"); err != nil {
			return err
		}
	}
	return nil
}

func (p *plan) read(r io.Reader, s *Snapshot, prefix string) error {
	limits := p.m.cfg.Limits
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 64<<10), 64<<10)
	sc.Split(splitNUL)
	for sc.Scan() {
		e, err := parseEntry(sc.Text())
		if err != nil {
			return err
		}
		name := e.path
		e.path, e.git = prefix+e.path, s.git
		if err := checkPath(e.path); err != nil {
			return err
		}
		if e.mode == modeTree {
			if p.dirs++; p.dirs > limits.TreeFiles {
				return tooLarge("The commit has more than %d directories.", limits.TreeFiles)
			}
			continue
		}
		if r, ok := s.replace[name]; ok && e.regular() {
			e.size, e.replace = r.size, &r
		}
		if e.mode == modeLink && e.size > maxLink {
			return refuse("the symbolic link %q is longer than a path may be.", e.path)
		}
		p.entries = append(p.entries, e)
		p.bytes += e.size
		p.paths += int64(len(e.path))
		switch {
		case len(p.entries) > limits.TreeFiles:
			return tooLarge("The commit has more than %d files.", limits.TreeFiles)
		case p.bytes > limits.TreeBytes || p.bytes < 0:
			return tooLarge("The commit's files are larger than %d MiB together.", limits.TreeBytes>>20)
		case p.paths > maxPathBytes:
			return tooLarge("The names of the commit's files are longer than %d MiB together.", maxPathBytes>>20)
		}
	}
	if errors.Is(sc.Err(), bufio.ErrTooLong) {
		return refuse("it has a path longer than %d bytes.", maxPath)
	}
	return sc.Err()
}

// checkCollisions refuses a tree with two entries in one place, or with a file where another entry
// needs a directory. git's own check at the fetch refuses them too; nothing here depends on it.
func (p *plan) checkCollisions() error {
	files := make(map[string]bool, len(p.entries))
	for i := range p.entries {
		e := &p.entries[i]
		if e.mode == modeSubmodule {
			continue // an empty directory, or the tree that was grafted there
		}
		if files[e.path] {
			return refuse("it has two files called %q.", e.path)
		}
		files[e.path] = true
	}
	last := ""
	for i := range p.entries {
		e := &p.entries[i]
		dir := parent(e.path)
		if e.mode == modeSubmodule {
			dir = e.path
		}
		if dir == last {
			continue
		}
		last = dir
		for ; dir != ""; dir = parent(dir) {
			if files[dir] {
				return refuse("%q is a file and a directory in it.", dir)
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
func (p *plan) directories() map[string]bool {
	dirs := map[string]bool{}
	last := ""
	for i := range p.entries {
		e := &p.entries[i]
		dir := parent(e.path)
		if e.mode == modeSubmodule {
			dir = e.path
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
	e := entry{mode: f[0], oid: f[2], path: name}
	switch e.mode {
	case modeSubmodule, modeTree:
		return e, nil
	case modeFile, modeExecutable, modeLink:
	case "100664": // of old versions of git
		e.mode = modeFile
	default:
		return entry{}, refuse("%q has the unknown mode %s.", name, e.mode)
	}
	size, err := strconv.ParseInt(f[3], 10, 64)
	if err != nil || size < 0 {
		return entry{}, fmt.Errorf("%w: no size for a file", program.ErrDamaged)
	}
	e.size = size
	return e, nil
}

func plainPath(p string) bool { return checkPath(p) == nil }

// checkPath refuses names that are no plain path below the tree, and every spelling of .git that
// some file system takes for it.
func checkPath(p string) error {
	if p == "" || strings.HasPrefix(p, "/") {
		return refuse("it has a path that is empty or absolute.")
	}
	if len(p) > maxPath {
		return refuse("it has a path longer than %d bytes.", maxPath)
	}
	if strings.Count(p, "/") >= maxDepth {
		return refuse("it has directories more than %d deep.", maxDepth)
	}
	for part := range strings.SplitSeq(p, "/") {
		switch {
		case part == "" || part == "." || part == "..":
			return refuse("the path %q does not stay where it is.", p)
		case len(part) > 255:
			return refuse("the path %q has a name longer than 255 bytes.", p)
		case isDotGit(part):
			return refuse("the path %q holds a name that git keeps for itself.", p)
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
