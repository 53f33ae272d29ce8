package mirror

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
)

// Checkout writes the commit's files into an empty directory, without a .git of its own. progress,
// if not nil, hears how many of the files are written. Files have exactly the bytes of the
// commit: no filter runs, no line end is changed. ErrDamaged means that the mirror lacks objects.
func (s *Snapshot) Checkout(ctx context.Context, dir *os.Root, progress func(done, all int)) (Stats, error) {
	entries, err := s.plan(ctx)
	if err != nil {
		return Stats{}, err
	}
	if err := s.m.checkDisk(dir.Name()); err != nil {
		return Stats{}, err
	}
	if err := s.readLinks(ctx, entries); err != nil {
		return Stats{}, err
	}
	if err := checkLinks(entries); err != nil {
		return Stats{}, err
	}
	w := &writer{root: dir}
	defer w.close()
	var st Stats
	var files []entry
	for _, e := range entries {
		if e.mode == modeFile || e.mode == modeExecutable {
			files = append(files, e)
		}
	}
	err = s.blobs(ctx, files, func(i int, body io.Reader) error {
		st.Files++
		st.Bytes += files[i].size
		if progress != nil && st.Files%256 == 0 {
			progress(st.Files, len(files))
		}
		if st.Files%1024 == 0 {
			if err := s.m.checkDisk(dir.Name()); err != nil {
				return err
			}
		}
		return w.file(files[i], body)
	})
	if err != nil {
		return st, err
	}
	// Links come last: while files are written, no path leads through one.
	for _, e := range entries {
		switch e.mode {
		case modeLink:
			st.Files++
			err = w.link(e)
		case modeSubmodule:
			err = w.directory(e.path)
		}
		if err != nil {
			return st, err
		}
	}
	return st, nil
}

// readLinks fills in where the symbolic links point.
func (s *Snapshot) readLinks(ctx context.Context, entries []entry) error {
	var links []entry
	var at []int
	for i, e := range entries {
		if e.mode == modeLink {
			links, at = append(links, e), append(at, i)
		}
	}
	return s.blobs(ctx, links, func(i int, body io.Reader) error {
		b, err := io.ReadAll(io.LimitReader(body, maxLink+1))
		entries[at[i]].link = string(b)
		return err
	})
}

// blobs reads the entries' contents, in order, from one git cat-file.
func (s *Snapshot) blobs(ctx context.Context, entries []entry, each func(i int, body io.Reader) error) error {
	if len(entries) == 0 {
		return nil
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	var wg sync.WaitGroup
	var readErr error
	wg.Go(func() {
		w := bufio.NewWriter(inW)
		for _, e := range entries {
			if _, err := w.WriteString(e.oid + "\n"); err != nil {
				return // git is gone; its own error says why
			}
		}
		_ = inW.CloseWithError(w.Flush())
	})
	wg.Go(func() {
		if readErr = readBlobs(outR, entries, each); readErr != nil {
			stop(readErr)
		}
		_ = outR.CloseWithError(readErr)
	})
	err := s.local(ctx, command{operation: "cat-file", stdin: inR, stdout: outW, args: []string{"cat-file", "--batch", "--buffer"}})
	_ = inR.Close()
	_ = outW.Close()
	wg.Wait()
	if readErr != nil && !errors.Is(readErr, io.ErrUnexpectedEOF) && !errors.Is(readErr, io.EOF) {
		return readErr
	}
	if err == nil && readErr != nil {
		err = errors.Join(ErrDamaged, readErr)
	}
	return err
}

func readBlobs(r io.Reader, entries []entry, each func(int, io.Reader) error) error {
	br := bufio.NewReaderSize(r, 256<<10)
	for i, e := range entries {
		head, err := br.ReadString('\n')
		if err != nil {
			return err
		}
		f := strings.Fields(head)
		if len(f) != 3 || f[0] != e.oid || f[1] != "blob" || f[2] != strconv.FormatInt(e.size, 10) {
			return fmt.Errorf("%w: %s is %q", ErrDamaged, e.oid, strings.TrimSpace(head))
		}
		body := &io.LimitedReader{R: br, N: e.size}
		if err := each(i, body); err != nil {
			return err
		}
		if body.N > 0 {
			return io.ErrUnexpectedEOF
		}
		if b, err := br.ReadByte(); err != nil || b != '\n' {
			return errors.Join(io.ErrUnexpectedEOF, err)
		}
	}
	return nil
}

// writer writes a tree below root. It keeps the directory of the last file open: a tree is listed
// in order, and files come in runs.
type writer struct {
	root *os.Root
	dir  string
	at   *os.Root
	buf  []byte
}

func (w *writer) close() {
	if w.at != nil {
		_ = w.at.Close()
		w.at = nil
	}
}

// enter opens the directory of a path, making it if need be.
func (w *writer) enter(p string) (*os.Root, string, error) {
	dir, name := path.Split(p)
	dir = strings.TrimSuffix(dir, "/")
	if dir == "" {
		return w.root, name, nil
	}
	if w.at != nil && w.dir == dir {
		return w.at, name, nil
	}
	w.close()
	if err := w.root.MkdirAll(dir, 0o755); err != nil {
		return nil, "", err
	}
	at, err := w.root.OpenRoot(dir)
	if err != nil {
		return nil, "", err
	}
	w.at, w.dir = at, dir
	return at, name, nil
}

func (w *writer) file(e entry, body io.Reader) error {
	at, name, err := w.enter(e.path)
	if err != nil {
		return fmt.Errorf("mirror: write %q: %w", e.path, err)
	}
	mode := os.FileMode(0o644)
	if e.mode == modeExecutable {
		mode = 0o755
	}
	f, err := at.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("mirror: write %q: %w", e.path, err)
	}
	if w.buf == nil {
		w.buf = make([]byte, 128<<10)
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{body}, w.buf)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("mirror: write %q: %w", e.path, err)
	}
	return nil
}

func (w *writer) link(e entry) error {
	at, name, err := w.enter(e.path)
	if err == nil {
		err = at.Symlink(e.link, name)
	}
	if err != nil {
		return fmt.Errorf("mirror: link %q: %w", e.path, err)
	}
	return nil
}

func (w *writer) directory(p string) error {
	if err := w.root.MkdirAll(p, 0o755); err != nil {
		return fmt.Errorf("mirror: make %q: %w", p, err)
	}
	return nil
}
