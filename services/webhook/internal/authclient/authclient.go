// Package authclient asks the auth service for what webhook needs of it: access tokens for the calls
// at Bitbucket, and how a workspace's integration stands.
package authclient

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/webhook/internal/registry"
)

// minLife is the least life of a token that is used: a run at Bitbucket takes less than a minute.
const minLife = 2 * time.Minute

// Client asks auth. It is safe for concurrent use.
type Client struct {
	auth authv1.AuthServiceClient
	site bitbucket.Site
	log  *slog.Logger
	now  func() time.Time
}

// New makes a client. Tokens of other sites than this one are refused: they are never sent
// elsewhere than where they come from.
func New(auth authv1.AuthServiceClient, site bitbucket.Site, log *slog.Logger, now func() time.Time) *Client {
	return &Client{auth: auth, site: site, log: log, now: now}
}

// Current returns the workspace's connection, one without an ID when there is none. A connection that
// does not work at the moment is one all the same.
func (c *Client) Current(ctx context.Context, workspace string) (registry.Connection, error) {
	resp, err := c.auth.GetIntegration(ctx, &authv1.GetIntegrationRequest{Workspace: workspace})
	if err != nil {
		return registry.Connection{}, err
	}
	in := resp.GetIntegration()
	if in.GetState() == authv1.Integration_NOT_CONNECTED {
		return registry.Connection{}, nil
	}
	connection := registry.Connection{ID: in.GetConnectionId()}
	for _, w := range in.GetNarrowedTo() {
		connection.NarrowedTo = append(connection.NarrowedTo, w.GetId())
	}
	return connection, nil
}

// Tokens is the source of a workspace's tokens, for one piece of work: it asks auth once, and again
// when Bitbucket refused what it got. place is the UUID of the Bitbucket workspace that they are used in.
func (c *Client) Tokens(workspace, place string) bitbucket.TokenSource {
	return &tokens{client: c, workspace: workspace, place: place}
}

type tokens struct {
	client    *Client
	workspace string
	place     string

	mu    sync.Mutex
	token seal.Secret
	until time.Time
}

// Token implements bitbucket.TokenSource.
func (t *tokens) Token(ctx context.Context, rejected seal.Secret) (seal.Secret, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	usable := !t.token.IsZero() && t.client.now().Before(t.until)
	if usable && (rejected.IsZero() || !rejected.Equal(t.token)) {
		return t.token, nil
	}
	req := &authv1.IssueTokenRequest{Workspace: t.workspace, MinLife: durationpb.New(minLife), BitbucketWorkspaceId: t.place}
	if !rejected.IsZero() {
		sum := sha256.Sum256([]byte(rejected.Reveal()))
		req.RejectedTokenSha256 = sum[:]
	}
	resp, err := t.client.auth.IssueToken(ctx, req)
	if err != nil {
		return seal.Secret{}, err
	}
	from, err := bitbucket.NewSite(resp.GetSiteUrl(), resp.GetApiUrl())
	if err != nil || from != t.client.site {
		t.client.log.ErrorContext(ctx, "token of another bitbucket site not used", slog.String(logs.KeyWorkspace, t.workspace), slog.String(logs.KeyURL, resp.GetApiUrl()))
		return seal.Secret{}, apierr.New(apierr.ReasonReconnectRequired, "The integration was made with another Bitbucket site than the one configured now. Connect Bitbucket again under Integrations.")
	}
	t.token, t.until = seal.NewSecret(resp.GetAccessToken()), resp.GetExpireTime().AsTime().Add(-30*time.Second)
	return t.token, nil
}
