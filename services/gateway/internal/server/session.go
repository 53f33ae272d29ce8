package server

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/pasted"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	"devpilot.io/bitbucket/services/gateway/internal/activity"
	"devpilot.io/bitbucket/services/gateway/internal/caller"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
	"devpilot.io/bitbucket/services/gateway/internal/session"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

// maxToken bounds a token that is verified.
const maxToken = 1024

// GetMe implements the RPC.
func (s *Server) GetMe(ctx context.Context, _ *gatewayv1.GetMeRequest) (*gatewayv1.GetMeResponse, error) {
	id, err := user(ctx)
	if err != nil {
		return nil, err
	}
	last := s.cfg.LastEvent() // before anything is read
	me, err := s.me(ctx, id, callMetadata(ctx).SessionExpire)
	if err != nil {
		return nil, err
	}
	me.LastEventId = last
	return &gatewayv1.GetMeResponse{Me: me}, nil
}

// me describes a caller with at most a page of its workspaces; ListWorkspaces has the rest.
func (s *Server) me(ctx context.Context, id identity.Identity, sessionExpire time.Time) (*gatewayv1.Me, error) {
	list, _, err := s.workspacesOf(ctx, id, "", pagetoken.MaxPage, false)
	if err != nil {
		return nil, err
	}
	me := &gatewayv1.Me{Subject: id.Subject, Label: id.Label}
	switch id.SubjectKind {
	case identity.SubjectSession:
		me.Kind = gatewayv1.Me_SESSION
	case identity.SubjectAPIKey:
		me.Kind = gatewayv1.Me_API_KEY
		k, err := s.cfg.Tenants.Key(ctx, caller.KeyID(id))
		if err != nil {
			return nil, err
		}
		me.ApiKey = keyProto(k)
	case identity.SubjectOIDCToken:
		me.Kind = gatewayv1.Me_OIDC_TOKEN
	case identity.SubjectAdminToken, identity.SubjectLocal:
		me.Kind = gatewayv1.Me_ADMIN_TOKEN
	}
	if me.Operator, err = s.cfg.SignIn.IsOperator(ctx, id.SubjectKind, id.Subject); err != nil {
		return nil, err
	}
	for _, w := range list {
		me.Workspaces = append(me.Workspaces, workspaceProto(w))
	}
	if !sessionExpire.IsZero() {
		me.SessionExpireTime = timestamppb.New(sessionExpire)
	}
	return me, nil
}

// CreateSession implements the RPC. The same answer for every wrong token: it does not say whether
// it was a code, or ever one.
func (s *Server) CreateSession(ctx context.Context, req *gatewayv1.CreateSessionRequest) (*gatewayv1.CreateSessionResponse, error) {
	who, ok, err := s.signIn(ctx, req.GetToken())
	if err != nil {
		return nil, err
	}
	if !ok {
		if wait, ok := s.cfg.Limiter.Wrong(callMetadata(ctx).ClientAddress); !ok {
			return nil, apierr.New(apierr.ReasonRateLimited, "Too many wrong attempts to sign in from your address. Wait a minute, or show the right token or code: that works at once.", apierr.WithRetryAfter(wait))
		}
		return nil, apierr.New(apierr.ReasonUnauthenticated,
			fmt.Sprintf("This is neither the admin token nor a one-time code that still works. A code works once, for %.0f minutes; devpilot sign-in prints another.", session.CodeLife.Minutes()))
	}
	m := callMetadata(ctx)
	sess, err := s.cfg.Sessions.Begin(ctx, session.New{Subject: who.ID, Label: who.Label, Address: m.ClientAddress, UserAgent: m.UserAgent})
	if err != nil {
		return nil, err
	}
	value, expire, err := s.cfg.Sessions.Seal(sess)
	if err != nil {
		return nil, err
	}
	me, err := s.me(ctx, signedInAs(who), expire)
	if err != nil {
		return nil, err
	}
	if err := grpc.SetHeader(ctx, setCookie(value, expire)); err != nil {
		return nil, err
	}
	s.record(ctx, signedInAs(who), me.GetWorkspaces(), routes.ActionSignIn, "Signed in.")
	return &gatewayv1.CreateSessionResponse{Me: me}, nil
}

func signedInAs(who tenant.Subject) identity.Identity {
	return identity.Identity{Subject: who.ID, Label: who.Label, SubjectKind: identity.SubjectSession}
}

// record notes in all workspaces of a person what the person did that belongs to none of them.
func (s *Server) record(ctx context.Context, id identity.Identity, workspaces []*gatewayv1.Workspace, action, message string) {
	m := callMetadata(ctx)
	for _, w := range workspaces {
		s.cfg.Recorder.Record(ctx, activity.Entry{
			Workspace: w.GetId(), Time: s.cfg.Now(), Actor: id, Action: action, Target: id.Label, Message: message,
			RequestID: rpc.RequestID(ctx), Address: m.ClientAddress,
		})
	}
}

