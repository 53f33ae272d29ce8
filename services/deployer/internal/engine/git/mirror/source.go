package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/address"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/history"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// Source names what to fetch: the head of a branch or of a tag, or an exact commit of one.
type Source struct {
	Workspace  string
	Repository string // id
	FullName   string

	// Exactly one of Branch and Tag.
	Branch string
	Tag    string
	// Commit, if not empty, is the full hash of the commit wanted. It must belong to the branch or
	// tag: COMMIT_NOT_IN_BRANCH and COMMIT_GONE otherwise.
	Commit string
	// Known says that Commit was deployed from this branch or tag before: it need not belong to it
	// any more, as after a forced push, and the branch need not exist. Access is asked for all the same.
	Known bool

	// Asked is when the need for it arose, and Expected the commit that is meant to be found: what a fetch
	// after that time brought for somebody else serves as well, if it is that commit. Bitbucket is asked
	// anew where one of them is empty.
	Asked    time.Time
	Expected string

	FullHistory bool // all commits and the tags on them, for WriteGit
	Submodules  bool // trees of submodules in their places; empty directories otherwise
	// SubmoduleWorkspaces are the Bitbucket workspaces, or single repositories by their full names,
	// that submodules may come from beside the repository's own workspace; "*" for any.
	SubmoduleWorkspaces []string
	// Directory is the app's own in the repository, empty for all of it. The links in it must not
	// leave the repository; where others lead is nobody's concern.
	Directory string

	LFS bool // what pointers of LFS point to in their places; the pointers otherwise

	// Progress, if not nil, hears how far the parts beside the fetch itself are: "submodules" in
	// submodules, "lfs" in bytes. It is called from several goroutines, one at a time.
	Progress func(what string, done, all int64)
	// Notice, if not nil, is told what people should know of the commit and what fails nothing.
	Notice func(text string)
}

// remoteRef is the ref's name on Bitbucket.
func remoteRef(branch, tag string) (string, error) {
	switch {
	case branch != "" && tag != "":
		return "", fmt.Errorf("mirror: both the branch %q and the tag %q are asked for", branch, tag)
	case tag != "" && !address.ValidBranch(tag):
		return "", &remote.Error{Reason: remote.ReasonTagNotFound, Message: fmt.Sprintf("%q cannot be the name of a tag.", tag)}
	case tag != "":
		return "refs/tags/" + tag, nil
	case !address.ValidBranch(branch):
		return "", &remote.Error{Reason: string(apierr.ReasonBranchNotFound), Message: fmt.Sprintf("%q cannot be the name of a branch.", branch)}
	}
	return "refs/heads/" + branch, nil
}

// target is what one mirror is asked for.
type target struct {
	workspace string
	id        string // names the mirror's directory
	fullName  string
	ref       string // on Bitbucket: refs/heads/… or refs/tags/…; empty: whichever holds the commit
	commit    string // empty: what ref points to
	known     bool   // commit need not belong to ref
	full      bool   // with all history
	also      string // another commit of the same ref, if it can be had
}

func (t target) isTag() bool { return strings.HasPrefix(t.ref, "refs/tags/") }

// words name the ref for people: `branch "main"`.
func (t target) words() string {
	if t.isTag() {
		return fmt.Sprintf("the tag %q", strings.TrimPrefix(t.ref, "refs/tags/"))
	}
	return fmt.Sprintf("the branch %q", strings.TrimPrefix(t.ref, "refs/heads/"))
}

