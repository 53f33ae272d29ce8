package mirror

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/address"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/uploadpack"
)

// fetcher fills one mirror, which it holds for writing.
type fetcher struct {
	m      *Mirrors
	r      *repository
	remote string
	target target
	token  seal.Secret
	budget *budget
}

// resolve sees to it that the target is in the mirror, and returns a name of it there. Whatever the
// mirror holds already, Bitbucket has been asked when it returns.
func (f *fetcher) resolve(ctx context.Context) (string, error) {
	t := f.target
	exempt := t.commit != "" && t.known
	if exempt && f.complete(ctx, t.commit) {
		return t.commit, f.request(ctx)
	}
	if t.ref == "" {
		return t.commit, f.obtain(ctx)
	}
	local := refOf(t.ref)
	err := f.fetchRef(ctx)
	if err != nil && (!exempt || !remote.HasReason(err, string(apierr.ReasonBranchNotFound)) && !remote.HasReason(err, remote.ReasonTagNotFound)) {
		return "", err
	}
	head := ""
	if err == nil && (t.commit != "" || t.isTag()) {
		if head, err = f.peel(ctx, local); err != nil {
			return "", err
		}
	}
	switch {
	case t.commit == "":
		return local, nil
	case t.commit == head:
		return t.commit, nil
	case exempt && f.complete(ctx, t.commit):
		return t.commit, nil
	case exempt:
		return t.commit, f.obtain(ctx)
	}
	return t.commit, f.member(ctx)
}

// peel is the commit that a ref of the mirror points to.
func (f *fetcher) peel(ctx context.Context, ref string) (string, error) {
	out, err := f.m.git.Output(ctx, program.Command{Operation: "rev-parse", GitDir: f.r.git, Args: []string{"rev-parse", "--verify", "--quiet", "--end-of-options", ref + "^{commit}"}})
	hash := strings.TrimSpace(out)
	if err == nil && address.ValidHash(hash) {
		return hash, nil
	}
	if f.target.isTag() && ctx.Err() == nil {
		kind, kerr := f.m.git.Output(ctx, program.Command{Operation: "cat-file", GitDir: f.r.git, Args: []string{"cat-file", "-t", ref + "^{}"}})
		if k := strings.TrimSpace(kind); kerr == nil && k != "commit" {
			return "", &remote.Error{Reason: remote.ReasonTagNotFound, Message: fmt.Sprintf("%s points to a %s, not to a commit.", f.target.words(), k)}
		}
	}
	return "", errors.Join(program.ErrDamaged, err)
}

// fetchRef fetches the target's ref, one commit deep unless all history is wanted or there already.
func (f *fetcher) fetchRef(ctx context.Context) error {
	if f.target.full {
		// git never moves a tag that it followed by itself: one that was moved on Bitbucket would
		// stay where it was. Forgotten, it is followed again; the objects stay.
		if err := f.m.git.DeleteRefs(ctx, f.r.git, "refs/tags/"); err != nil {
			return err
		}
		if err := os.WriteFile(f.r.marker(), nil, 0o600); err != nil {
			return fmt.Errorf("mirror: %w", err)
		}
	}
	err := f.connected(ctx, f.target.ref, "", refOf(f.target.ref))
	if errors.Is(err, uploadpack.ErrVersion) {
		err = f.fetchRefByProgram(ctx)
	}
	if f.target.isTag() && remote.HasReason(err, string(apierr.ReasonBranchNotFound)) {
		return &remote.Error{Reason: remote.ReasonTagNotFound, Message: "The tag does not exist on Bitbucket.", Err: err}
	}
	return err
}

func (f *fetcher) fetchRefByProgram(ctx context.Context) error {
	options := f.depth(f.r.full())
	if !f.target.full { // with history, git brings the tags that point into it
		options = append(options, "--no-tags")
	}
	err := f.fetch(ctx, f.r.git, options, "+"+f.target.ref+":"+refOf(f.target.ref))
	if remote.HasReason(err, string(apierr.ReasonBranchNotFound)) {
		if serr := f.m.heads.SpeaksGit(ctx, f.remote, f.token); serr != nil {
			return serr
		}
	}
	return err
}

// depth are the options that bring one commit, or all history.
func (f *fetcher) depth(full bool) []string {
	switch {
	case !full:
		return []string{"--depth=1"}
	case f.r.shallow():
		return []string{"--unshallow"}
	}
	// A repository that is itself cut off on the server is taken as far as it goes.
	return []string{"--update-shallow"}
}

// fetch runs git fetch of one refspec into a repository, within the limits.
func (f *fetcher) fetch(ctx context.Context, dir string, options []string, refspec string) error {
	m := f.m
	if f.budget.bytes <= 0 {
		return fetchTooLarge(m.cfg.Limits.FetchBytes)
	}
	base := sizeOf(dir)
	args := append([]string{"fetch", "--quiet", "--no-write-fetch-head", "--no-auto-maintenance", "--no-recurse-submodules", "--no-show-forced-updates", "--refmap="}, options...)
	err := m.git.Run(ctx, program.Command{
		Operation: "fetch", GitDir: dir, Token: f.token, MostBytes: f.budget.bytes, Every: 100 * time.Millisecond,
		Watch: func() error { return f.watch(dir, base) },
		Args:  append(args, "--", f.remote, refspec),
	})
	var said *program.Failure
	if errors.As(err, &said) && strings.Contains(said.Stderr, fileTooLargeWords) {
		return fetchTooLarge(m.cfg.Limits.FetchBytes)
	}
	if err != nil {
		return program.Explain(f.target.fullName, err)
	}
	f.budget.bytes -= max(0, sizeOf(dir)-base)
	return nil
}

// fileTooLargeWords are the system's, of a file that would grow beyond command.most.
const fileTooLargeWords = "File too large"

// watch stops a fetch that grows beyond the limit or eats the disk's reserve.
func (f *fetcher) watch(dir string, base int64) error {
	if sizeOf(dir)-base > f.budget.bytes {
		return fetchTooLarge(f.m.cfg.Limits.FetchBytes)
	}
	return f.m.disk().Check(dir)
}

func fetchTooLarge(most int64) error {
	return &remote.Error{Reason: remote.ReasonRepositoryTooLarge, Message: fmt.Sprintf("The repository is larger than the %s that a fetch may bring.", remote.Bytes(most))}
}

// request asks Bitbucket for the repository, to see that the credential still reaches it.
func (f *fetcher) request(ctx context.Context) error {
	ref := f.target.ref
	if ref == "" {
		ref = "HEAD"
	}
	return f.m.heads.Reach(ctx, f.target.fullName, f.remote, f.token, ref)
}

// shallow tells whether some history is missing.
func (r *repository) shallow() bool {
	info, err := os.Stat(filepath.Join(r.git, "shallow"))
	return err == nil && info.Size() > 0
}

// marker is the file that says that this mirror keeps all history, since somebody wanted it: one
// shallow fetch would cut it again. It lives in the git directory, and goes with it.
func (r *repository) marker() string { return filepath.Join(r.git, "devpilot-full") }

func (r *repository) full() bool {
	_, err := os.Stat(r.marker())
	return err == nil
}
