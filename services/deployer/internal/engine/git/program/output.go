package program

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// ErrEnough ends a run of git whose output need not be read to the end.
var ErrEnough = errors.New("program: enough")

// maxField bounds one record of git's output, in bytes: a path, or a value of .gitmodules.
const maxField = 64 << 10

// Records runs git on local objects and hands over its NUL-terminated records, of maxField at most, as
// they come. each may end it early by errEnough, which is no failure.
func (g *Git) Records(ctx context.Context, c Command, each func(string) error) error {
	return g.Read(ctx, c, func(r io.Reader) error { return scanRecords(r, each) })
}

// Read runs git on local objects and has fn read what it prints. An error of fn ends git and comes
// first; git's own failure, or an output that ends too soon, means a damaged mirror.
func (g *Git) Read(ctx context.Context, c Command, fn func(io.Reader) error) error {
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
	c.Stdout, c.Token = pw, seal.Secret{}
	err := g.Run(ctx, c)
	_ = pw.Close()
	rerr := <-read
	err = LocalFailure(err)
	switch {
	case errors.Is(rerr, ErrEnough):
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
	sc.Buffer(make([]byte, 0, maxField), maxField)
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
		return &remote.Error{Reason: remote.ReasonTreeRefused, Message: fmt.Sprintf("The commit was not deployed: it has a path, or a value in .gitmodules, longer than %d KiB.", maxField>>10), Err: sc.Err()}
	}
	return sc.Err()
}
