package tenant

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

// Names of the buckets.
const (
	WorkspacesBucket  = "gateway_workspaces"
	membersBucket     = "gateway_members" // of before there were teams
	TeamsBucket       = "gateway_teams"
	accountsBucket    = "gateway_accounts"
	apiKeysBucket     = "gateway_api_keys"
	apiKeyListsBucket = "gateway_api_key_lists"
	proofsBucket      = "gateway_proofs"
	deletionsBucket   = "gateway_deletions"
)

// Buckets are all buckets of Store.
func Buckets() []string {
	return []string{
		WorkspacesBucket, membersBucket, TeamsBucket, accountsBucket, apiKeysBucket, apiKeyListsBucket, proofsBucket, deletionsBucket, "gateway-inventory",
	}
}

// Options are what an operator decides about the buckets.
type Options struct {
	Logger  *slog.Logger
	Metrics *kv.Metrics // of the copies; nil: none
	Now     func() time.Time
	// Absent is a subject that cannot sign in, and does not count as an owner; empty for none.
	Absent string
	// Changed hears that somebody may do other things than before; it must not block. It may be nil.
	Changed func()
}

// Store keeps workspaces, teams, accounts and API keys. Open it before use; then it is safe for concurrent
// use. Its errors are *apierr.Error, or those of the context.
type Store struct {
	js         jetstream.JetStream
	opts       Options
	workspaces *kv.Bucket[gatewaystorev1.Workspace, *gatewaystorev1.Workspace]
	members    *kv.Bucket[gatewaystorev1.Member, *gatewaystorev1.Member]
	teams      *kv.Bucket[gatewaystorev1.Team, *gatewaystorev1.Team]
	accounts   *kv.Bucket[gatewaystorev1.Account, *gatewaystorev1.Account]
	keys       *kv.Bucket[gatewaystorev1.ApiKey, *gatewaystorev1.ApiKey]
	keyLists   *kv.Bucket[gatewaystorev1.ApiKeyList, *gatewaystorev1.ApiKeyList]
	proofs     *kv.Bucket[gatewaystorev1.Proof, *gatewaystorev1.Proof]
	deletions  *kv.Bucket[gatewaystorev1.Deletion, *gatewaystorev1.Deletion]
	copies     copies
	now        func() time.Time
}

// copies are what each request reads: who calls and what they may do. They are as new as the leader
// at the start of each read, so that what was revoked anywhere is refused at once.
type copies struct {
	workspaces *kv.Copy[gatewaystorev1.Workspace, *gatewaystorev1.Workspace]
	teams      *kv.Copy[gatewaystorev1.Team, *gatewaystorev1.Team]
	accounts   *kv.Copy[gatewaystorev1.Account, *gatewaystorev1.Account]
	keys       *kv.Copy[gatewaystorev1.ApiKey, *gatewaystorev1.ApiKey]
}

// New makes a store that is not open yet.
func New(js jetstream.JetStream, o Options) *Store { return &Store{js: js, opts: o, now: o.Now} }

// Open creates the buckets or brings their settings up to date. It can be repeated.
func (s *Store) Open(ctx context.Context) error {
	cfg := func(name string) kv.Config {
		return kv.Config{Name: name, Version: 1, Inventory: "gateway", Logger: s.opts.Logger}
	}
	var err error
	if s.workspaces, err = kv.Open[gatewaystorev1.Workspace](ctx, s.js, cfg(WorkspacesBucket)); err != nil {
		return err
	}
	if s.members, err = kv.Open[gatewaystorev1.Member](ctx, s.js, cfg(membersBucket)); err != nil {
		return err
	}
	if s.teams, err = kv.Open[gatewaystorev1.Team](ctx, s.js, cfg(TeamsBucket)); err != nil {
		return err
	}
	if s.accounts, err = kv.Open[gatewaystorev1.Account](ctx, s.js, accountsConfig(s.opts.Logger)); err != nil {
		return err
	}
	if s.keys, err = kv.Open[gatewaystorev1.ApiKey](ctx, s.js, cfg(apiKeysBucket)); err != nil {
		return err
	}
	if s.proofs, err = kv.Open[gatewaystorev1.Proof](ctx, s.js, cfg(proofsBucket)); err != nil {
		return err
	}
	if s.deletions, err = kv.Open[gatewaystorev1.Deletion](ctx, s.js, cfg(deletionsBucket)); err != nil {
		return err
	}
	if s.keyLists, err = kv.Open[gatewaystorev1.ApiKeyList](ctx, s.js, cfg(apiKeyListsBucket)); err != nil {
		return err
	}
	changed := func(string) {
		if s.opts.Changed != nil {
			s.opts.Changed()
		}
	}
	s.copies = copies{
		workspaces: kv.NewCopy(s.workspaces, kv.CopyConfig[*gatewaystorev1.Workspace]{Metrics: s.opts.Metrics}),
		teams:      kv.NewCopy(s.teams, kv.CopyConfig[*gatewaystorev1.Team]{Metrics: s.opts.Metrics, Summarize: standingOf, OnChange: changed}),
		accounts:   kv.NewCopy(s.accounts, kv.CopyConfig[*gatewaystorev1.Account]{Metrics: s.opts.Metrics, OnChange: changed}),
		keys:       kv.NewCopy(s.keys, kv.CopyConfig[*gatewaystorev1.ApiKey]{Metrics: s.opts.Metrics, OnChange: changed}),
	}
	return nil
}

// Watch keeps the copies up to date until ctx is done. Call it after Open; reads work without it too,
// from the leader.
func (s *Store) Watch(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{s.copies.workspaces.Run, s.copies.teams.Run, s.copies.accounts.Run, s.copies.keys.Run} {
		group.Go(func() error { return run(ctx) })
	}
	return group.Wait()
}

// StreamName is the stream behind the workspaces bucket, whose changes are published as events.
func (s *Store) StreamName() string { return s.workspaces.StreamName() }

// Intact is nil, or says which records were found lost.
func (s *Store) Intact() error {
	return errors.Join(s.workspaces.Intact(), s.members.Intact(), s.teams.Intact(), s.accounts.Intact(), s.keys.Intact(), s.keyLists.Intact(), s.deletions.Intact())
}

// SessionEpoch returns the epoch that sessions of the subject must have, and the one with that id where
// it is listed.
func (s *Store) SessionEpoch(ctx context.Context, subject, id string) (uint64, *gatewaystorev1.ListedSession, error) {
	a, err := s.Account(ctx, subject)
	return a.GetSessionEpoch(), Session(a, id), err
}

// RaiseSessionEpoch ends all sessions of the subject.
func (s *Store) RaiseSessionEpoch(ctx context.Context, subject string) error {
	_, _, err := s.accounts.Update(ctx, kv.EncodeKey(subject), func(a *gatewaystorev1.Account) (*gatewaystorev1.Account, error) {
		if a == nil {
			a = &gatewaystorev1.Account{Subject: subject}
		}
		a.SessionEpoch++
		a.Sessions = nil
		return a, nil
	})
	return kv.ToAPI(err)
}

// WorkspaceNotFound is the error of a workspace that is not there or is not the caller's: which of both is not said.
func WorkspaceNotFound(id string) error {
	return apierr.Newf(apierr.ReasonWorkspaceNotFound,
		"There is no workspace %q, or you are not a member of it. Check the id, create the workspace, or ask to be made a member.", id)
}
