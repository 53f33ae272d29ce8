package server

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/pasted"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	"devpilot.io/bitbucket/services/gateway/internal/notify"
)

// editableTarget are the fields of a notification target that an update may name; fixedTarget those that
// it may name and not change: a client may send back what it read.
var (
	editableTarget = []string{"label", "active", "url", "recipients", "events", "apps", "behind_minutes", "quiet_hours"}
	fixedTarget    = []string{"id", "workspace", "kind", "host", "create_time", "update_time", "old_secret_expire_time", "etag"}
)

// ListNotificationTargets implements the RPC.
func (s *Server) ListNotificationTargets(ctx context.Context, req *gatewayv1.ListNotificationTargetsRequest) (*gatewayv1.ListNotificationTargetsResponse, error) {
	all, err := s.cfg.Notifications.List(ctx, req.GetWorkspace())
	if err != nil {
		return nil, err
	}
	list, next, err := page(s, all, req.GetPageSize(), req.GetPageToken(), "notificationTargets", req.GetWorkspace())
	return &gatewayv1.ListNotificationTargetsResponse{Targets: list, NextPageToken: next, EmailAvailable: s.cfg.Checks.Mail}, err
}

// page cuts a page out of a list that is at hand. What comes or goes in front of a page moves it.
func page[T any](s *Server, all []T, size int32, token string, scope ...string) (list []T, next string, err error) {
	n, err := pageSize(size)
	if err != nil {
		return nil, "", err
	}
	of := pagetoken.Scope(scope...)
	after, err := s.cfg.Pages.Decode(of, token)
	if err != nil {
		return nil, "", err
	}
	from := 0
	if len(after) > 0 {
		if from, err = strconv.Atoi(string(after)); err != nil {
			return nil, "", apierr.New(apierr.ReasonPageTokenInvalid, "The page token is not one of this list.")
		}
	}
	list = all[min(from, len(all)):]
	if len(list) > n {
		list, next = list[:n], s.cfg.Pages.Encode(of, []byte(strconv.Itoa(from+n)))
	}
	return list, next, nil
}

// GetNotificationTarget implements the RPC.
func (s *Server) GetNotificationTarget(ctx context.Context, req *gatewayv1.GetNotificationTargetRequest) (*gatewayv1.GetNotificationTargetResponse, error) {
	t, err := s.cfg.Notifications.Get(ctx, req.GetWorkspace(), req.GetTarget())
	return &gatewayv1.GetNotificationTargetResponse{Target: t}, err
}

// CreateNotificationTarget implements the RPC.
func (s *Server) CreateNotificationTarget(ctx context.Context, req *gatewayv1.CreateNotificationTargetRequest) (*gatewayv1.CreateNotificationTargetResponse, error) {
	id, err := user(ctx)
	if err != nil {
		return nil, err
	}
	in := proto.CloneOf(req.GetTarget())
	if in == nil {
		in = &gatewayv1.NotificationTarget{}
	}
	clean(in)
	var faults apierr.Faults
	faults.RequestID(req.GetRequestId())
	if err := faults.Take(s.cfg.Checks.Check(in, false)); err != nil {
		return nil, err
	}
	if err := faults.Err(); err != nil {
		return nil, err
	}
	if req.GetValidateOnly() {
		now := timestamppb.New(s.cfg.Now())
		in.Url, in.CreateTime, in.UpdateTime = "", now, now
		return &gatewayv1.CreateNotificationTargetResponse{Target: in}, nil
	}
	secret, first, err := s.once(ctx, id.Subject, req.GetRequestId(), "CreateNotificationTarget", req.GetWorkspace(), req.GetTarget())
	if err != nil {
		return nil, err
	}
	var t *gatewayv1.NotificationTarget
	if first {
		t, err = s.cfg.Notifications.Create(ctx, req.GetWorkspace(), in, secret)
	} else {
		t, err = s.cfg.Notifications.Get(ctx, req.GetWorkspace(), notify.IDOf(secret))
	}
	if err != nil {
		return nil, err
	}
	resp := &gatewayv1.CreateNotificationTargetResponse{Target: t}
	if t.GetKind() == gatewayv1.NotificationTarget_WEBHOOK {
		resp.Secret = secret.Reveal()
	}
	return resp, nil
}

