package tree

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
)

// pipeSize is asked for between git and us: the two then take turns less often.
const pipeSize = 1 << 20

// blob is the content of one object. Small ones can be had at once, see take.
type blob struct {
	br   *bufio.Reader
	left int64
}

func (b *blob) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, io.EOF
	}
	n, err := b.br.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// contents hands out the contents of files: objects in order, then what stands in their places.
func (p *Plan) contents(ctx context.Context, files []*entry, low bool, each func(e *entry, body io.Reader) error) error {
	var objects, replaced []*entry
	for _, e := range files {
		if e.replace != nil {
			replaced = append(replaced, e)
		} else {
			objects = append(objects, e)
		}
	}
	if err := p.blobs(ctx, objects, low, func(e *entry, b *blob) error { return each(e, b) }); err != nil {
		return err
	}
	for _, e := range replaced {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := replacedContent(e, each); err != nil {
			return err
		}
	}
	return nil
}

func replacedContent(e *entry, each func(e *entry, body io.Reader) error) error {
	f, err := e.replace.Open()
	if err != nil {
		return fmt.Errorf("%w: content of %q: %w", program.ErrDamaged, e.Path, err)
	}
	defer func() { _ = f.Close() }()
	// One byte more would show a content that is longer than it was said to be.
	body := &io.LimitedReader{R: f, N: e.Size + 1}
	if err := each(e, body); err != nil {
		return err
	}
	if body.N != 1 {
		return fmt.Errorf("%w: the content of %q has not the size it should have", program.ErrDamaged, e.Path)
	}
	return nil
}

// blobs reads the entries' objects, from one git cat-file per repository, in order. With low it
// and git leave the processor and the disk to others.
func (p *Plan) blobs(ctx context.Context, entries []*entry, low bool, each func(e *entry, body *blob) error) error {
	for len(entries) > 0 {
		n := 1
		for n < len(entries) && entries[n].Git == entries[0].Git {
			n++
		}
		if err := p.catFile(ctx, entries[:n], low, each); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

func (p *Plan) catFile(ctx context.Context, entries []*entry, low bool, each func(e *entry, body *blob) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	outR, outW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("tree: %w", err)
	}
	_, _ = unix.FcntlInt(outW.Fd(), unix.F_SETPIPE_SZ, pipeSize) // a wish
	run := func() error {
		defer func() { _ = outW.Close() }()
		t := &Tree{Git: p.root.Git, GitDir: entries[0].Git}
		return t.Local(ctx, program.Command{Operation: "cat-file", Stdin: &requests{entries: entries}, Stdout: outW, Args: []string{"cat-file", "--batch", "--buffer"}})
	}
	var runErr error
	var wg sync.WaitGroup
	wg.Go(func() {
		if low {
			runErr = lowered(run)
		} else {
			runErr = run()
		}
	})
	readErr := readBlobs(outR, entries, each)
	if readErr != nil {
		stop(readErr)
	}
	_ = outR.Close()
	wg.Wait()
	switch {
	case readErr == nil:
		return runErr
	case !errors.Is(readErr, io.ErrUnexpectedEOF) && !errors.Is(readErr, io.EOF):
		return readErr
	case runErr != nil && !errors.Is(runErr, readErr):
		return runErr // git's own words say more
	}
	return errors.Join(program.ErrDamaged, readErr)
}

// requests is what cat-file reads: an object's id a line.
type requests struct {
	entries []*entry
	rest    []byte
}

func (r *requests) Read(p []byte) (int, error) {
	for len(r.rest) < 16<<10 && len(r.entries) > 0 {
		r.rest = append(append(r.rest, r.entries[0].OID...), '\n')
		r.entries = r.entries[1:]
	}
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func readBlobs(r io.Reader, entries []*entry, each func(e *entry, body *blob) error) error {
	br := bufio.NewReaderSize(r, 256<<10)
	for _, e := range entries {
		head, err := br.ReadString('\n')
		if err != nil {
			return err
		}
		f := strings.Fields(head)
		if len(f) != 3 || f[0] != e.OID || f[1] != "blob" {
			return fmt.Errorf("%w: %s is %q", program.ErrDamaged, e.OID, strings.TrimSpace(head))
		}
		if f[2] != strconv.FormatInt(e.Size, 10) {
			return fmt.Errorf("%w: %s has %s bytes, not %d", program.ErrDamaged, e.OID, f[2], e.Size)
		}
		body := &blob{br: br, left: e.Size}
		if err := each(e, body); err != nil {
			return err
		}
		if body.left > 0 {
			return io.ErrUnexpectedEOF
		}
		if b, err := br.ReadByte(); err != nil || b != '\n' {
			return errors.Join(io.ErrUnexpectedEOF, err)
		}
	}
	return nil
}

// lowered runs fn, and the processes that it starts, with the lowest claim to processors and disk.
// The thread that was lowered ends with it, since it could not be raised again.
func lowered(fn func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// The main thread cannot end. It is held here, so that another one is found.
			defer runtime.UnlockOSThread()
			result <- lowered(fn)
			return
		}
		// Never unlocked: the thread ends with the goroutine.
		_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19)
		_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioProcess, uintptr(unix.Gettid()), ioprioIdle)
		result <- fn()
	}()
	return <-result
}

const (
	ioprioProcess = 1       // IOPRIO_WHO_PROCESS: a thread, in fact
	ioprioIdle    = 3 << 13 // IOPRIO_CLASS_IDLE
)
