package app

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/keymutex"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/reminder"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// Repositories is the repo service; its errors are apierr's.
type Repositories interface {
	// RepositoryAndHead is a repository and the commit of one of its branches, "" for none: empty where there
	// is no such branch, and not known where Bitbucket did not answer for it.
	RepositoryAndHead(ctx context.Context, workspace, repository, branch string) (found *repov1.Repository, hash string, known bool, err error)
	// Head is the commit of a branch; BRANCH_NOT_FOUND when there is no such branch.
	Head(ctx context.Context, workspace, repository, branch string) (string, error)
	// Resolve finds the commit that a person names by its hash, in a branch's history, or by a tag.
	Resolve(ctx context.Context, req *repov1.ResolveCommitRequest) (*repov1.BranchCommit, error)
}

// Webhooks is the webhook service; its errors are apierr's.
type Webhooks interface {
	SetWatches(ctx context.Context, req *webhookv1.SetWatchesRequest) (*webhookv1.Webhook, error)
	// Webhooks answers by repository; those without a webhook are left out.
	Webhooks(ctx context.Context, workspace string, repositories []string) (map[string]*webhookv1.Webhook, error)
}

// Deliveries is the webhook service's log of deliveries; its errors are apierr's.
type Deliveries interface {
	// All returns a workspace's webhooks, and whether there are more.
	All(ctx context.Context, workspace string) (hooks []*webhookv1.Webhook, more bool, err error)
	Deliveries(ctx context.Context, req *webhookv1.ListDeliveriesRequest) (*webhookv1.ListDeliveriesResponse, error)
	// Delivery is DELIVERY_NOT_FOUND when it is not kept.
	Delivery(ctx context.Context, workspace, webhook string, number int32) (*webhookv1.Delivery, error)
}

// Connections knows the workspaces' integrations.
type Connections interface {
	// Get answers from the last thing learned; Refresh asks auth first.
	Get(ctx context.Context, workspace string) (*storev1.Connection, error)
	// Shown is Get from memory: another process's news may take a moment.
	Shown(ctx context.Context, workspace string) (*storev1.Connection, error)
	Refresh(ctx context.Context, workspace string) (*storev1.Connection, error)
}

// Servers knows the servers.
type Servers interface {
	Known(ctx context.Context, server string) (bool, error)
	Offline(server string) (since time.Time, offline bool)
	// Names are the servers that there are.
	Names() []string
	// HookRunner says how a server runs deployment hooks; empty when it cannot.
	HookRunner(server string) string
}

// Reminders has things reconciled later.
type Reminders interface {
	Touch(ctx context.Context, kind reminder.Kind, workspace, name string, at time.Time) (uint64, error)
	Clear(ctx context.Context, kind reminder.Kind, workspace, name string, rev uint64) error
}

// Workers read repositories.
type Workers interface {
	// Check says what would come of a push.
	Check(ctx context.Context, server string, q *storev1.PushQuestion) (*deployerv1.CheckPushResponse, error)
}

// Config is what a Service needs.
type Config struct {
	Records      *apps.Records
	Store        *store.Store
	Copies       *store.Copies // what is shown is read from them
	Dispatcher   *lane.Dispatcher
	Reminders    Reminders
	Repositories Repositories
	Webhooks     Webhooks
	Connections  Connections
	Servers      Servers
	Workers      Workers
	Keyset       *seal.Keyset // seals secret variables
	// Live says where releases are served; nil where they are not.
	Live func(workspace, app string, number int32) string
	// Statuses says why commit statuses are not sent; empty when they are.
	Statuses func() (reason, message string)
	// Deliveries is webhook's log, for why a push did not deploy.
	Deliveries Deliveries
	// Told says what Bitbucket was told of a deployment, over a connection; empty when nothing is known.
	Told func(ctx context.Context, k lane.Key, d *storev1.Deployment, connection string) string
	// FindsWithin is how long it takes until a push is found whose delivery does not come; may be nil.
	FindsWithin func(workspace, repository string) time.Duration
	// PollsWithin is the longest pause between two polls of a repository; may be nil.
	PollsWithin func(workspace, repository string) time.Duration
	Logger      *slog.Logger
	Now         func() time.Time
}

// Service is safe for concurrent use.
type Service struct {
	*apps.Records
	cfg Config
	// handing is held by who hands the watches of a repository over.
	handing keymutex.Map
}

// New makes a service.
func New(cfg Config) *Service { return &Service{Records: cfg.Records, cfg: cfg} }

func (s *Service) now() time.Time { return s.cfg.Now() }

// notFound is the answer about an app that is not there.
func notFound(k lane.Key) error { return apps.NotFound(k) }

// noDeployment is the answer about a deployment that is not there.
func noDeployment(k lane.Key, number int32) error {
	return apierr.Newf(apierr.ReasonDeploymentNotFound, "App %s has no deployment %d.", k.App, number)
}

// load reads an app's record.
func (s *Service) load(ctx context.Context, k lane.Key) (*storev1.App, uint64, error) {
	return s.Load(ctx, k)
}

// Etag is the form in which callers see a record's revision.
func Etag(rev uint64) string { return strconv.FormatUint(rev, 36) }

func checkEtag(want string, rev uint64) error {
	if want == "" || want == Etag(rev) {
		return nil
	}
	return apierr.New(apierr.ReasonEtagMismatch, "Somebody else changed the app meanwhile. Load it again and repeat your change.")
}

// summary is a deployment in short.
func summary(d *deployerv1.Deployment) *deployerv1.DeploymentSummary {
	if d == nil {
		return nil
	}
	t := d.GetEndTime()
	if t == nil {
		t = d.GetCreateTime()
	}
	return &deployerv1.DeploymentSummary{Number: d.GetNumber(), State: d.GetState(), Commit: d.GetCommit(), Time: t, Trigger: d.GetTrigger(), Actor: d.GetActor()}
}
