package mirror

import (
	"context"
	"fmt"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal"
)

// HeadsUnder asks Bitbucket for the heads of all branches whose names begin with prefix, which may
// be empty.
func (m *Mirrors) HeadsUnder(ctx context.Context, workspace, fullName, prefix string) (map[string]string, error) {
	remote, err := cloneURL(m.cfg.Site, fullName)
	if err != nil {
		return nil, &Error{Reason: string(apierr.ReasonRepositoryNotFound), Message: "The repository's name is not one that Bitbucket gives.", Err: err}
	}
	if prefix != "" && !ValidBranch(prefix+"x") {
		return nil, &Error{Reason: string(apierr.ReasonBranchNotFound), Message: fmt.Sprintf("No branch's name can begin with %q.", prefix)}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, &Error{Reason: string(apierr.ReasonBitbucketUnavailable), Temporary: true, Message: "Bitbucket took longer than a minute to list branches."})
	defer cancel()
	heads := map[string]string{}
	err = m.withToken(ctx, workspace, func(token seal.Secret) error {
		out, err := m.git.output(ctx, command{operation: "ls-remote", token: token, args: []string{"ls-remote", "--quiet", "--", remote, "refs/heads/" + prefix + "*"}})
		if err != nil {
			return m.explain(fullName, err)
		}
		clear(heads)
		for line := range strings.Lines(out) {
			hash, ref, _ := strings.Cut(strings.TrimSpace(line), "\t")
			if b, ok := strings.CutPrefix(ref, "refs/heads/"+prefix); ok && validHash(hash) {
				heads[prefix+b] = hash
			}
		}
		if len(heads) == 0 {
			return m.speaksGit(ctx, remote, token)
		}
		return nil
	})
	return heads, err
}