// recordFor is record for a caller whose workspaces are not at hand. What cannot be listed now is not
// recorded: signing out must not fail for it.
func (s *Server) recordFor(ctx context.Context, id identity.Identity, action, message string) {
	me, err := s.me(ctx, id, time.Time{})
	if err == nil {
		s.record(ctx, id, me.GetWorkspaces(), action, message)
	}
}

func (s *Server) signIn(ctx context.Context, token string) (tenant.Subject, bool, error) {
	token = pasted.Line(token)
	switch {
	case len(token) > maxToken:
		return tenant.Subject{}, false, nil
	case s.cfg.SignIn.IsAdminToken(token):
		return tenant.Subject{ID: caller.LocalSubject, Label: caller.LocalLabel}, true, nil
	case session.LooksLikeCode(token):
		subject, label, ok, err := s.cfg.Short.TakeCode(ctx, token, func(subject string, credential []byte) bool {
			return bytes.Equal(credential, s.cfg.SignIn.Credential(subject))
		})
		return tenant.Subject{ID: subject, Label: label}, ok, err
	}
	return tenant.Subject{}, false, nil
}

// DeleteSession implements the RPC.
func (s *Server) DeleteSession(ctx context.Context, req *gatewayv1.DeleteSessionRequest) (*gatewayv1.DeleteSessionResponse, error) {
	id, signedIn := identity.FromContext(ctx)
	sessionID := callMetadata(ctx).SessionID
	resp := &gatewayv1.DeleteSessionResponse{}
	if signedIn && sessionID != "" {
		a, err := s.cfg.Tenants.Account(ctx, id.Subject)
		if err != nil {
			return nil, err
		}
		resp.SignOutUrl = s.cfg.Providers.SignOutURL(ctx, id.Subject, tenant.Session(a, sessionID))
	}
	switch {
	case !signedIn:
	case req.GetEverywhere():
		if id.SubjectKind.IsProgram() {
			return nil, apierr.New(apierr.ReasonPermissionDenied, "An API key or token has no sessions. Delete the key to end its use.")
		}
		if err := s.cfg.Sessions.EndAll(ctx, id.Subject); err != nil {
			return nil, err
		}
		s.recordFor(ctx, id, routes.ActionSignOutEverywhere, "Signed out everywhere.")
	case sessionID != "":
		if err := s.endOwn(ctx, id.Subject, sessionID); err != nil {
			return nil, err
		}
		s.recordFor(ctx, id, routes.ActionSignOut, "Signed out.")
	}
	if err := grpc.SetHeader(ctx, clearCookie()); err != nil {
		return nil, err
	}
	return resp, nil
}

// endOwn ends a session that its holder is in, listed or not.
func (s *Server) endOwn(ctx context.Context, subject, id string) error {
	if listed, err := s.cfg.Sessions.End(ctx, subject, id); err != nil || listed {
		return err
	}
	return s.cfg.Sessions.EndUnlisted(ctx, id)
}

// CreateSignInCode implements the RPC.
func (s *Server) CreateSignInCode(ctx context.Context, req *gatewayv1.CreateSignInCodeRequest) (*gatewayv1.CreateSignInCodeResponse, error) {
	id, err := user(ctx)
	if err != nil {
		return nil, err
	}
	if id.SubjectKind != identity.SubjectAdminToken {
		return nil, apierr.New(apierr.ReasonPermissionDenied, "Only the admin token can make sign-in codes. Run devpilot sign-in on the machine that Devpilot runs on.")
	}
	if err := apierr.CheckRequestID(req.GetRequestId()); err != nil {
		return nil, err
	}
	secret, expire, err := s.signInCode(ctx, req.GetRequestId())
	if err != nil {
		return nil, err
	}
	s.recordFor(ctx, id, routes.ActionSignInLink, "Made a one-time sign-in link.")
	code := secret.Reveal()
	return &gatewayv1.CreateSignInCodeResponse{
		Code: code, SignInUrl: SignInURL(s.cfg.PublicURL, code), ExpireTime: timestamppb.New(expire),
	}, nil
}

func (s *Server) signInCode(ctx context.Context, requestID string) (seal.Secret, time.Time, error) {
	credential := s.cfg.SignIn.Credential(caller.LocalSubject)
	if requestID == "" {
		return s.cfg.Short.NewCode(ctx, caller.LocalSubject, caller.LocalLabel, credential)
	}
	return s.cfg.Short.NewCodeOnce(ctx, caller.LocalSubject, caller.LocalLabel, credential, requestID, "CreateSignInCode")
}

// NewSignInCode makes a one-time code for the local owner.
func (s *Server) NewSignInCode(ctx context.Context) (code string, expire time.Time, err error) {
	secret, expire, err := s.cfg.Short.NewCode(ctx, caller.LocalSubject, caller.LocalLabel, s.cfg.SignIn.Credential(caller.LocalSubject))
	if err != nil {
		return "", time.Time{}, err
	}
	return secret.Reveal(), expire, nil
}

// SignInURL is the page that takes the code from its fragment, which browsers keep to themselves.
func SignInURL(publicURL, code string) string { return publicURL + "/sign-in#code=" + code }
