// Package store opens the deployer's JetStream buckets and streams (DESIGN.md#state). Each
// holds one kind of record; every update is a compare-and-set.
//
//	bucket                  key                                   record
//	deployer-apps           <workspace>.<app>                     App
//	deployer-repositories   <workspace>.<repository>              RepositoryIndex
//	deployer-connections    <workspace>                           Connection
//	deployer-requests       <workspace>.<method>.<id>[.result]    Request, 24 hours
//	deployer-codeconfigs    <workspace>.<app>                     CodeConfig
//	deployer-lanes          <workspace>.<app>                     Lane
//	deployer-seen           <workspace>.<app>                     SeenRefs
//	deployer-deployments    <workspace>.<app>.<number>            Deployment
//	deployer-servers        <server>                              Server
//	deployer-workers        <server>                              Workers
//	deployer-due            <kind>.<workspace>.<name>             Due
//	deployer-statuses       of internal/control/status                    what was sent, a day
//	deployer-reconcile      <workspace>.<repository>              Reconciliation
//	deployer-positions      <consumer>                            StreamPosition of pkg/kv: how far a consumer has come
//	deployer-inventory      of pkg/kv                             the keys of what cannot be filled again
//
// An app's key is all that lists it. (Versions before kept lists in a bucket deployer-workspaces. It is
// left as it is for those of them that run beside this one: nothing is in it that the apps' keys do not
// tell.)
//
// Depends on pkg/kv and pkg/stream.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	kvstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/kv/store/v1"
	"devpilot.io/bitbucket/services/deployer/internal/record/streams"
)

// Names of the buckets whose changes are published.
const (
	AppsBucket         = "deployer-apps"
	DeploymentsBucket  = "deployer-deployments"
	LanesBucket        = "deployer-lanes"
	RepositoriesBucket = "deployer-repositories"
)

// Buckets are all buckets of Store.
func Buckets() []string {
	return []string{
		AppsBucket, DeploymentsBucket, LanesBucket, RepositoriesBucket, "deployer-codeconfigs", "deployer-connections", "deployer-due",
		"deployer-inventory", "deployer-positions", "deployer-reconcile", "deployer-requests", "deployer-seen", "deployer-servers", "deployer-workers",
	}
}

// RequestLife is how long a request id is remembered.
const RequestLife = 24 * time.Hour

// The buckets' types.
type (
	// Apps holds the apps' records.
	Apps = kv.Bucket[storev1.App, *storev1.App]
	// Repositories holds the lists of who watches a repository.
	Repositories = kv.Bucket[storev1.RepositoryIndex, *storev1.RepositoryIndex]
	// Connections holds what is known of integrations.
	Connections = kv.Bucket[storev1.Connection, *storev1.Connection]
	// Requests holds request ids.
	Requests = kv.Bucket[storev1.Request, *storev1.Request]
	// CodeConfigs holds what the apps' files said.
	CodeConfigs = kv.Bucket[storev1.CodeConfig, *storev1.CodeConfig]
	// Lanes holds the lanes.
	Lanes = kv.Bucket[storev1.Lane, *storev1.Lane]
	// Seen holds what lanes know of heads that do not fit them.
	Seen = kv.Bucket[storev1.SeenRefs, *storev1.SeenRefs]
	// Deployments holds the deployments' records.
	Deployments = kv.Bucket[storev1.Deployment, *storev1.Deployment]
	// Servers holds the servers' identities.
	Servers = kv.Bucket[storev1.Server, *storev1.Server]
	// Workers holds the workers' signs of life.
	Workers = kv.Bucket[storev1.Workers, *storev1.Workers]
	// Dues holds what the schedule has to do.
	Dues = kv.Bucket[storev1.Due, *storev1.Due]
	// Reconciles holds the state of looking after repositories.
	Reconciles = kv.Bucket[storev1.Reconciliation, *storev1.Reconciliation]
)

