package heads

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/address"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/uploadpack"
)

// maxHeads bounds what git may say about a repository's branches and tags: some 400,000 of them.
const maxHeads = 32 << 20

// listRefs asks for the refs under prefixes and gives them to list.
type listRefs func(ctx context.Context, fullName, cloneURL string, token seal.Secret, list *headList) error

// Lister asks Bitbucket. It is safe for concurrent use.
type Lister struct {
	git      *program.Git
	tokens   remote.Tokens
	refs     *uploadpack.Client
	list     listRefs // byConnection
	maxBytes int      // of an answer
}

// New makes a lister that asks git's site, and leaves to git what only git speaks.
func New(git *program.Git, tokens remote.Tokens) *Lister {
	l := &Lister{git: git, tokens: tokens, refs: uploadpack.New(remote.UserAgent, git.StallTime), maxBytes: maxHeads}
	l.list = l.byConnection
	return l
}

// Heads asks Bitbucket for branches and tags, in one question however many they are; those that do
// not exist are left out.
func (l *Lister) Heads(ctx context.Context, workspace, fullName string, want remote.Wanted) (remote.Heads, error) {
	cloneURL, err := address.CloneURL(l.git.Site, fullName)
	if err != nil {
		return remote.Heads{}, remote.BadName(err)
	}
	list := headList{want: want, most: l.maxBytes}
	if len(list.prefixes()) == 0 {
		return remote.Heads{}, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, &remote.Error{Reason: string(apierr.ReasonBitbucketUnavailable), Temporary: true, Message: "Bitbucket took longer than a minute to list branches."})
	defer cancel()
	err = remote.WithToken(ctx, l.tokens, workspace, fullName, func(token seal.Secret) error {
		list.begin()
		return l.list(ctx, fullName, cloneURL, token, &list)
	})
	if err != nil {
		return remote.Heads{}, err
	}
	list.heads.Empty = !list.any
	return list.heads, nil
}

// maxDistance bounds what is read of an answer about commits alone.
const maxDistance = 64 << 10

// ErrNoDistance says that the server does not tell how many commits are between two.
var ErrNoDistance = errors.New("heads: the server does not count commits")

// Distance asks Bitbucket how far a commit is from an older one, in two questions that bring nothing of the
// repository's files.
func (l *Lister) Distance(ctx context.Context, workspace, fullName, older, newer string) (d uploadpack.Distance, err error) {
	cloneURL, err := address.CloneURL(l.git.Site, fullName)
	if err != nil {
		return d, fmt.Errorf("heads: count commits: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, l.git.StallTime)
	defer cancel()
	err = remote.WithToken(ctx, l.tokens, workspace, fullName, func(token seal.Secret) error {
		begin := time.Now()
		s, err := l.refs.Open(ctx, uploadpack.Question{Remote: cloneURL, User: remote.UserName, Password: token.Reveal(), MaxBytes: maxDistance})
		if err == nil {
			d, err = s.Distance(ctx, older, newer)
		}
		if errors.Is(err, uploadpack.ErrVersion) {
			return ErrNoDistance
		}
		l.git.Observe("distance", time.Since(begin), err)
		return Explain(fullName, token, err)
	})
	return d, err
}

// byConnection asks over a connection that stays open. A server that does not speak version 2 of
// git's protocol is left to the git program.
func (l *Lister) byConnection(ctx context.Context, fullName, cloneURL string, token seal.Secret, list *headList) error {
	begin := time.Now()
	err := l.refs.List(ctx, uploadpack.Question{Remote: cloneURL, User: remote.UserName, Password: token.Reveal(), Prefixes: list.prefixes(), MaxBytes: int64(list.most)}, func(r uploadpack.Ref) {
		list.ref(r.Hash, r.Name)
		if r.Peeled != "" {
			list.ref(r.Peeled, r.Name+peeled)
		}
	})
	if errors.Is(err, uploadpack.ErrVersion) {
		list.begin()
		return l.byProgram(ctx, fullName, cloneURL, token, list)
	}
	l.git.Observe("ls-refs", time.Since(begin), err)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return fmt.Errorf("heads: list branches: %w", cause)
	}
	return Explain(fullName, token, err)
}

// Client is what asks, for whoever has more to ask.
func (l *Lister) Client() *uploadpack.Client { return l.refs }

// Explain says what a failed answer means: as git would have said it, so that one table tells the
// meaning of both.
func Explain(fullName string, token seal.Secret, err error) error {
	var status *uploadpack.StatusError
	var refused *uploadpack.RemoteError
	said := func(text string, wait time.Duration) error {
		f := &program.Failure{Stderr: remote.Mask(text, token), Asked: true, Wait: wait, Err: errors.New("the question was refused")}
		if err := program.Explain(fullName, f); remote.Explained(err) {
			return err
		}
		return remote.Unreachable("Bitbucket", f)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, uploadpack.ErrTooLong):
		return program.Explain(fullName, errors.Join(program.ErrOutput, err))
	case errors.As(err, &status):
		var text strings.Builder
		text.WriteString(passedOn(status.Said))
		switch status.Status {
		case http.StatusUnauthorized:
			text.WriteString("fatal: Authentication failed")
		case http.StatusNotFound, http.StatusGone:
			text.WriteString("fatal: repository not found")
		default:
			fmt.Fprintf(&text, "fatal: unable to access the repository: The requested URL returned error: %d", status.Status)
		}
		return said(text.String(), bitbucket.RetryAfter(status.Header, time.Now()))
	case errors.As(err, &refused):
		return said(passedOn(refused.Before)+"fatal: remote error: "+refused.Said, 0)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM):
		return program.OwnShortage(err)
	}
	return remote.Unreachable("Bitbucket", err)
}

