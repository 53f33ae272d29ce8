package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/heads"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/uploadpack"
)

// connected brings one commit, without what came before it, over a connection that stays open: what a ref of
// Bitbucket's points to, or the commit of that hash. local is the ref of the mirror that holds it then.
//
// It is what `git fetch --depth=1` does in eight processes: of those only the one that takes the pack
// apart is started. git looks besides whether all came that the commit leads to; here whoever reads the
// commit's files finds that out, who reads them all.
//
// uploadpack.ErrVersion means that it is for the git program: what that server speaks, or all history.
func (f *fetcher) connected(ctx context.Context, ref, hash, local string) error {
	m := f.m
	if f.target.full || f.r.full() {
		return uploadpack.ErrVersion
	}
	if f.budget.bytes <= 0 {
		return fetchTooLarge(m.cfg.Limits.FetchBytes)
	}
	begin, base := time.Now(), sizeOf(f.r.git)
	err := f.ask(ctx, ref, hash, local)
	if errors.Is(err, remote.ErrRejected) { // Bitbucket answers 401 now and then for nothing; git asks twice too
		err = f.ask(ctx, ref, hash, local)
	}
	if errors.Is(err, uploadpack.ErrVersion) {
		return err
	}
	m.git.Observe("fetch", time.Since(begin), err)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return fmt.Errorf("mirror: fetch: %w", cause)
	}
	if errors.Is(err, uploadpack.ErrTooLong) {
		return fetchTooLarge(m.cfg.Limits.FetchBytes)
	}
	if err == nil {
		f.budget.bytes -= max(0, sizeOf(f.r.git)-base)
	}
	return err
}

// ask asks the server, and has what it answers put into the mirror.
func (f *fetcher) ask(ctx context.Context, ref, hash, local string) error {
	q := uploadpack.Question{Remote: f.remote, User: remote.UserName, Password: f.token.Reveal(), MaxBytes: f.budget.bytes}
	if ref != "" {
		q.Prefixes = []string{ref}
	}
	s, err := f.m.heads.Client().Open(ctx, q)
	if err == nil && s.HashLength() != hashLength {
		return uploadpack.ErrVersion // git says it best
	}
	if err == nil && ref != "" {
		err = s.List(ctx, func(r uploadpack.Ref) {
			if r.Name == ref {
				hash = r.Hash
			}
		})
	}
	switch {
	case errors.Is(err, uploadpack.ErrVersion):
		return err
	case err != nil:
		return heads.Explain(f.target.fullName, f.token, err)
	case hash == "":
		return &remote.Error{Reason: string(apierr.ReasonBranchNotFound), Message: remote.NoBranch}
	}
	have, err := f.r.refs(local)
	if err != nil {
		return err
	}
	if ref != "" && slices.Contains(have, hash) { // nothing to bring
		return f.r.setRef(local, hash)
	}
	return f.take(ctx, s, hash, have, local)
}

// take brings a commit, and then has local point to it.
func (f *fetcher) take(ctx context.Context, s *uploadpack.Session, hash string, have []string, local string) error {
	shallow, err := f.r.boundary()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var ours error // of git, or of the mirror: said better than the server's
	var moved uploadpack.Boundary
	err = s.Fetch(ctx, uploadpack.Wish{Want: hash, Have: have, Shallow: shallow}, func(b uploadpack.Boundary, pack io.Reader) error {
		moved = b
		ours = f.index(ctx, pack, stop)
		return ours
	})
	switch {
	case err == nil:
	case errors.Is(err, uploadpack.ErrVersion), errors.Is(err, uploadpack.ErrTooLong):
		return err
	case ours != nil && (errors.Is(err, ours) || remote.Explained(ours)):
		return program.Explain(f.target.fullName, ours)
	default:
		return heads.Explain(f.target.fullName, f.token, err)
	}
	// The end of history first: a ref whose commit has parents that are nowhere cannot be read.
	if err := f.r.moveBoundary(shallow, moved); err != nil {
		return err
	}
	return f.r.setRef(local, hash)
}

// index has git take a pack apart and put it into the mirror, complete with what it builds on. stop ends
// the pack.
func (f *fetcher) index(ctx context.Context, pack io.Reader, stop func()) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("mirror: %w", err)
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(w, pack) // the pack keeps its own error; git's says why it takes no more
		_ = w.Close()
	}()
	base := sizeOf(f.r.git)
	err = f.m.git.Run(ctx, program.Command{
		Operation: "index-pack", GitDir: f.r.git, Stdin: r, Every: 100 * time.Millisecond,
		Watch: func() error { return f.watch(f.r.git, base) },
		Args:  []string{"index-pack", "--stdin", "--fix-thin"},
	})
	_ = r.Close()
	if err != nil {
		stop()
	}
	<-copied
	return err
}
