package mirror

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
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/lsrefs"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// maxHeads bounds what git may say about a repository's branches and tags: some 400,000 of them.
const maxHeads = 32 << 20

type (
	// Wanted says which branches and tags are asked for.
	Wanted = remote.Wanted
	// Heads are branches and tags with their commits.
	Heads = remote.Heads
)

// listRefs asks for the refs under prefixes and gives them to list.
type listRefs func(ctx context.Context, fullName, remote string, token seal.Secret, list *headList) error

// Heads asks Bitbucket for branches and tags, in one question however many they are; those that do
// not exist are left out.
func (m *Mirrors) Heads(ctx context.Context, workspace, fullName string, want Wanted) (Heads, error) {
	remote, err := address.CloneURL(m.cfg.Site, fullName)
	if err != nil {
		return Heads{}, &Error{Reason: string(apierr.ReasonRepositoryNotFound), Message: "The repository's name is not one that Bitbucket gives.", Err: err}
	}
	list := headList{want: want, most: m.headBytes}
	if len(list.prefixes()) == 0 {
		return Heads{}, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, &Error{Reason: string(apierr.ReasonBitbucketUnavailable), Temporary: true, Message: "Bitbucket took longer than a minute to list branches."})
	defer cancel()
	err = m.withToken(ctx, workspace, func(token seal.Secret) error {
		list.begin()
		return m.listRefs(ctx, fullName, remote, token, &list)
	})
	if err != nil {
		return Heads{}, err
	}
	list.heads.Empty = !list.any
	return list.heads, nil
}

// byConnection asks over a connection that stays open. A server that does not speak version 2 of
// git's protocol is left to the git program.
func (m *Mirrors) byConnection(ctx context.Context, fullName, remote string, token seal.Secret, list *headList) error {
	begin := time.Now()
	err := m.refs.List(ctx, lsrefs.Question{Remote: remote, User: userName, Password: token.Reveal(), Prefixes: list.prefixes(), MaxBytes: int64(list.most)}, func(r lsrefs.Ref) {
		list.ref(r.Hash, r.Name)
		if r.Peeled != "" {
			list.ref(r.Peeled, r.Name+peeled)
		}
	})
	if errors.Is(err, lsrefs.ErrVersion) {
		list.begin()
		return m.byProgram(ctx, fullName, remote, token, list)
	}
	m.cfg.Observe("ls-refs", time.Since(begin), err)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return fmt.Errorf("mirror: list branches: %w", cause)
	}
	return m.explainList(fullName, token, err)
}

// explainList says what a failed list means: as git would have said it, so that one table tells the
// meaning of both.
func (m *Mirrors) explainList(fullName string, token seal.Secret, err error) error {
	var status *lsrefs.StatusError
	var refused *lsrefs.RemoteError
	said := func(text string, wait time.Duration) error {
		f := &failure{stderr: Mask(text, token), asked: true, wait: wait, err: errors.New("the list of refs was refused")}
		if err := m.explain(fullName, f); explained(err) {
			return err
		}
		return unreachable("Bitbucket", f)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, lsrefs.ErrTooLong):
		return m.explain(fullName, errors.Join(errOutput, err))
	case errors.As(err, &status):
		var text strings.Builder
		for line := range strings.Lines(status.Said) {
			fmt.Fprintf(&text, "remote: %s\n", strings.TrimSpace(line))
		}
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
		return said("fatal: remote error: "+refused.Said, 0)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM):
		return ownShortage(err)
	}
	return unreachable("Bitbucket", err)
}

// byProgram asks by git ls-remote.
func (m *Mirrors) byProgram(ctx context.Context, fullName, remote string, token seal.Secret, list *headList) error {
	args := []string{"ls-remote", "--quiet"}
	if list.want.Branch != nil {
		args = append(args, "--heads") // with these two the server is asked for nothing else
	}
	if list.want.Tag != nil {
		args = append(args, "--tags")
	}
	err := m.git.run(ctx, command{operation: "ls-remote", token: token, stdout: list, args: append(args, "--", remote)})
	if list.left < 0 {
		err = errors.Join(errOutput, err)
	}
	if err != nil {
		return m.explain(fullName, err)
	}
	if !list.any {
		return m.speaksGit(ctx, remote, token)
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
	want  Wanted
	heads Heads
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
	l.heads, l.rest, l.left, l.any = Heads{Branches: map[string]string{}, Tags: map[string]string{}}, nil, l.most, false
}

// Write implements io.Writer.
func (l *headList) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errOutput
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
	if !validCommit(hash) {
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
