package mirror

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
)

// entry is one file of a commit's tree.
type entry struct {
	mode string // git's: 100644, 100755, 120000 (symbolic link), 160000 (submodule)
	oid  string
	size int64
	path string
	link string // where a symbolic link points
}

const (
	modeFile       = "100644"
	modeExecutable = "100755"
	modeLink       = "120000"
	modeSubmodule  = "160000"
)

// maxLink bounds the target of a symbolic link; Linux takes no longer path.
const maxLink = 4095

// refuse is the error about a tree that is not written.
func refuse(format string, args ...any) error {
	return &Error{Reason: ReasonTreeRefused, Message: "The commit was not deployed: " + fmt.Sprintf(format, args...)}
}

// plan lists the commit's tree and refuses what must not be written. The list is read as git
// prints it, so that a tree of endless size costs no more than the limit.
func (s *Snapshot) plan(ctx context.Context) ([]entry, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	pr, pw := io.Pipe()
	var entries []entry
	read := make(chan error, 1)
	go func() {
		var err error
		entries, err = s.readTree(pr)
		if err != nil {
			stop(err)
		}
		_ = pr.CloseWithError(err)
		read <- err
	}()
	err := s.local(ctx, command{operation: "ls-tree", stdout: pw, args: []string{"ls-tree", "-r", "-l", "-z", "--full-tree", s.commit.Hash}})
	_ = pw.Close()
	if rerr := <-read; rerr != nil && !errors.Is(rerr, io.ErrClosedPipe) {
		return nil, rerr
	}
	if err != nil {
		return nil, err
	}
	return entries, nil
}

func (s *Snapshot) readTree(r io.Reader) ([]entry, error) {
	limits := s.m.cfg.Limits
	var entries []entry
	var total int64
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 64<<10), 64<<10)
	sc.Split(splitNUL)
	for sc.Scan() {
		e, err := parseEntry(sc.Text())
		if err != nil {
			return nil, err
		}
		if err := checkPath(e.path); err != nil {
			return nil, err
		}
		if e.mode == modeLink && e.size > maxLink {
			return nil, refuse("the symbolic link %q is longer than a path may be.", e.path)
		}
		entries = append(entries, e)
		total += e.size
		if len(entries) > limits.TreeFiles {
			return nil, &Error{Reason: ReasonRepositoryTooLarge, Message: fmt.Sprintf("The commit has more than %d files.", limits.TreeFiles)}
		}
		if total > limits.TreeBytes {
			return nil, &Error{Reason: ReasonRepositoryTooLarge, Message: fmt.Sprintf("The commit's files are larger than %d MiB together.", limits.TreeBytes>>20)}
		}
	}
	if errors.Is(sc.Err(), bufio.ErrTooLong) {
		return nil, refuse("it has a path longer than 4,096 bytes.")
	}
	return entries, sc.Err()
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

// parseEntry reads "<mode> <type> <oid> <size>\t<path>"; a submodule's size is "-".
func parseEntry(line string) (entry, error) {
	head, name, ok := strings.Cut(line, "\t")
	f := strings.Fields(head)
	if !ok || len(f) != 4 || !validHash(f[2]) {
		return entry{}, fmt.Errorf("%w: cannot read git's list of files", ErrDamaged)
	}
	e := entry{mode: f[0], oid: f[2], path: name}
	switch e.mode {
	case modeSubmodule:
		return e, nil
	case modeFile, modeExecutable, modeLink:
	case "100664": // of old versions of git
		e.mode = modeFile
	default:
		return entry{}, refuse("%q has the unknown mode %s.", name, e.mode)
	}
	size, err := strconv.ParseInt(f[3], 10, 64)
	if err != nil || size < 0 {
		return entry{}, fmt.Errorf("%w: no size for a file", ErrDamaged)
	}
	e.size = size
	return e, nil
}

// checkPath refuses names that are no plain path below the tree, and every spelling of .git that
// some file system takes for it.
func checkPath(p string) error {
	if p == "" || len(p) > 4096 || strings.HasPrefix(p, "/") {
		return refuse("it has a path that is empty, absolute or too long.")
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

// checkLinks refuses symbolic links that leave the tree, followed as the kernel would follow them,
// through other links of the tree. Links to nothing are harmless.
func checkLinks(entries []entry) error {
	links := map[string]string{}
	for _, e := range entries {
		if e.mode == modeLink {
			links[e.path] = e.link
		}
	}
	for p, target := range links {
		if err := staysInside(links, p, target); err != nil {
			return err
		}
	}
	return nil
}

// maxFollow is how many links the kernel follows before it gives up.
const maxFollow = 40

func staysInside(links map[string]string, p, target string) error {
	if target == "" || strings.ContainsRune(target, 0) {
		return refuse("the symbolic link %q points to nothing that can be named.", p)
	}
	at := splitPath(path.Dir(p)) // never itself a link: a path below a link is no path of a tree
	rest := []string{target}
	for followed := 0; len(rest) > 0; {
		next := rest[0]
		rest = rest[1:]
		if strings.HasPrefix(next, "/") {
			return refuse("the symbolic link %q points to %q, outside the repository.", p, target)
		}
		first, more, deeper := strings.Cut(next, "/")
		if deeper {
			rest = append([]string{more}, rest...)
			if more == "" || strings.HasPrefix(more, "/") {
				rest[0] = strings.TrimLeft(more, "/")
				if rest[0] == "" {
					rest = rest[1:]
				}
			}
		}
		switch first {
		case "", ".":
			continue
		case "..":
			if len(at) == 0 {
				return refuse("the symbolic link %q points to %q, outside the repository.", p, target)
			}
			at = at[:len(at)-1]
			continue
		}
		at = append(at[:len(at):len(at)], first)
		if onward, ok := links[strings.Join(at, "/")]; ok {
			if followed++; followed > maxFollow {
				return nil // the kernel gives up too
			}
			at = at[:len(at)-1]
			rest = append([]string{onward}, rest...)
		}
	}
	return nil
}

func splitPath(p string) []string {
	if p == "." || p == "" {
		return nil
	}
	return strings.Split(p, "/")
}