// passedOn is how git shows what a server said to people.
func passedOn(said string) string {
	var text strings.Builder
	for line := range strings.Lines(said) {
		fmt.Fprintf(&text, "remote: %s\n", strings.TrimSpace(line))
	}
	return text.String()
}

// byProgram asks by git ls-remote.
func (l *Lister) byProgram(ctx context.Context, fullName, cloneURL string, token seal.Secret, list *headList) error {
	args := []string{"ls-remote", "--quiet"}
	if list.want.Branch != nil {
		args = append(args, "--heads") // with these two the server is asked for nothing else
	}
	if list.want.Tag != nil {
		args = append(args, "--tags")
	}
	err := l.git.Run(ctx, program.Command{Operation: "ls-remote", Token: token, Stdout: list, Args: append(args, "--", cloneURL)})
	if list.left < 0 {
		err = errors.Join(program.ErrOutput, err)
	}
	if err != nil {
		return program.Explain(fullName, err)
	}
	if !list.any {
		return l.SpeaksGit(ctx, cloneURL, token)
	}
	return nil
}

// Reach asks for a ref, to see that the token still reaches the repository.
func (l *Lister) Reach(ctx context.Context, fullName, cloneURL string, token seal.Secret, ref string) error {
	begin := time.Now()
	err := l.refs.List(ctx, uploadpack.Question{Remote: cloneURL, User: remote.UserName, Password: token.Reveal(), Prefixes: []string{ref}, MaxBytes: maxHeads}, func(uploadpack.Ref) {})
	if errors.Is(err, uploadpack.ErrVersion) {
		return l.reachByProgram(ctx, fullName, cloneURL, token, ref)
	}
	l.git.Observe("ls-refs", time.Since(begin), err)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return fmt.Errorf("heads: reach the repository: %w", cause)
	}
	return Explain(fullName, token, err)
}

func (l *Lister) reachByProgram(ctx context.Context, fullName, cloneURL string, token seal.Secret, ref string) error {
	out, err := l.git.Output(ctx, program.Command{Operation: "ls-remote", Token: token, Args: []string{"ls-remote", "--quiet", "--", cloneURL, ref}})
	if err != nil {
		return program.Explain(fullName, err)
	}
	for line := range strings.Lines(out) {
		// A pattern also matches refs/heads/x/refs/heads/<branch>.
		if hash, name, _ := strings.Cut(strings.TrimSpace(line), "\t"); name == ref && address.ValidHash(hash) {
			return nil
		}
	}
	return l.SpeaksGit(ctx, cloneURL, token)
}

// SpeaksGit fails unless it is git that answers. The git program takes a page of any kind, such as one that
// says that Bitbucket is down for maintenance, for an old server's list of no refs: a ref that seems not to
// exist calls for a second question.
func (l *Lister) SpeaksGit(ctx context.Context, cloneURL string, token seal.Secret) error {
	ctx, cancel := context.WithTimeout(ctx, l.git.StallTime)
	defer cancel()
	if err := l.refs.SpeaksGit(ctx, uploadpack.Question{Remote: cloneURL, User: remote.UserName, Password: token.Reveal()}); err != nil {
		return remote.Unreachable("Bitbucket", err)
	}
	return nil
}

const (
	heads  = "refs/heads/"
	tags   = "refs/tags/"
	peeled = "^{}" // after the name of an annotated tag stands what it leads to
)

// headList takes refs, also as git ls-remote prints them, "<hash>\t<ref>" a line, and keeps what is
// wanted.
type headList struct {
	want  remote.Wanted
	heads remote.Heads
	rest  []byte // the beginning of a line
	most  int    // bytes
	left  int
	any   bool
}

func (l *headList) prefixes() (out []string) {
	if l.want.Branch != nil {
		out = append(out, heads)
	}
	if l.want.Tag != nil {
		out = append(out, tags)
	}
	return out
}

func (l *headList) begin() {
	l.heads, l.rest, l.left, l.any = remote.Heads{Branches: map[string]string{}, Tags: map[string]string{}}, nil, l.most, false
}

// Write implements io.Writer.
func (l *headList) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, program.ErrOutput
	}
	l.rest = append(l.rest, p...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			l.rest = append(l.rest[:0:0], l.rest...) // the lines before it are let go
			return len(p), nil
		}
		l.rest = rest
		l.line(string(line))
	}
}

func (l *headList) line(line string) {
	hash, ref, _ := strings.Cut(line, "\t")
	l.ref(hash, ref)
}

func (l *headList) ref(hash, ref string) {
	if !address.ValidCommit(hash) {
		return
	}
	l.any = true
	if name, ok := strings.CutPrefix(ref, heads); ok && l.want.Branch != nil && validName(name) && l.want.Branch(name) {
		l.heads.Branches[name] = hash
		return
	}
	name, ok := strings.CutPrefix(ref, tags)
	if !ok || l.want.Tag == nil {
		return
	}
	// What an annotated tag leads to follows the tag itself.
	if tag, ok := strings.CutSuffix(name, peeled); ok {
		if _, wanted := l.heads.Tags[tag]; wanted {
			l.heads.Tags[tag] = hash
		}
	} else if validName(name) && l.want.Tag(name) {
		l.heads.Tags[name] = hash
	}
}

// validName tells whether a branch or tag can be stored and shown, beside that git could have it.
func validName(name string) bool { return address.ValidBranch(name) && utf8.ValidString(name) }
