package server

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/pasted"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	"devpilot.io/bitbucket/services/gateway/internal/caller"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

const maxDisplayName = 200 // bytes

func workspaceProto(w tenant.Workspace) *gatewayv1.Workspace {
	return &gatewayv1.Workspace{
		Id: w.GetId(), DisplayName: w.GetDisplayName(), Role: rolesByWord[w.Role],
		CreateTime: w.GetCreateTime(), Etag: w.ETag, State: statesByWord[w.Closed()], Deletion: deletionProto(w), YourLabel: w.Label,
	}
}

var statesByWord = map[tenant.Closed]gatewayv1.Workspace_State{
	tenant.Open: gatewayv1.Workspace_ACTIVE, tenant.Deleting: gatewayv1.Workspace_DELETING, tenant.Deleted: gatewayv1.Workspace_DELETED,
}

func deletionProto(w tenant.Workspace) *gatewayv1.WorkspaceDeletion {
	if w.GetDeleteTime() == nil {
		return nil
	}
	out := &gatewayv1.WorkspaceDeletion{Time: w.GetDeleteTime(), DeletedBy: w.GetDeletedBy(), Progress: w.GetProgress(), ServersAway: w.GetServersAway()}
	for _, l := range w.GetWebhooksLeft() {
		out.WebhooksLeft = append(out.WebhooksLeft, &gatewayv1.LeftWebhook{RepositoryFullName: l.GetRepositoryFullName(), SettingsUrl: l.GetSettingsUrl(), Message: l.GetMessage()})
	}
	return out
}

// workspacesOf lists what the caller is a member of. A program's credential is for one workspace.
func (s *Server) workspacesOf(ctx context.Context, id identity.Identity, after string, limit int, deleted bool) ([]tenant.Workspace, bool, error) {
	switch {
	case id.SubjectKind.IsProgram():
	case deleted:
		return s.cfg.Tenants.ListAll(ctx, id.Subject, after, limit)
	default:
		return s.cfg.Tenants.List(ctx, id.Subject, after, limit)
	}
	w, err := s.cfg.Tenants.Get(ctx, id.Workspace, id.Role)
	if err != nil || after != "" {
		return nil, false, err
	}
	return []tenant.Workspace{w}, false, nil
}

