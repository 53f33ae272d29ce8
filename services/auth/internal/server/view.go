package server

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/auth/internal/scope"
	"devpilot.io/bitbucket/services/auth/internal/status"
	"devpilot.io/bitbucket/services/auth/internal/store"
)

// unansweredAfter is how long a handshake may go without an answer before we say what the page in
// front of the person most likely shows (DESIGN.md#connect).
const unansweredAfter = 2 * time.Minute

// view is the integration as the API shows it; rec is nil while nobody is connected.
func (s *Server) view(ctx context.Context, workspace string, rec *authstorev1.Integration, n *authstorev1.Narrowing) *authv1.Integration {
	v := s.resource(workspace, rec, n)
	v.Etag = etag(v)
	// Not part of the resource: it comes and goes with Redis and with time.
	v.PendingHandshake = s.pending(ctx, workspace)
	return v
}

// narrowing is nil where the workspace is not narrowed. It is read before anything is changed: what has
// been done is never answered with an error.
func (s *Server) narrowing(ctx context.Context, workspace string) (*authstorev1.Narrowing, error) {
	n, err := s.cfg.Narrowings.Get(ctx, workspace)
	if err != nil {
		return nil, fmt.Errorf("read what workspace %s is narrowed to: %w", workspace, kv.ToAPI(err))
	}
	return n, nil
}

func (s *Server) resource(workspace string, rec *authstorev1.Integration, n *authstorev1.Narrowing) *authv1.Integration {
	c, now := s.consumer(), s.cfg.Now()
	v := &authv1.Integration{
		Workspace: workspace, Provider: store.Provider, State: status.State(rec, c, now), SiteUrl: s.cfg.Site.SiteURL,
		Setup:      &authv1.Setup{CallbackUrl: s.cfg.CallbackURL, RequiredScopes: scope.Required(), ConsumerConfigured: c.Key != ""},
		NarrowedTo: narrowedTo(n),
	}
	if rec == nil {
		return v
	}
	a := rec.GetAccount()
	v.Account = &authv1.Account{
		Uuid: a.GetUuid(), Label: a.GetLabel(), DisplayName: a.GetDisplayName(), Nickname: a.GetNickname(),
		Username: a.GetUsername(), AvatarUrl: a.GetAvatarUrl(),
	}
	v.SiteUrl = rec.GetSiteUrl()
	v.Scopes = rec.GetScopes()
	v.ExtraScopes, v.MissingScopes = scope.Extra(rec.GetScopes()), scope.Missing(rec.GetScopes())
	v.ConnectTime, v.ConnectedBy, v.ConnectionId = rec.GetConnectTime(), rec.GetConnectedBy(), rec.GetConnectionId()
	v.ConnectedById = rec.GetConnectedBySubject()
	v.TokenExpireTime, v.LastRefreshTime = rec.GetAccess().GetExpireTime(), rec.GetLastRefreshTime()
	v.LastError = status.LastError(status.Of(rec, c, now))
	if rec.GetSiteUrl() == s.cfg.Site.SiteURL {
		v.AuthorizationsUrl = s.cfg.Site.AppAuthorizationsURL()
	}
	return v
}

// etag changes with everything that the API shows of the integration but the wording of its trouble,
// which speaks of the time of day.
func etag(v *authv1.Integration) string {
	c := proto.CloneOf(v)
	c.Etag = ""
	if c.GetLastError() != nil {
		c.LastError.Message = ""
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil { // cannot happen to a message that holds valid UTF-8
		return ""
	}
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// pending is nil, too, while Redis is away: the integration itself can be shown.
func (s *Server) pending(ctx context.Context, workspace string) *authv1.PendingHandshake {
	p, err := s.cfg.Handshakes.Pending(ctx, workspace)
	if err != nil {
		s.cfg.Logger.DebugContext(ctx, "pending handshake not known", slog.String(logs.KeyWorkspace, workspace), logs.Err(err))
	}
	if p == nil {
		return nil
	}
	v := &authv1.PendingHandshake{StartTime: p.GetStartTime(), ExpireTime: p.GetExpireTime()}
	if s.cfg.Now().Sub(p.GetStartTime().AsTime()) >= unansweredAfter {
		v.Hint = fmt.Sprintf("Bitbucket has not answered yet. If its page says \"Invalid redirect_uri\", the OAuth consumer has another callback URL than ours: copy %s into the consumer's field \"Callback URL\" at Bitbucket under Workspace settings > OAuth consumers, exactly as it stands, then connect again. If you closed the page, simply connect again.", s.cfg.CallbackURL)
	}
	return v
}

func stampOrNil(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
