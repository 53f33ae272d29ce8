package server

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/pasted"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/seal"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	"devpilot.io/bitbucket/services/gateway/internal/activity"
	"devpilot.io/bitbucket/services/gateway/internal/session"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

const (
	// LoginPage is the console's page on which a person decides about a login request.
	LoginPage = "/login"
	// loginTakesBrowser is what programs are told that decide about one.
	loginTakesBrowser = "Only a person in a browser lets a command line in. Open the address that devpilot login printed, signed in."
	// maxLoginKeys bounds how many keys somebody who is no admin can have by logins, so that nobody fills the
	// workspace's list.
	maxLoginKeys = 10
)

// logins bound what is asked about login requests in this process. The number of open ones is bounded in the store.
type logins struct {
	asked, wrong *session.Limiter // new ones and wrong device codes, by address
	guesses      *session.Guesses // of user codes, by person
	polls        *session.Polls
}

func newLogins(now func() time.Time) logins {
	return logins{asked: session.NewLimiter(now), wrong: session.NewLimiter(now), guesses: session.NewGuesses(now), polls: session.NewPolls(now)}
}

// CreateLoginRequest implements the RPC.
func (s *Server) CreateLoginRequest(ctx context.Context, req *gatewayv1.CreateLoginRequestRequest) (*gatewayv1.CreateLoginRequestResponse, error) {
	name := pasted.Line(req.GetClientName())
	var faults apierr.Faults
	if utf8.RuneCountInString(name) > session.MaxLoginName {
		faults.Add("clientName", "at most 64 characters")
	}
	faults.OneLine("clientName", name)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	address := callMetadata(ctx).ClientAddress
	if wait, ok := s.logins.asked.Wrong(address); !ok {
		return nil, apierr.New(apierr.ReasonRateLimited, "Your address asks for logins too often. Wait a minute, or sign in with an API key.", apierr.WithRetryAfter(wait))
	}
	r, device, err := s.cfg.Short.NewLogin(ctx, name, address)
	if err != nil {
		return nil, err
	}
	code := session.ShownUserCode(r.GetUserCode())
	return &gatewayv1.CreateLoginRequestResponse{
		DeviceCode: device.Reveal(), UserCode: code, VerificationUrl: s.cfg.PublicURL + LoginPage + "?" + url.Values{"code": {code}}.Encode(),
		IntervalSeconds: int32(session.LoginInterval / time.Second), ExpireTime: r.GetExpireTime(),
	}, nil
}

// RedeemLoginRequest implements the RPC. The key is made here and not when it is approved, so that no secret waits
// in the store and no key exists that nobody has.
func (s *Server) RedeemLoginRequest(ctx context.Context, req *gatewayv1.RedeemLoginRequestRequest) (*gatewayv1.RedeemLoginRequestResponse, error) {
	device := seal.NewSecret(pasted.Line(req.GetDeviceCode()))
	r, err := s.cfg.Short.FindLogin(ctx, device)
	if apierr.Has(err, apierr.ReasonLoginRequestNotFound) {
		if wait, ok := s.logins.wrong.Wrong(callMetadata(ctx).ClientAddress); !ok {
			return nil, apierr.New(apierr.ReasonRateLimited, "Too many wrong device codes from your address. Wait a minute.", apierr.WithRetryAfter(wait))
		}
	}
	if err != nil {
		return nil, err
	}
	if wait, ok := s.logins.polls.Take(r.GetId()); !ok {
		return nil, apierr.New(apierr.ReasonRateLimited, "This was asked sooner than intervalSeconds after the last time.", apierr.WithRetryAfter(wait))
	}
	r, a, err := s.cfg.Short.TakeLogin(ctx, device)
	switch {
	case err != nil:
		return nil, err
	case a == nil:
		return &gatewayv1.RedeemLoginRequestResponse{State: gatewayv1.LoginRequest_PENDING}, nil
	case !a.GetApproved():
		return &gatewayv1.RedeemLoginRequestResponse{State: gatewayv1.LoginRequest_DENIED}, nil
	}
	n, err := loginKey(r, a)
	if err != nil {
		return nil, err
	}
	is, err := s.cfg.Tenants.Standing(ctx, n.Workspace, n.Owner)
	switch {
	case err != nil:
		return nil, err
	case is.Role == identity.RoleNone:
		return nil, tenant.WorkspaceNotFound(n.Workspace)
	}
	if err := is.Closed.Err(n.Workspace); err != nil {
		return nil, err
	}
	n.ByRole = is.Role // of now: it may have become less since
	k, secret, err := s.cfg.Tenants.CreateKey(ctx, n)
	if err != nil {
		return nil, err
	}
	s.recordLoginKey(ctx, n)
	return &gatewayv1.RedeemLoginRequestResponse{State: gatewayv1.LoginRequest_APPROVED, ApiKey: keyProto(k), Secret: secret.Reveal(), Workspace: n.Workspace}, nil
}

// recordLoginKey notes that the key was made, by who approved it.
func (s *Server) recordLoginKey(ctx context.Context, n tenant.NewKey) {
	target := fmt.Sprintf("API key %q", n.Label)
	s.cfg.Recorder.Record(ctx, activity.Entry{
		Workspace: n.Workspace, Time: s.cfg.Now(), Actor: identity.Identity{Subject: n.By.ID, Label: n.By.Label, SubjectKind: identity.SubjectSession},
		Action: "apiKey.create", Target: target, Message: "Created " + target + ".", RequestID: rpc.RequestID(ctx), Address: callMetadata(ctx).ClientAddress,
	})
}

