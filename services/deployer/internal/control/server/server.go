// Package server serves devpilot.deployer.v1: one file per RPC; each validates, calls one use case
// and maps. Who may call what is in the service's policy.
package server

import (
	"context"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	"devpilot.io/bitbucket/services/deployer/internal/control/app"
	"devpilot.io/bitbucket/services/deployer/internal/record/deploylog"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// Servers lists the servers.
type Servers interface {
	List() []*deployerv1.Server
}

// Deliveries is the webhook service's log of deliveries.
type Deliveries interface {
	Webhooks(ctx context.Context, workspace string, repositories []string) (map[string]*webhookv1.Webhook, error)
	Deliveries(ctx context.Context, req *webhookv1.ListDeliveriesRequest) (*webhookv1.ListDeliveriesResponse, error)
}

// Watcher follows one deployment's record.
type Watcher interface {
	Watch(ctx context.Context, key string, fn func(key string, d *storev1.Deployment, rev uint64) error) error
}

// Uses are the use cases; they exist once the service has opened its stores.
type Uses struct {
	Apps        *app.Service
	Servers     Servers
	Deliveries  Deliveries
	Logs        *deploylog.Sink
	Deployments Watcher
	Heads       Heads
	Statuses    Statuses
}

// Server implements the RPCs.
type Server struct {
	deployerv1.UnimplementedDeployerServiceServer
	uses    func() *Uses // answers nil until the service is up; nil without the role api
	tokens  *pagetoken.Codec
	closing <-chan struct{}
	beat    time.Duration
}

// New makes the server; uses is nil in a process without the role api. Followed logs end when closing is closed; beat replaces the pause between
// their heartbeats when it is not zero.
func New(uses func() *Uses, tokens *pagetoken.Codec, closing <-chan struct{}, beat time.Duration) *Server {
	return &Server{uses: uses, tokens: tokens, closing: closing, beat: beat}
}

// up returns the use cases, or says that the service is still starting.
func (s *Server) up() (*Uses, error) {
	if s.uses == nil {
		return nil, apierr.New(apierr.ReasonServiceUnavailable, "This deployer has the role worker alone and serves no API. Call one with the role api (--roles).")
	}
	if u := s.uses(); u != nil {
		return u, nil
	}
	return nil, apierr.New(apierr.ReasonStorageUnavailable, "The deployer is starting and has not reached its storage yet. Try again in a moment.", apierr.WithRetryAfter(time.Second))
}

func pageSize(asked int32) (int, error) { return pagetoken.Size(asked, pagetoken.MaxPage) }

// fail gives an error its public form.
func fail(err error) error { return kv.ToAPI(err) }

func keyOf(r interface {
	GetWorkspace() string
	GetApp() string
},
) lane.Key {
	return lane.Key{Workspace: r.GetWorkspace(), App: r.GetApp()}
}

// apps are those that the caller is limited to.
func apps(ctx context.Context) identity.Apps {
	id, _ := identity.FromContext(ctx)
	return id.Apps
}

// actor is on whose behalf the call is made, for histories.
func actor(ctx context.Context) *deployerv1.DeploymentActor {
	id, ok := identity.FromContext(ctx)
	if !ok {
		return &deployerv1.DeploymentActor{Kind: deployerv1.DeploymentActor_SYSTEM, Label: "Devpilot"}
	}
	a := &deployerv1.DeploymentActor{Kind: deployerv1.DeploymentActor_MEMBER, Label: id.Label}
	if id.SubjectKind.IsProgram() {
		a.Kind = deployerv1.DeploymentActor_API_KEY
	}
	return a
}