// once makes a secret, or finds the one that the same request made before.
func (s *Server) once(ctx context.Context, subject, requestID, method, workspace string, asked proto.Message) (secret seal.Secret, first bool, err error) {
	secret = notify.NewSecret()
	if requestID == "" {
		return secret, true, nil
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(asked)
	if err != nil {
		return secret, false, fmt.Errorf("server: fingerprint of a request: %w", err)
	}
	sum := sha256.Sum256(append([]byte(workspace+"\x00"), raw...))
	secret, _, first, err = s.cfg.Short.OnceWithSecret(ctx, subject, requestID, method, sum[:], secret)
	return secret, first, err
}

// clean drops what nobody sets and what a paste brought along.
func clean(t *gatewayv1.NotificationTarget) {
	t.Label, t.Url = pasted.Line(t.GetLabel()), pasted.Line(t.GetUrl())
	for i, r := range t.GetRecipients() {
		t.Recipients[i] = pasted.Line(r)
	}
	t.Id, t.Workspace, t.Host, t.CreateTime, t.UpdateTime, t.OldSecretExpireTime, t.Etag = "", "", "", nil, nil, nil, ""
}

// UpdateNotificationTarget implements the RPC.
func (s *Server) UpdateNotificationTarget(ctx context.Context, req *gatewayv1.UpdateNotificationTargetRequest) (*gatewayv1.UpdateNotificationTargetResponse, error) {
	in := proto.CloneOf(req.GetTarget())
	if in == nil {
		in = &gatewayv1.NotificationTarget{}
	}
	etag := in.GetEtag()
	asked := proto.CloneOf(in)
	clean(in)
	change := func(cur *gatewayv1.NotificationTarget) (*gatewayv1.NotificationTarget, error) {
		var faults apierr.Faults
		hasURL := cur.GetHost() != ""
		paths := req.GetUpdateMask().GetPaths()
		if len(paths) == 0 {
			paths = setIn(asked.ProtoReflect())
		}
		for _, path := range paths {
			top, _, _ := strings.Cut(path, ".")
			switch {
			case slices.Contains(editableTarget, top):
				if !copyField(cur.ProtoReflect(), in.ProtoReflect(), strings.Split(path, ".")) {
					faults.Add("updateMask", fmt.Sprintf("%q is no field of a notification target", path))
				}
			case path == "kind" && asked.GetKind() != cur.GetKind():
				faults.Add("target.kind", "a target keeps its kind; add another for another kind")
			case !slices.Contains(fixedTarget, top):
				faults.Add("updateMask", fmt.Sprintf("%q is no field of a notification target", path))
			}
		}
		if err := faults.Take(s.cfg.Checks.Check(cur, hasURL)); err != nil {
			return nil, err
		}
		return cur, faults.Err()
	}
	t, err := s.cfg.Notifications.Update(ctx, req.GetWorkspace(), req.GetTargetId(), etag, req.GetValidateOnly(), change)
	return &gatewayv1.UpdateNotificationTargetResponse{Target: t}, err
}

// setIn lists the fields that are set in a message.
func setIn(m protoreflect.Message) (paths []string) {
	m.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		paths = append(paths, string(f.Name()))
		return true
	})
	slices.Sort(paths)
	return paths
}

// copyField copies the field at path; an absent one clears. It returns false for what is no field.
func copyField(to, from protoreflect.Message, path []string) bool {
	f := to.Descriptor().Fields().ByName(protoreflect.Name(path[0]))
	switch {
	case f == nil || len(path) > 1 && (f.Message() == nil || f.IsList()):
		return false
	case len(path) > 1:
		return copyField(to.Mutable(f).Message(), from.Get(f).Message(), path[1:])
	case !from.Has(f):
		to.Clear(f)
	default:
		to.Set(f, from.Get(f))
	}
	return true
}

// DeleteNotificationTarget implements the RPC.
func (s *Server) DeleteNotificationTarget(ctx context.Context, req *gatewayv1.DeleteNotificationTargetRequest) (*gatewayv1.DeleteNotificationTargetResponse, error) {
	return &gatewayv1.DeleteNotificationTargetResponse{}, s.cfg.Notifications.Delete(ctx, req.GetWorkspace(), req.GetTarget(), req.GetEtag())
}

// SendTestNotification implements the RPC.
func (s *Server) SendTestNotification(ctx context.Context, req *gatewayv1.SendTestNotificationRequest) (*gatewayv1.SendTestNotificationResponse, error) {
	id, err := user(ctx)
	if err != nil {
		return nil, err
	}
	if err := apierr.CheckRequestID(req.GetRequestId()); err != nil {
		return nil, err
	}
	nonce := req.GetRequestId()
	if nonce == "" {
		nonce = rpc.RequestID(ctx)
	}
	a, err := s.cfg.Sender.Test(ctx, req.GetWorkspace(), req.GetTarget(), nonce, id.Label)
	return &gatewayv1.SendTestNotificationResponse{Attempt: a}, err
}

// RotateNotificationSecret implements the RPC.
func (s *Server) RotateNotificationSecret(ctx context.Context, req *gatewayv1.RotateNotificationSecretRequest) (*gatewayv1.RotateNotificationSecretResponse, error) {
	id, err := user(ctx)
	if err != nil {
		return nil, err
	}
	if err := apierr.CheckRequestID(req.GetRequestId()); err != nil {
		return nil, err
	}
	if _, err := s.cfg.Notifications.Get(ctx, req.GetWorkspace(), req.GetTarget()); err != nil {
		return nil, err
	}
	secret, _, err := s.once(ctx, id.Subject, req.GetRequestId(), "RotateNotificationSecret", req.GetWorkspace(), &gatewayv1.RotateNotificationSecretRequest{Target: req.GetTarget()})
	if err != nil {
		return nil, err
	}
	t, err := s.cfg.Notifications.Rotate(ctx, req.GetWorkspace(), req.GetTarget(), secret)
	if err != nil {
		return nil, err
	}
	return &gatewayv1.RotateNotificationSecretResponse{Target: t, Secret: secret.Reveal()}, nil
}

// ListNotificationAttempts implements the RPC.
func (s *Server) ListNotificationAttempts(ctx context.Context, req *gatewayv1.ListNotificationAttemptsRequest) (*gatewayv1.ListNotificationAttemptsResponse, error) {
	all, waiting, err := s.cfg.Notifications.Attempts(ctx, req.GetWorkspace(), req.GetTarget())
	if err != nil {
		return nil, err
	}
	list, next, err := page(s, all, req.GetPageSize(), req.GetPageToken(), "notificationAttempts", req.GetWorkspace(), req.GetTarget())
	return &gatewayv1.ListNotificationAttemptsResponse{Attempts: list, NextPageToken: next, Waiting: int32(min(waiting, 1<<30))}, err
}
