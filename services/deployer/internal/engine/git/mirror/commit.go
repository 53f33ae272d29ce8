package mirror

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/uploadpack"
)

// defaultDepths are how deep a branch is searched for a commit, step by step.
var defaultDepths = []string{"64", "1024", "16384"}

// complete tells whether the mirror holds a commit with its whole tree, and its history if wanted.
func (f *fetcher) complete(ctx context.Context, commit string) bool {
	if f.target.full && (!f.r.full() || f.r.shallow()) {
		return false
	}
	return f.whole(ctx, commit)
}

// whole tells whether the mirror holds a commit with its whole tree. It looks whether objects are
// there, not into them.
func (f *fetcher) whole(ctx context.Context, commit string) bool {
	return f.m.git.Run(ctx, program.Command{Operation: "rev-list", GitDir: f.r.git, Args: []string{"rev-list", "--quiet", "--objects", "--no-walk", "--end-of-options", commit}}) == nil
}

// ancestor tells whether the mirror's own history leads from its copy of ref to the commit. No is
// an answer only where the history is whole.
func (f *fetcher) ancestor(ctx context.Context, commit, ref string) bool {
	return f.m.git.Run(ctx, program.Command{Operation: "merge-base", GitDir: f.r.git, Args: []string{"merge-base", "--is-ancestor", "--end-of-options", commit, ref}}) == nil
}

// member brings the target's commit, if it belongs to the target's ref. The ref was just fetched.
func (f *fetcher) member(ctx context.Context) error {
	commit, local := f.target.commit, refOf(f.target.ref)
	whole := f.whole(ctx, commit)
	if whole && f.ancestor(ctx, commit, local) {
		return nil
	}
	place, err := f.locate(ctx)
	switch {
	case err != nil:
		return err
	case place.ref == "" && f.wasHead(local, commit):
		return f.gone("was taken off " + f.target.words() + " by a forced push")
	case place.ref == "" && place.cut:
		return &remote.Error{Reason: remote.ReasonCommitNotInBranch, Message: fmt.Sprintf("The commit %s is not among the last %s commits of %s.", bitbucket.ShortHash(commit), f.m.depths[len(f.m.depths)-1], f.target.words())}
	case place.ref == "":
		return &remote.Error{Reason: remote.ReasonCommitNotInBranch, Message: fmt.Sprintf("The commit %s does not belong to %s.", bitbucket.ShortHash(commit), f.target.words())}
	case whole:
		return nil
	}
	if err := f.fetchHash(ctx, commit); !errors.Is(err, errRefused) {
		return err
	}
	return f.deepen(ctx, place)
}

// obtain brings the target's commit wherever it belongs: by its hash, or, where Bitbucket does not
// give commits by hash (BITBUCKET.md#git), by fetching the branch that holds it deeply enough.
func (f *fetcher) obtain(ctx context.Context) error {
	if err := f.fetchHash(ctx, f.target.commit); !errors.Is(err, errRefused) {
		return err
	}
	place, err := f.locate(ctx)
	if err != nil {
		return err
	}
	if place.ref == "" {
		return f.gone("is not on Bitbucket any more: a forced push, or the deletion of its branch, took it away")
	}
	return f.deepen(ctx, place)
}

func (f *fetcher) gone(how string) error {
	return &remote.Error{Reason: remote.ReasonCommitGone, Message: fmt.Sprintf("The commit %s %s. Deploy another commit.", bitbucket.ShortHash(f.target.commit), how)}
}

// errRefused says that the server does not have a commit, or does not give it by its hash.
var errRefused = errors.New("mirror: the server does not give the commit by its hash")

// fetchHash fetches a commit by its hash.
func (f *fetcher) fetchHash(ctx context.Context, commit string) error {
	err := f.connected(ctx, "", commit, commitRefs+commit)
	if errors.Is(err, uploadpack.ErrVersion) {
		err = f.fetch(ctx, f.r.git, append(f.depth(f.target.full), "--no-tags"), "+"+commit+":"+commitRefs+commit)
	}
	var said *program.Failure
	if errors.As(err, &said) && (strings.Contains(said.Stderr, "not our ref") || strings.Contains(said.Stderr, "unadvertised object") || strings.Contains(said.Stderr, "couldn't find remote ref")) {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	return err
}

// deepen fetches a branch deeply enough for the target's commit to come along.
func (f *fetcher) deepen(ctx context.Context, p place) error {
	local := refOf(p.ref)
	if err := f.fetch(ctx, f.r.git, []string{"--depth=" + p.depth, "--no-tags"}, "+"+p.ref+":"+local); err != nil {
		return err
	}
	if !f.whole(ctx, f.target.commit) {
		return f.gone("was taken away while it was fetched")
	}
	return nil
}

// place is where a commit was found.
type place struct {
	ref   string // on Bitbucket; empty: nowhere
	depth string // how deep the ref must be fetched for the commit to come along
	cut   bool   // there is history that was not searched
}

// locate searches the target's ref, or all branches where it has none, for the target's commit. The
// search needs commits only; they come into a repository of their own, which goes when it is over.
// A server that cannot leave out trees sends all, within the limits.
func (f *fetcher) locate(ctx context.Context) (place, error) {
	dir, err := os.MkdirTemp(f.m.temporary(), "graph-")
	if err != nil {
		return place{}, fmt.Errorf("mirror: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	git := filepath.Join(dir, "git")
	if err := f.m.git.InitBare(ctx, git); err != nil {
		return place{}, err
	}
	refspec := "+refs/heads/*:refs/heads/*"
	if f.target.ref != "" {
		refspec = "+" + f.target.ref + ":" + f.target.ref
	}
	graph := &repository{m: f.m, git: git}
	for _, depth := range f.m.depths {
		if err := f.fetch(ctx, git, []string{"--depth=" + depth, "--filter=tree:0", "--no-tags"}, refspec); err != nil {
			return place{}, err
		}
		ref, err := f.search(ctx, git)
		if err != nil || ref != "" {
			return place{ref: ref, depth: depth}, err
		}
		if !graph.shallow() {
			return place{}, nil
		}
	}
	return place{cut: true}, nil
}

// search lists all commits of a repository up to the target's, and returns the ref that led there.
func (f *fetcher) search(ctx context.Context, git string) (string, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	pr, pw := io.Pipe()
	found := make(chan string, 1)
	go func() {
		ref := ""
		sc := bufio.NewScanner(pr)
		for sc.Scan() {
			if hash, from, _ := strings.Cut(sc.Text(), "\t"); hash == f.target.commit {
				ref = from
				stop(errFound)
				break
			}
		}
		_ = pr.CloseWithError(errFound)
		found <- ref
	}()
	err := f.m.git.Run(ctx, program.Command{Operation: "log", GitDir: git, Stdout: pw, Args: []string{"log", "--all", "--source", "--no-show-signature", "--no-color", "--no-decorate", "--format=%H%x09%S"}})
	_ = pw.Close()
	ref := <-found
	if ref != "" {
		return ref, nil
	}
	return "", err
}

var errFound = errors.New("mirror: found")

// wasHead tells whether a commit once was what a ref of the mirror points to.
func (f *fetcher) wasHead(ref, commit string) bool {
	b, err := os.ReadFile(filepath.Join(f.r.git, "logs", filepath.FromSlash(ref)))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if from, rest, ok := strings.Cut(line, " "); ok && (from == commit || strings.HasPrefix(rest, commit)) {
			return true
		}
	}
	return false
}