// Fetch brings a commit into the mirror and returns it. Bitbucket is asked with the workspace's
// credential also when the mirror holds everything, so that lost access is noticed. The snapshot
// keeps the mirror from being thrown away: close it. Errors that concern the repository are *Error.
func (m *Mirrors) Fetch(ctx context.Context, src Source) (*Snapshot, error) {
	ref, err := remoteRef(src.Branch, src.Tag)
	if err != nil {
		return nil, err
	}
	if src.Commit != "" && !address.ValidCommit(src.Commit) {
		return nil, notACommit(src.Commit)
	}
	b := &budget{bytes: m.cfg.Limits.FetchBytes}
	s, err := m.shared.get(ctx, target{
		workspace: src.Workspace, id: src.Repository, fullName: src.FullName, ref: ref, commit: src.Commit, known: src.Known, full: src.FullHistory,
	}, b, src.Asked, src.Expected)
	if err != nil {
		return nil, err
	}
	s.Directory, s.notice = src.Directory, src.Notice
	if src.Submodules {
		err = s.addSubmodules(ctx, b, src.SubmoduleWorkspaces, src.Progress)
	}
	if err == nil && src.LFS {
		err = s.addLFS(ctx, b, src.Progress)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func notACommit(commit string) error {
	return &remote.Error{Reason: remote.ReasonCommitGone, Message: fmt.Sprintf("%q is not the full hash of a commit.", commit)}
}

// budget is what one Fetch may still bring, submodules and LFS included.
type budget struct{ bytes int64 }

// bring fetches into one mirror. A failure that neither Bitbucket nor the network explains is laid
// to the mirror: it is made anew, once.
func (m *Mirrors) bring(ctx context.Context, t target, b *budget) (*Snapshot, error) {
	cloneURL, err := address.CloneURL(m.cfg.Site, t.fullName)
	if err != nil {
		return nil, remote.BadName(err)
	}
	if err := m.makeDirectories(); err != nil {
		return nil, err
	}
	if err := m.disk().Check(m.cfg.Dir); err != nil {
		return nil, err
	}
	r, err := m.openRepository(ctx, t.workspace, t.id)
	if err != nil {
		return nil, err
	}
	defer r.close()
	f := &fetcher{m: m, r: r, remote: cloneURL, target: t, budget: b}
	s, err := f.snapshot(ctx)
	if program.Mendable(err) && ctx.Err() == nil {
		m.cfg.Logger.WarnContext(ctx, "fetch failed without a known cause, mirror is made anew", slog.String(logs.KeyRepository, t.id), logs.Err(err))
		if s, err = f.anew(ctx); program.Mendable(err) && ctx.Err() == nil {
			err = program.Unexplained(err)
		}
	}
	if remote.HasReason(err, remote.ReasonRepositoryTooLarge) {
		// What came of it is half a pack; nothing of the mirror's own went.
		err = errors.Join(err, r.dropStaleLocks())
	}
	if err != nil {
		return nil, err
	}
	m.used(ctx, r.dir)
	return s, nil
}

func (f *fetcher) anew(ctx context.Context) (*Snapshot, error) {
	if err := f.r.discard(ctx); err != nil {
		return nil, err
	}
	if err := f.r.prepare(ctx); err != nil {
		return nil, err
	}
	return f.snapshot(ctx)
}

// snapshot fetches within the limits, and opens what came.
func (f *fetcher) snapshot(ctx context.Context) (*Snapshot, error) {
	limit, cancel := f.m.timed(ctx)
	defer cancel()
	var rev string
	err := remote.WithToken(limit, f.m.cfg.Tokens, f.target.workspace, f.target.fullName, func(token seal.Secret) (err error) {
		f.token = token
		if rev, err = f.resolve(limit); err == nil {
			err = f.alsoObtain(limit)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	s, err := f.m.snapshot(ctx, f.r, rev)
	if err != nil {
		return nil, err
	}
	s.target = f.target
	if f.target.full {
		if s.tags, err = history.ReadTags(ctx, &s.Tree); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// timed bounds a context by the time that a fetch may take.
func (m *Mirrors) timed(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, m.cfg.Limits.FetchTime, &remote.Error{
		Reason: string(apierr.ReasonBitbucketUnavailable), Temporary: true,
		Message: fmt.Sprintf("Fetching took longer than %v.", m.cfg.Limits.FetchTime),
	})
}

// refOf is where a mirror keeps what a ref of Bitbucket points to. It is named after the ref's hash:
// branch names nest, refs of mirrors must not.
func refOf(ref string) string {
	sum := sha256.Sum256([]byte(ref))
	return "refs/devpilot/" + hex.EncodeToString(sum[:16])
}

// commitRefs is where a mirror keeps commits that were fetched by their hash.
const commitRefs = "refs/devpilot/commits/"
