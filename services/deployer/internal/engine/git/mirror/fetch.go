package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal"
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
		return t.commit, f.ask(ctx)
	}
	if t.ref == "" {
		return t.commit, f.obtain(ctx)
	}
	local := refOf(t.ref)
	err := f.fetchRef(ctx)
	if err != nil && (!exempt || !hasReason(err, string(apierr.ReasonBranchNotFound)) && !hasReason(err, ReasonTagNotFound)) {
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
	out, err := f.m.git.output(ctx, command{operation: "rev-parse", gitDir: f.r.git, args: []string{"rev-parse", "--verify", "--quiet", "--end-of-options", ref + "^{commit}"}})
	hash := strings.TrimSpace(out)
	if err == nil && validHash(hash) {
		return hash, nil
	}
	if f.target.isTag() && ctx.Err() == nil {
		kind, kerr := f.m.git.output(ctx, command{operation: "cat-file", gitDir: f.r.git, args: []string{"cat-file", "-t", ref + "^{}"}})
		if k := strings.TrimSpace(kind); kerr == nil && k != "commit" {
			return "", &Error{Reason: ReasonTagNotFound, Message: fmt.Sprintf("%s points to a %s, not to a commit.", f.target.words(), k)}
		}
	}
	return "", errors.Join(ErrDamaged, err)
}

// fetchRef fetches the target's ref, one commit deep unless all history is wanted or there already.
func (f *fetcher) fetchRef(ctx context.Context) error {
	if f.target.full {
		// git never moves a tag that it followed by itself: one that was moved on Bitbucket would
		// stay where it was. Forgotten, it is followed again; the objects stay.
		if err := f.m.git.deleteRefs(ctx, f.r.git, "refs/tags/"); err != nil {
			return err
		}
		if err := os.WriteFile(f.r.marker(), nil, 0o600); err != nil {
			return fmt.Errorf("mirror: %w", err)
		}
	}
	options := f.depth(f.r.full())
	if !f.target.full { // with history, git brings the tags that point into it
		options = append(options, "--no-tags")
	}
	err := f.fetch(ctx, f.r.git, options, "+"+f.target.ref+":"+refOf(f.target.ref))
	if hasReason(err, string(apierr.ReasonBranchNotFound)) {
		if serr := f.m.speaksGit(ctx, f.remote, f.token); serr != nil {
			return serr
		}
	}
	if f.target.isTag() && hasReason(err, string(apierr.ReasonBranchNotFound)) {
		return &Error{Reason: ReasonTagNotFound, Message: "The tag does not exist on Bitbucket.", Err: err}
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
	err := m.git.run(ctx, command{
		operation: "fetch", gitDir: dir, token: f.token, most: f.budget.bytes, every: 100 * time.Millisecond,
		watch: func() error { return f.watch(dir, base) },
		args:  append(args, "--", f.remote, refspec),
	})
	var said *failure
	if errors.As(err, &said) && strings.Contains(said.stderr, fileTooLargeWords) {
		return fetchTooLarge(m.cfg.Limits.FetchBytes)
	}
	if err != nil {
		return m.explain(f.target.fullName, err)
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
	return f.m.checkDisk(dir)
}

func fetchTooLarge(most int64) error {
	return &Error{Reason: ReasonRepositoryTooLarge, Message: fmt.Sprintf("The repository is larger than the %s that a fetch may bring.", bytesWords(most))}
}

// bytesWords is a number of bytes for people.
func bytesWords(n int64) string {
	switch {
	case n >= 1<<20:
		return strconv.FormatInt(n>>20, 10) + " MiB"
	case n >= 1<<10:
		return strconv.FormatInt(n>>10, 10) + " KiB"
	}
	return strconv.FormatInt(n, 10) + " bytes"
}

// ask asks Bitbucket for the repository, to see that the credential still reaches it.
func (f *fetcher) ask(ctx context.Context) error {
	ref := f.target.ref
	if ref == "" {
		ref = "HEAD"
	}
	_, err := f.m.lsRemote(ctx, f.target.fullName, f.remote, f.token, ref)
	return err
}

// speaksGit tells whether it was git that answered. git takes a page of any kind, such as one that
// says that Bitbucket is down for maintenance, for an old server's list of no refs; so that a ref
// that seems not to exist is worth a second look.
func (m *Mirrors) speaksGit(ctx context.Context, remote string, token seal.Secret) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Limits.StallTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, remote+"/info/refs?service=git-upload-pack", http.NoBody)
	if err != nil {
		return fmt.Errorf("mirror: %w", err)
	}
	req.SetBasicAuth(userName, token.Reveal())
	req.Header.Set("User-Agent", agent)
	req.Header.Set("Git-Protocol", "version=2")
	res, err := m.lfs.http.Do(req)
	if err != nil {
		return unreachable("Bitbucket", err)
	}
	_ = res.Body.Close()
	if kind := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || kind != "application/x-git-upload-pack-advertisement" {
		return unreachable("Bitbucket", fmt.Errorf("status %d with content of the type %q is no answer of git", res.StatusCode, clean(kind)))
	}
	return nil
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