// Store holds all buckets, and the streams that the deployer reads besides consuming them.
type Store struct {
	JS           jetstream.JetStream
	Apps         *Apps
	Repositories *Repositories
	Connections  *Connections
	Requests     *Requests
	CodeConfigs  *CodeConfigs
	Lanes        *Lanes
	Seen         *Seen
	Deployments  *Deployments
	Servers      *Servers
	Workers      *Workers
	Due          *Dues
	Reconcile    *Reconciles
	Positions    *kv.Positions
	Work         jetstream.Stream
	Logs         jetstream.Stream

	guarded []interface{ Intact() error }
}

// Intact is nil, or says which records were found lost.
func (s *Store) Intact() error {
	var errs []error
	for _, b := range s.guarded {
		errs = append(errs, b.Intact())
	}
	return errors.Join(errs...)
}

// AppsConfig is how the bucket of apps is opened.
func AppsConfig(logger *slog.Logger) kv.Config {
	return kv.Config{Name: AppsBucket, Inventory: "deployer", Logger: logger}
}

// Open makes sure of all buckets and streams.
func Open(ctx context.Context, js jetstream.JetStream, logger *slog.Logger) (*Store, error) {
	s := &Store{JS: js}
	var errs []error
	cfg := func(name string) kv.Config { return kv.Config{Name: name, Logger: logger} }
	// What nothing can fill again has an inventory, so that a loss is noticed.
	kept := func(name string) kv.Config {
		c := cfg(name)
		c.Inventory = "deployer"
		return c
	}
	s.Apps = open[storev1.App](ctx, js, AppsConfig(logger), &errs)
	s.Repositories = open[storev1.RepositoryIndex](ctx, js, kept(RepositoriesBucket), &errs)
	s.Connections = open[storev1.Connection](ctx, js, cfg("deployer-connections"), &errs)
	requests := cfg("deployer-requests")
	requests.TTL = true
	s.Requests = open[storev1.Request](ctx, js, requests, &errs)
	s.CodeConfigs = open[storev1.CodeConfig](ctx, js, kept("deployer-codeconfigs"), &errs)
	s.Lanes = open[storev1.Lane](ctx, js, kept(LanesBucket), &errs)
	s.Seen = open[storev1.SeenRefs](ctx, js, kept("deployer-seen"), &errs)
	s.Deployments = open[storev1.Deployment](ctx, js, kept(DeploymentsBucket), &errs)
	s.Servers = open[storev1.Server](ctx, js, kept("deployer-servers"), &errs)
	s.Workers = open[storev1.Workers](ctx, js, cfg("deployer-workers"), &errs)
	s.Due = open[storev1.Due](ctx, js, cfg("deployer-due"), &errs)
	s.Reconcile = open[storev1.Reconciliation](ctx, js, cfg("deployer-reconcile"), &errs)
	s.Positions = open[kvstorev1.StreamPosition](ctx, js, kept("deployer-positions"), &errs)
	opts := stream.Options{Logger: logger}
	for _, def := range []stream.Definition{stream.Pushes, stream.Events, streams.Outcomes, streams.Work, streams.Logs} {
		st, err := stream.Ensure(ctx, js, def, opts)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		switch def.Config.Name {
		case streams.WorkStream:
			s.Work = st
		case streams.LogsStream:
			s.Logs = st
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	s.guarded = []interface{ Intact() error }{s.Apps, s.Repositories, s.CodeConfigs, s.Lanes, s.Seen, s.Deployments, s.Servers, s.Positions}
	return s, nil
}

// Position keeps how far a consumer of this service has come.
func (s *Store) Position(name string) stream.Position {
	return kv.ConsumerPosition{Bucket: s.Positions, Key: kv.EncodeKey(name)}
}

func open[T any, P kv.Message[T]](ctx context.Context, js jetstream.JetStream, cfg kv.Config, errs *[]error) *kv.Bucket[T, P] {
	b, err := kv.Open[T, P](ctx, js, cfg)
	if err != nil {
		*errs = append(*errs, err)
	}
	return b
}
