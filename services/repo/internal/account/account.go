// Package account turns a workspace into calls to Bitbucket: it asks the auth service for the
// connection's token, and for another one when Bitbucket answers 401.
package account

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/seal"
)

// minLife is how long a token must live on when an operation begins: longer than any operation
// takes, so that none asks twice.
const minLife = 5 * time.Minute

// Source opens connections. It is safe for concurrent use.
type Source struct {
	auth   authv1.AuthServiceClient
	client *bitbucket.Client
}

// NewSource makes a source of calls through client.
func NewSource(auth authv1.AuthServiceClient, client *bitbucket.Client) *Source {
	return &Source{auth: auth, client: client}
}

// Connection is a workspace's connection to Bitbucket as it is now. It is meant for one operation;
// the tokens it holds are not kept longer.
type Connection struct {
	Workspace string
	// ID changes with every connect and with what the workspace is narrowed to; what is cached belongs to it.
	ID      string
	Account *bitbucket.Account
	// NarrowedTo are the UUIDs of the Bitbucket workspaces that count; empty: all.
	NarrowedTo []string
}

// Allows tells whether a Bitbucket workspace is one that the workspace may see. One whose UUID is not known
// is not, while it is narrowed.
func (c *Connection) Allows(bitbucketWorkspace string) bool {
	return len(c.NarrowedTo) == 0 || slices.Contains(c.NarrowedTo, bitbucketWorkspace)
}

// Open asks for a token. Its errors are those of auth's IssueToken (NOT_CONNECTED,
// RECONNECT_REQUIRED, …).
func (s *Source) Open(ctx context.Context, workspace string) (*Connection, error) {
	t := &tokens{source: s, workspace: workspace}
	issued, err := t.issue(ctx, seal.Secret{})
	if err != nil {
		return nil, err
	}
	t.connection, t.current = issued.connection, issued.token
	return &Connection{
		Workspace: workspace, ID: cacheID(issued.connection, issued.narrowedTo), Account: s.client.As(t).Of(workspace), NarrowedTo: issued.narrowedTo,
	}, nil
}

// cacheID names what is cached of a connection; another narrowing has a cache of its own.
func cacheID(connection string, narrowedTo []string) string {
	if len(narrowedTo) == 0 {
		return connection
	}
	sum := sha256.Sum256([]byte(strings.Join(narrowedTo, ",")))
	return connection + "-" + hex.EncodeToString(sum[:8])
}

// tokens is the token of one operation.
type tokens struct {
	source                *Source
	workspace, connection string

	mu      sync.Mutex
	current seal.Secret
}

// Token returns the token of the operation; a rejected one is exchanged once for all who ask.
func (t *tokens) Token(ctx context.Context, rejected seal.Secret) (seal.Secret, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rejected.IsZero() || !rejected.Equal(t.current) {
		return t.current, nil
	}
	issued, err := t.issue(ctx, rejected)
	if err != nil {
		return seal.Secret{}, err
	}
	if issued.connection != t.connection {
		return seal.Secret{}, apierr.New(apierr.ReasonTokenExpired, "Bitbucket was connected anew in the meantime. Try again.")
	}
	t.current = issued.token
	return t.current, nil
}

type issued struct {
	token      seal.Secret
	connection string
	narrowedTo []string
}

// issue asks auth. Its errors keep their reasons.
func (t *tokens) issue(ctx context.Context, rejected seal.Secret) (issued, error) {
	req := &authv1.IssueTokenRequest{Workspace: t.workspace, MinLife: durationpb.New(minLife)}
	if !rejected.IsZero() {
		sum := sha256.Sum256([]byte(rejected.Reveal()))
		req.RejectedTokenSha256 = sum[:]
	}
	resp, err := t.source.auth.IssueToken(ctx, req)
	if err != nil {
		return issued{}, fmt.Errorf("issue token: %w", err)
	}
	// A token is never sent to another Bitbucket than the one it came from (DESIGN.md#running).
	if site, err := bitbucket.NewSite(resp.GetSiteUrl(), resp.GetApiUrl()); err != nil || site != t.source.client.Site() {
		return issued{}, apierr.New(apierr.ReasonReconnectRequired,
			"This connection was made with another Bitbucket site than the one Devpilot is configured for. Connect Bitbucket again.",
			apierr.WithCause(err))
	}
	return issued{token: seal.NewSecret(resp.GetAccessToken()), connection: resp.GetConnectionId(), narrowedTo: resp.GetNarrowedTo()}, nil
}
