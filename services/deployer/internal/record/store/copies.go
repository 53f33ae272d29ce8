package store

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/services/deployer/internal/record/census"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// How much memory the copies may take.
const (
	appsCopyBytes        = 128 << 20
	lanesCopyBytes       = 128 << 20
	deploymentsCopyBytes = 256 << 20
	otherCopyBytes       = 64 << 20
)

// Copies are watched copies of the buckets that people are shown and that polls read; they decide nothing.
type Copies struct {
	Apps         *kv.Copy[storev1.App, *storev1.App]
	Lanes        *kv.Copy[storev1.Lane, *storev1.Lane]
	Deployments  *kv.Copy[storev1.Deployment, *storev1.Deployment]
	Repositories *kv.Copy[storev1.RepositoryIndex, *storev1.RepositoryIndex]
	CodeConfigs  *kv.Copy[storev1.CodeConfig, *storev1.CodeConfig]
	Connections  *kv.Copy[storev1.Connection, *storev1.Connection]
	// Census knows what the lanes have to do, as far as their copy has come.
	Census *census.Census

	listener atomic.Pointer[func(key string)]
}

// OnAppChange has fn called with the key of each app that changes from now on, itself or its lane, until
// the returned function is called. There is one listener. fn must not keep the watch waiting.
func (c *Copies) OnAppChange(fn func(key string)) (stop func()) {
	c.listener.Store(&fn)
	return func() { c.listener.Store(nil) }
}

func (c *Copies) changed(key string) {
	if fn := c.listener.Load(); fn != nil {
		(*fn)(key)
	}
}

// NewCopies prepares them; Run fills them. metrics may be nil.
func NewCopies(s *Store, metrics *kv.Metrics) *Copies {
	c := &Copies{
		Census: census.New(),
		Deployments: kv.NewCopy(s.Deployments, kv.CopyConfig[*storev1.Deployment]{
			MaxBytes: deploymentsCopyBytes, Metrics: metrics, Summarize: func(_ string, d *storev1.Deployment) any { return Summarize(d.GetGeneration(), d.GetDeployment()) },
		}),
		Repositories: kv.NewCopy(s.Repositories, kv.CopyConfig[*storev1.RepositoryIndex]{MaxBytes: otherCopyBytes, Metrics: metrics}),
		CodeConfigs:  kv.NewCopy(s.CodeConfigs, kv.CopyConfig[*storev1.CodeConfig]{MaxBytes: otherCopyBytes, Metrics: metrics}),
		Connections:  kv.NewCopy(s.Connections, kv.CopyConfig[*storev1.Connection]{MaxBytes: otherCopyBytes, Metrics: metrics}),
	}
	c.Apps = kv.NewCopy(s.Apps, kv.CopyConfig[*storev1.App]{
		MaxBytes: appsCopyBytes, Metrics: metrics, OnChange: c.changed, Summarize: func(_ string, a *storev1.App) any { return summarizeApp(a) },
	})
	c.Lanes = kv.NewCopy(s.Lanes, kv.CopyConfig[*storev1.Lane]{
		MaxBytes: lanesCopyBytes, Metrics: metrics, OnChange: c.changed, Decoded: c.Census.Note, Summarize: func(_ string, l *storev1.Lane) any { return summarizeLane(l) },
	})
	return c
}

// Run keeps all of them up to date until ctx is done.
func (c *Copies) Run(ctx context.Context) error {
	return runAll(ctx, c.Apps.Run, c.Lanes.Run, c.Deployments.Run, c.Repositories.Run, c.CodeConfigs.Run, c.Connections.Run)
}

// RunApps keeps apps and lanes alone up to date: for a process that shows nobody anything else.
func (c *Copies) RunApps(ctx context.Context) error { return runAll(ctx, c.Apps.Run, c.Lanes.Run) }

func runAll(ctx context.Context, runs ...func(context.Context) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range runs {
		g.Go(func() error { return run(ctx) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("store: keep copies: %w", err)
	}
	return nil
}

// Ready is nil once all of them have seen their buckets. They are read before too, from the leaders.
func (c *Copies) Ready(ctx context.Context) error {
	return errors.Join(c.Apps.Ready(ctx), c.Lanes.Ready(ctx), c.Deployments.Ready(ctx), c.Repositories.Ready(ctx), c.CodeConfigs.Ready(ctx), c.Connections.Ready(ctx))
}

// DeploymentSummary is what histories are filtered by.
type DeploymentSummary struct {
	Generation int64
	State      deployerv1.Deployment_State
	Trigger    deployerv1.Deployment_Trigger
	Branch     string
	Hash       string
	Created    time.Time
}

// Summarize makes the summary of a deployment.
func Summarize(generation int64, d *deployerv1.Deployment) *DeploymentSummary {
	return &DeploymentSummary{
		Generation: generation, State: d.GetState(), Trigger: d.GetTrigger(), Branch: d.GetBranch(), Hash: d.GetCommit().GetHash(), Created: d.GetCreateTime().AsTime(),
	}
}