// loginKey is the key that was approved: an ordinary one of who approved it.
func loginKey(r *gatewaystorev1.LoginRequest, a *gatewaystorev1.LoginAnswer) (tenant.NewKey, error) {
	scope, err := identity.ParseScope(a.GetScope())
	if err != nil {
		return tenant.NewKey{}, err
	}
	n := tenant.NewKey{
		Workspace: a.GetWorkspace(), Label: "devpilot", Role: scope.Role(), Scope: scope,
		By: tenant.Subject{ID: a.GetSubject(), Label: a.GetLabel()}, Owner: a.GetSubject(),
	}
	if name := strings.TrimSpace(r.GetClientName()); name != "" {
		n.Label += " on " + name
	}
	if a.GetExpireTime() != nil {
		n.ExpireTime = a.GetExpireTime().AsTime()
	}
	return n, nil
}

// GetLoginRequest implements the RPC.
func (s *Server) GetLoginRequest(ctx context.Context, req *gatewayv1.GetLoginRequestRequest) (*gatewayv1.GetLoginRequestResponse, error) {
	_, r, a, err := s.decides(ctx, req.GetUserCode())
	if err != nil {
		return nil, err
	}
	return &gatewayv1.GetLoginRequestResponse{LoginRequest: loginProto(r, a)}, nil
}

// ApproveLoginRequest implements the RPC.
func (s *Server) ApproveLoginRequest(ctx context.Context, req *gatewayv1.ApproveLoginRequestRequest) (*gatewayv1.ApproveLoginRequestResponse, error) {
	id, r, _, err := s.decides(ctx, req.GetUserCode())
	if err != nil {
		return nil, err
	}
	_, scope := rightsOf(&gatewayv1.CreateApiKeyRequest{Scope: req.GetScope()})
	a := &gatewaystorev1.LoginAnswer{
		Approved: true, Workspace: req.GetWorkspace(), Scope: scope.String(), ExpireTime: req.GetExpireTime(), Subject: id.Subject, Label: id.Label,
	}
	n, err := loginKey(r, a)
	if err != nil {
		return nil, err
	}
	n.ByRole = id.Role
	if err := s.cfg.Tenants.CheckKey(n); err != nil {
		return nil, err
	}
	if err := s.mayHaveAnother(ctx, id, n.Workspace); err != nil {
		return nil, err
	}
	if err := s.cfg.Short.AnswerLogin(ctx, r, a); err != nil {
		return nil, err
	}
	return &gatewayv1.ApproveLoginRequestResponse{LoginRequest: loginProto(r, a)}, nil
}

// mayHaveAnother refuses a key to somebody who has many and may not delete any.
func (s *Server) mayHaveAnother(ctx context.Context, id identity.Identity, workspace string) error {
	if id.Role > identity.RoleMember {
		return nil
	}
	n, err := s.cfg.Tenants.CountKeysOf(ctx, workspace, id.Subject)
	if err != nil || n < maxLoginKeys {
		return err
	}
	return apierr.Newf(apierr.ReasonPermissionDenied, "You have %d API keys in workspace %s, which is the most a member can have. Ask an owner or admin to revoke those that you do not use.", n, workspace)
}

// DenyLoginRequest implements the RPC.
func (s *Server) DenyLoginRequest(ctx context.Context, req *gatewayv1.DenyLoginRequestRequest) (*gatewayv1.DenyLoginRequestResponse, error) {
	id, r, _, err := s.decides(ctx, req.GetUserCode())
	if err != nil {
		return nil, err
	}
	a := &gatewaystorev1.LoginAnswer{Subject: id.Subject, Label: id.Label}
	if err := s.cfg.Short.AnswerLogin(ctx, r, a); err != nil {
		return nil, err
	}
	return &gatewayv1.DenyLoginRequestResponse{LoginRequest: loginProto(r, a)}, nil
}

// decides finds a login request for the person who is to decide about it: somebody with a session. Who guessed wrong
// too often is told nothing for a while, right or wrong.
func (s *Server) decides(ctx context.Context, userCode string) (identity.Identity, *gatewaystorev1.LoginRequest, *gatewaystorev1.LoginAnswer, error) {
	id, err := user(ctx)
	if err != nil {
		return id, nil, nil, err
	}
	if id.SubjectKind != identity.SubjectSession {
		return id, nil, nil, apierr.New(apierr.ReasonBrowserRequired, loginTakesBrowser)
	}
	if wait, blocked := s.logins.guesses.Blocked(id.Subject); blocked {
		return id, nil, nil, apierr.New(apierr.ReasonRateLimited, "Too many codes that are not there. Wait a minute, then copy the code from the terminal.", apierr.WithRetryAfter(wait))
	}
	r, a, err := s.cfg.Short.Login(ctx, userCode)
	if apierr.Has(err, apierr.ReasonLoginRequestNotFound) {
		s.logins.guesses.Wrong(id.Subject)
	}
	return id, r, a, err
}

func loginProto(r *gatewaystorev1.LoginRequest, a *gatewaystorev1.LoginAnswer) *gatewayv1.LoginRequest {
	state := gatewayv1.LoginRequest_PENDING
	switch {
	case a.GetApproved():
		state = gatewayv1.LoginRequest_APPROVED
	case a != nil:
		state = gatewayv1.LoginRequest_DENIED
	}
	return &gatewayv1.LoginRequest{
		UserCode: session.ShownUserCode(r.GetUserCode()), ClientName: r.GetClientName(), Address: r.GetAddress(),
		CreateTime: timestamppb.New(r.GetCreateTime().AsTime()), ExpireTime: timestamppb.New(r.GetExpireTime().AsTime()), State: state,
	}
}
