package remote

import (
	"context"
	"errors"
	"fmt"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal"
)

// UserAgent is how we introduce ourselves.
const UserAgent = "devpilot-deployer"

// UserName is what Bitbucket wants before an OAuth token (BITBUCKET.md#git).
const UserName = "x-token-auth"

// ErrRejected marks an answer 401 to a token that git presented.
var ErrRejected = errors.New("remote: the token was rejected")

// Tokens hands out a workspace's access token for the configured site, to be used for the repository
// of that full name. rejected is zero, or a token that Bitbucket answered 401 for, to be renewed first.
type Tokens interface {
	Token(ctx context.Context, workspace, fullName string, rejected seal.Secret) (seal.Secret, error)
}

// MaxTokens bounds how many tokens are tried one after the other.
const MaxTokens = 3

// WithToken runs fn with the token for a repository. A 401 is reported: fn is run again with what comes of
// it, another token or, because Bitbucket answers 401 now and then for nothing, once with the same.
func WithToken(ctx context.Context, tokens Tokens, workspace, fullName string, fn func(seal.Secret) error) error {
	token, err := askToken(ctx, tokens, workspace, fullName, seal.Secret{})
	if err != nil {
		return err
	}
	for n, same := 1, false; ; n++ {
		if err = fn(token); !errors.Is(err, ErrRejected) {
			return err
		}
		if same {
			return refusedHere(err)
		}
		if n == MaxTokens {
			return err
		}
		next, err := askToken(ctx, tokens, workspace, fullName, token)
		if err != nil {
			return err
		}
		same, token = next.Equal(token), next
	}
}

func askToken(ctx context.Context, tokens Tokens, workspace, fullName string, rejected seal.Secret) (seal.Secret, error) {
	token, err := tokens.Token(ctx, workspace, fullName, rejected)
	if err == nil {
		return token, nil
	}
	if ctx.Err() != nil {
		return seal.Secret{}, err
	}
	e := apierr.From(err)
	// What an admin excluded does not come by waiting.
	return seal.Secret{}, &Error{Reason: string(e.Reason()), Message: e.Message(), Temporary: e.Reason() != apierr.ReasonWorkspaceExcluded, RetryAfter: e.RetryAfter(), Err: err}
}

// refusedHere is a 401 to a token that Bitbucket accepts elsewhere: it is about the repository
// (BITBUCKET.md#git).
func refusedHere(err error) error {
	e, ok := AsError(err)
	if !ok {
		return err
	}
	what := e.About
	if what == "" {
		what = "the repository"
	}
	told := *e
	told.Reason, told.Temporary, told.Doubtful = string(apierr.ReasonAccessRefused), true, true
	told.Message = fmt.Sprintf("Bitbucket answers 401 for %s, although it accepts the connection's token elsewhere. Check at Bitbucket that the connected account may still read %s; the other repositories of the connection are not affected.", what, what)
	return &told
}
