package mirror

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"devpilot.io/bitbucket/pkg/seal"
)

// ErrNotInTree says that a commit has no file of a name.
var ErrNotInTree = errors.New("mirror: no such file in the commit")

// ReasonFileTooLarge is the reason of an *Error about a file that is larger than the caller reads.
const ReasonFileTooLarge = "FILE_TOO_LARGE"

// ReadFile returns a file of the commit. Path is relative to the tree's root, with slashes. It fails
// with ErrNotInTree when there is no file of that name, and with an *Error for what is no regular
// file, such as a symbolic link, or larger than most bytes.
func (s *Snapshot) ReadFile(ctx context.Context, path string, most int64) ([]byte, error) {
	if err := checkPath(path); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotInTree, err)
	}
	o, err := s.find(ctx, path)
	if err != nil {
		return nil, err
	}
	switch {
	case o.mode == modeLink:
		return nil, &Error{Reason: ReasonTreeRefused, Message: fmt.Sprintf("%q is a symbolic link; a file is expected.", path)}
	case !strings.HasPrefix(o.mode, "100"):
		return nil, fmt.Errorf("%w: %q is no file", ErrNotInTree, path)
	}
	if r, ok := s.replace[path]; ok {
		return readReplacement(r, path, most)
	}
	return s.blob(ctx, o.oid, path, most)
}

// find looks a path up, directory by directory. git's own look-up trusts that trees are sorted, and
// misses names in those that are not.
func (s *Snapshot) find(ctx context.Context, path string) (object, error) {
	tree, found := s.commit.Hash, object{mode: modeTree}
	for name := range strings.SplitSeq(path, "/") {
		if found.mode != modeTree {
			return object{}, fmt.Errorf("%w: %q", ErrNotInTree, path)
		}
		found = object{}
		err := s.m.git.records(ctx, command{
			operation: "ls-tree", gitDir: s.git, args: []string{"ls-tree", "-z", "--full-tree", "--end-of-options", tree},
		}, func(line string) error {
			o, err := parseObject(line)
			if err != nil || o.path != name {
				return err
			}
			found = o
			return errEnough
		})
		if err != nil {
			return object{}, err
		}
		if found.oid == "" {
			return object{}, fmt.Errorf("%w: %q", ErrNotInTree, path)
		}
		tree = found.oid
	}
	return found, nil
}

func fileTooLarge(path string, most int64) error {
	return &Error{Reason: ReasonFileTooLarge, Message: fmt.Sprintf("%q is larger than the %s that it may have.", path, bytesWords(most))}
}

func readReplacement(r replacement, path string, most int64) ([]byte, error) {
	if r.size > most {
		return nil, fileTooLarge(path, most)
	}
	body, err := r.open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	return io.ReadAll(body)
}

// blob is the content of an object, which is a file's at path.
func (s *Snapshot) blob(ctx context.Context, oid, path string, most int64) (body []byte, err error) {
	err = s.m.git.read(ctx, command{
		operation: "cat-file", gitDir: s.git, stdin: strings.NewReader(oid + "\n"), args: []string{"cat-file", "--batch"},
	}, func(r io.Reader) error {
		br := bufio.NewReader(r)
		head, err := br.ReadString('\n')
		if err != nil {
			return err
		}
		f := strings.Fields(head)
		if len(f) != 3 || f[0] != oid || f[1] != "blob" {
			return fmt.Errorf("%w: %s is %q", ErrDamaged, oid, strings.TrimSpace(head))
		}
		size, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil {
			return fmt.Errorf("%w: %s has the size %q", ErrDamaged, oid, f[2])
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

// object is one line of git's list of a tree.
type object struct {
	mode string
	oid  string
	size int64 // 0 for what has none
	path string
}

// parseObject reads "<mode> <type> <oid> <size>\t<path>"; trees and submodules have the size "-", and
// there is none where it was not asked for.
func parseObject(line string) (object, error) {
	head, path, ok := strings.Cut(line, "\t")
	f := strings.Fields(head)
	if !ok || len(f) < 3 || len(f) > 4 || !validHash(f[2]) {
		return object{}, fmt.Errorf("%w: cannot read git's list of files", ErrDamaged)
	}
	o := object{mode: f[0], oid: f[2], path: path}
	if len(f) == 3 || f[3] == "-" {
		return o, nil
	}
	size, err := strconv.ParseInt(f[3], 10, 64)
	if err != nil || size < 0 {
		return object{}, fmt.Errorf("%w: no size for a file", ErrDamaged)
	}
	o.size = size
	return o, nil
}

// eachObject lists the commit's tree, trees within it opened, as git prints it: a tree of endless
// size costs no more than the limit.
func (s *Snapshot) eachObject(ctx context.Context, each func(object) error) error {
	count := 0
	return s.m.git.records(ctx, command{
		operation: "ls-tree", gitDir: s.git, args: []string{"ls-tree", "-r", "-l", "-z", "--full-tree", s.commit.Hash},
	}, func(line string) error {
		if count++; count > s.m.cfg.Limits.TreeFiles {
			return &Error{Reason: ReasonRepositoryTooLarge, Message: fmt.Sprintf("The commit has more than %d files.", s.m.cfg.Limits.TreeFiles)}
		}
		o, err := parseObject(line)
		if err != nil {
			return err
		}
		return each(o)
	})
}

// errEnough ends a run of git whose output need not be read to the end.
var errEnough = errors.New("mirror: enough")

// records runs git on local objects and hands over its NUL-terminated records, of 64 KiB at most, as
// they come. each may end it early by errEnough, which is no failure.
func (g *git) records(ctx context.Context, c command, each func(string) error) error {
	return g.read(ctx, c, func(r io.Reader) error { return scanRecords(r, each) })
}

// read runs git on local objects and has fn read what it prints. An error of fn ends git and comes
// first; git's own failure, or an output that ends too soon, means a damaged mirror.
func (g *git) read(ctx context.Context, c command, fn func(io.Reader) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	pr, pw := io.Pipe()
	read := make(chan error, 1)
	go func() {
		err := fn(pr)
		if err != nil {
			stop(err)
		} else {
			_, _ = io.Copy(io.Discard, pr) // git would fail if nobody took its last byte
		}
		_ = pr.CloseWithError(err)
		read <- err
	}()
	c.stdout, c.token = pw, seal.Secret{}
	err := g.run(ctx, c)
	_ = pw.Close()
	rerr := <-read
	err = damaged(err)
	switch {
	case errors.Is(rerr, errEnough):
		return nil
	case rerr != nil && !errors.Is(rerr, io.ErrUnexpectedEOF) && !errors.Is(rerr, io.EOF):
		return rerr
	case err == nil && rerr != nil:
		return errors.Join(ErrDamaged, rerr)
	}
	return err
}

func scanRecords(r io.Reader, each func(string) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 64<<10), 64<<10)
	sc.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		if i := bytes.IndexByte(data, 0); i >= 0 {
			return i + 1, data[:i], nil
		}
		if atEOF && len(data) > 0 {
			return 0, nil, io.ErrUnexpectedEOF
		}
		return 0, nil, nil
	})
	for sc.Scan() {
		if err := each(sc.Text()); err != nil {
			return err
		}
	}
	if errors.Is(sc.Err(), bufio.ErrTooLong) {
		return &Error{Reason: ReasonTreeRefused, Message: "The commit was not deployed: it has a path, or a value in .gitmodules, longer than 64 KiB.", Err: sc.Err()}
	}
	return sc.Err()
}