// ListWorkspaces implements the RPC.
func (s *Server) ListWorkspaces(ctx context.Context, req *gatewayv1.ListWorkspacesRequest) (*gatewayv1.ListWorkspacesResponse, error) {
	id, err := user(ctx)
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	scope := pagetoken.Scope("workspaces", id.Subject, strconv.FormatBool(req.GetShowDeleted()))
	after, err := s.cfg.Pages.Decode(scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	list, more, err := s.workspacesOf(ctx, id, string(after), size, req.GetShowDeleted())
	if err != nil {
		return nil, err
	}
	resp := &gatewayv1.ListWorkspacesResponse{}
	for _, w := range list {
		resp.Workspaces = append(resp.Workspaces, workspaceProto(w))
	}
	if more {
		resp.NextPageToken = s.cfg.Pages.Encode(scope, []byte(list[len(list)-1].GetId()))
	}
	return resp, nil
}

// GetWorkspace implements the RPC.
func (s *Server) GetWorkspace(ctx context.Context, req *gatewayv1.GetWorkspaceRequest) (*gatewayv1.GetWorkspaceResponse, error) {
	id, err := user(ctx)
	if err != nil {
		return nil, err
	}
	w, err := s.cfg.Tenants.Get(ctx, req.GetWorkspace(), id.Role)
	if err != nil {
		return nil, err
	}
	return &gatewayv1.GetWorkspaceResponse{Workspace: workspaceProto(w)}, nil
}

// CreateWorkspace implements the RPC.
func (s *Server) CreateWorkspace(ctx context.Context, req *gatewayv1.CreateWorkspaceRequest) (*gatewayv1.CreateWorkspaceResponse, error) {
	id, err := user(ctx)
	if err != nil {
		return nil, err
	}
	if id.SubjectKind.IsProgram() {
		return nil, apierr.New(apierr.ReasonPermissionDenied, "An API key or token belongs to one workspace and cannot create others. Sign in, or use the admin token.")
	}
	pasted.Fields(req, nil)
	var faults apierr.Faults
	if err := faults.Take(tenant.CheckID(req.GetWorkspaceId())); err != nil {
		return nil, err
	}
	checkDisplayName(req.GetDisplayName(), "displayName", &faults)
	faults.RequestID(req.GetRequestId())
	if err := faults.Err(); err != nil || req.GetValidateOnly() {
		return &gatewayv1.CreateWorkspaceResponse{Workspace: &gatewayv1.Workspace{
			Id: req.GetWorkspaceId(), DisplayName: req.GetDisplayName(), Role: gatewayv1.Role_OWNER, CreateTime: timestamppb.New(s.cfg.Now()), State: gatewayv1.Workspace_ACTIVE,
		}}, err
	}
	repeat, err := s.repeated(ctx, id.Subject, req.GetRequestId(), "CreateWorkspace", req.GetWorkspaceId()+"\n"+req.GetDisplayName())
	if err != nil {
		return nil, err
	}
	w, err := s.cfg.Tenants.Create(ctx, req.GetWorkspaceId(), req.GetDisplayName(), tenant.Subject{ID: id.Subject, Label: labelOf(id)})
	if repeat && apierr.Has(err, apierr.ReasonWorkspaceExists) {
		w, err = s.ownWorkspace(ctx, req.GetWorkspaceId(), id.Subject, err)
	}
	if err != nil {
		return nil, err
	}
	return &gatewayv1.CreateWorkspaceResponse{Workspace: workspaceProto(w)}, nil
}

// UpdateWorkspace implements the RPC.
func (s *Server) UpdateWorkspace(ctx context.Context, req *gatewayv1.UpdateWorkspaceRequest) (*gatewayv1.UpdateWorkspaceResponse, error) {
	id, err := user(ctx)
	if err != nil {
		return nil, err
	}
	change := proto.CloneOf(req.GetChange())
	if change == nil {
		change = &gatewayv1.Workspace{}
	}
	change.DisplayName = pasted.Line(change.GetDisplayName())
	paths := req.GetUpdateMask().GetPaths()
	if len(paths) == 0 {
		paths = setIn(change.ProtoReflect())
	}
	var faults apierr.Faults
	checkDisplayName(change.GetDisplayName(), "change.displayName", &faults)
	for _, path := range paths {
		if change.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(path)) == nil {
			faults.Add("updateMask", fmt.Sprintf("%q is no field of a workspace", path))
		}
	}
	if err := faults.Err(); err != nil {
		return nil, err
	}
	w, err := s.cfg.Tenants.Rename(ctx, req.GetWorkspace(), id.Role, tenant.Rename{
		DisplayName: change.GetDisplayName(), ETag: change.GetEtag(), Only: req.GetValidateOnly() || !slices.Contains(paths, "display_name"),
	})
	if err != nil {
		return nil, err
	}
	return &gatewayv1.UpdateWorkspaceResponse{Workspace: workspaceProto(w)}, nil
}

func checkDisplayName(name, field string, faults *apierr.Faults) {
	if len(name) > maxDisplayName {
		faults.Add(field, fmt.Sprintf("at most %d bytes", maxDisplayName))
	}
	faults.OneLine(field, name)
}

// labelOf is how a team calls whoever makes a workspace.
func labelOf(id identity.Identity) string {
	if id.Subject == caller.LocalSubject {
		return caller.LocalLabel
	}
	return id.Label
}

// repeated notes the request id; it tells whether the same request came before.
func (s *Server) repeated(ctx context.Context, subject, requestID, method, content string) (bool, error) {
	if requestID == "" {
		return false, nil
	}
	sum := sha256.Sum256([]byte(content))
	first, err := s.cfg.Short.Once(ctx, subject, requestID, method, sum[:])
	return !first, err
}

// ownWorkspace is what a repeated create answers: the workspace if it is the caller's, else what the
// create said.
func (s *Server) ownWorkspace(ctx context.Context, id, subject string, said error) (tenant.Workspace, error) {
	w, err := s.cfg.Tenants.Get(ctx, id, identity.RoleOwner)
	if err != nil {
		return tenant.Workspace{}, err
	}
	if w.GetCreatedBy() != subject || w.Closed() != tenant.Open {
		return tenant.Workspace{}, said
	}
	return w, nil
}

// GetInfo implements the RPC.
func (s *Server) GetInfo(context.Context, *gatewayv1.GetInfoRequest) (*gatewayv1.GetInfoResponse, error) {
	i := s.cfg.Info
	return &gatewayv1.GetInfoResponse{Info: &gatewayv1.Info{
		Version: i.GetVersion(), PublicUrl: i.GetPublicUrl(), Emulator: i.GetEmulator(),
		BitbucketSiteUrl: i.GetBitbucketSiteUrl(), WebhooksReachable: i.GetWebhooksReachable(), SignInProviders: i.GetSignInProviders(),
		Time: timestamppb.New(s.cfg.Now()),
	}}, nil
}
