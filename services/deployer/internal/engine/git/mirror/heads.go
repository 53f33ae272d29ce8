package mirror

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal"
)

// maxHeads bounds what git may print about a repository's branches and tags: some 400,000 of them.
const maxHeads = 32 << 20

// Wanted says which branches and tags are asked for: nil for none of the kind. The functions are
// called with each name once, by one goroutine at a time; a name they are not called with is none
// that we could deploy.
type Wanted struct{ Branch, Tag func(name string) bool }

// Heads are branches and tags with their commits, by name. An annotated tag has the commit that it
// leads to, as in a delivery (BITBUCKET.md#delivery-size).
type Heads struct {
	Branches, Tags map[string]string
	// Empty says that git listed nothing at all, wanted or not: a repository without commits, or an
	// answer that is none.
	Empty bool
}

// Heads asks Bitbucket for branches and tags, in one question however many they are; those that do
// not exist are left out.
func (m *Mirrors) Heads(ctx context.Context, workspace, fullName string, want Wanted) (Heads, error) {
	remote, err := cloneURL(m.cfg.Site, fullName)
	if err != nil {
		return Heads{}, &Error{Reason: string(apierr.ReasonRepositoryNotFound), Message: "The repository's name is not one that Bitbucket gives.", Err: err}
	}
	args := []string{"ls-remote", "--quiet"}
	if want.Branch != nil {
		args = append(args, "--heads") // with these two the server is asked for nothing else
	}
	if want.Tag != nil {
		args = append(args, "--tags")
	}
	if len(args) == 2 {
		return Heads{}, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, &Error{Reason: string(apierr.ReasonBitbucketUnavailable), Temporary: true, Message: "Bitbucket took longer than a minute to list branches."})
	defer cancel()
	list := headList{want: want, most: m.headBytes}
	err = m.withToken(ctx, workspace, func(token seal.Secret) error {
		list.begin()
		err := m.git.run(ctx, command{operation: "ls-remote", token: token, stdout: &list, args: append(args, "--", remote)})
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
	})
	if err != nil {
		return Heads{}, err
	}
	list.heads.Empty = !list.any
	return list.heads, nil
}

// headList takes what git ls-remote prints, "<hash>\t<ref>" a line, and keeps what is wanted.
type headList struct {
	want  Wanted
	heads Heads
	rest  []byte // the beginning of a line
	most  int    // bytes
	left  int
	any   bool
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
	if !validCommit(hash) {
		return
	}
	l.any = true
	if name, ok := strings.CutPrefix(ref, "refs/heads/"); ok && l.want.Branch != nil && validName(name) && l.want.Branch(name) {
		l.heads.Branches[name] = hash
		return
	}
	name, ok := strings.CutPrefix(ref, "refs/tags/")
	if !ok || l.want.Tag == nil {
		return
	}
	// What an annotated tag leads to follows the tag itself.
	if tag, peeled := strings.CutSuffix(name, "^{}"); peeled {
		if _, wanted := l.heads.Tags[tag]; wanted {
			l.heads.Tags[tag] = hash
		}
	} else if validName(name) && l.want.Tag(name) {
		l.heads.Tags[name] = hash
	}
}

// validName tells whether a branch or tag can be stored and shown, beside that git could have it.
func validName(name string) bool { return ValidBranch(name) && utf8.ValidString(name) }
