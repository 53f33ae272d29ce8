package tree

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/address"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// ErrNotInTree says that a commit has no file of a name.
var ErrNotInTree = errors.New("tree: no such file in the commit")

// ReadFile returns a file of the commit. Path is relative to the tree's root, with slashes. It fails
// with ErrNotInTree when there is no file of that name, and with an *Error for what is no regular
// file, such as a symbolic link, or larger than most bytes.
func (t *Tree) ReadFile(ctx context.Context, path string, most int64) ([]byte, error) {
	if err := CheckPath(path); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotInTree, err)
	}
	o, err := t.find(ctx, path)
	if err != nil {
		return nil, err
	}
	switch {
	case o.Mode == ModeLink:
		return nil, &remote.Error{Reason: remote.ReasonTreeRefused, Message: fmt.Sprintf("%q is a symbolic link; a file is expected.", path)}
	case !strings.HasPrefix(o.Mode, "100"):
		return nil, fmt.Errorf("%w: %q is no file", ErrNotInTree, path)
	}
	if r, ok := t.Replace[path]; ok {
		return readReplacement(r, path, most)
	}
	return t.blob(ctx, o.OID, path, most)
}

// find looks a path up, directory by directory. git's own look-up trusts that trees are sorted, and
// misses names in those that are not.
func (t *Tree) find(ctx context.Context, path string) (Object, error) {
	tree, found := t.Commit, Object{Mode: ModeTree}
	for name := range strings.SplitSeq(path, "/") {
		if found.Mode != ModeTree {
			return Object{}, fmt.Errorf("%w: %q", ErrNotInTree, path)
		}
		found = Object{}
		err := t.Git.Records(ctx, program.Command{
			Operation: "ls-tree", GitDir: t.GitDir, Args: []string{"ls-tree", "-z", "--full-tree", "--end-of-options", tree},
		}, func(line string) error {
			o, err := parseObject(line)
			if err != nil || o.Path != name {
				return err
			}
			found = o
			return program.ErrEnough
		})
		if err != nil {
			return Object{}, err
		}
		if found.OID == "" {
			return Object{}, fmt.Errorf("%w: %q", ErrNotInTree, path)
		}
		tree = found.OID
	}
	return found, nil
}

func fileTooLarge(path string, most int64) error {
	return &remote.Error{Reason: remote.ReasonFileTooLarge, Message: fmt.Sprintf("%q is larger than the %s that it may have.", path, remote.Bytes(most))}
}

func readReplacement(r Replacement, path string, most int64) ([]byte, error) {
	if r.Size > most {
		return nil, fileTooLarge(path, most)
	}
	body, err := r.Open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	return io.ReadAll(body)
}

// blob is the content of an object, which is a file's at path.
func (t *Tree) blob(ctx context.Context, oid, path string, most int64) (body []byte, err error) {
	err = t.Git.Read(ctx, program.Command{
		Operation: "cat-file", GitDir: t.GitDir, Stdin: strings.NewReader(oid + "\n"), Args: []string{"cat-file", "--batch"},
	}, func(r io.Reader) error {
		br := bufio.NewReader(r)
		head, err := br.ReadString('\n')
		if err != nil {
			return err
		}
		f := strings.Fields(head)
		if len(f) != 3 || f[0] != oid || f[1] != "blob" {
			return fmt.Errorf("%w: %s is %q", program.ErrDamaged, oid, strings.TrimSpace(head))
		}
		size, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil {
			return fmt.Errorf("%w: %s has the size %q", program.ErrDamaged, oid, f[2])
		}
		if size > most {
			return fileTooLarge(path, most)
		}
		body = make([]byte, size)
		_, err = io.ReadFull(br, body)
		return err
	})
	return body, err
}

// Object is one line of git's list of a tree.
type Object struct {
	Mode string
	OID  string
	Size int64 // 0 for what has none
	Path string
}

// parseObject reads "<mode> <type> <oid> <size>\t<path>"; trees and submodules have the size "-", and
// there is none where it was not asked for.
func parseObject(line string) (Object, error) {
	head, path, ok := strings.Cut(line, "\t")
	f := strings.Fields(head)
	if !ok || len(f) < 3 || len(f) > 4 || !address.ValidHash(f[2]) {
		return Object{}, fmt.Errorf("%w: cannot read git's list of files", program.ErrDamaged)
	}
	o := Object{Mode: f[0], OID: f[2], Path: path}
	if len(f) == 3 || f[3] == "-" {
		return o, nil
	}
	size, err := strconv.ParseInt(f[3], 10, 64)
	if err != nil || size < 0 {
		return Object{}, fmt.Errorf("%w: no size for a file", program.ErrDamaged)
	}
	o.Size = size
	return o, nil
}

// EachObject lists the commit's tree, trees within it opened, as git prints it: a tree of endless
// size costs no more than the limit.
func (t *Tree) EachObject(ctx context.Context, each func(Object) error) error {
	count := 0
	return t.Git.Records(ctx, program.Command{
		Operation: "ls-tree", GitDir: t.GitDir, Args: []string{"ls-tree", "-r", "-l", "-z", "--full-tree", t.Commit},
	}, func(line string) error {
		if count++; count > t.Limits.Files {
			return remote.TooManyFiles(t.Limits.Files)
		}
		o, err := parseObject(line)
		if err != nil {
			return err
		}
		return each(o)
	})
}
