package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/gate"
	"devpilot.io/bitbucket/services/deployer/internal/lane"
	"devpilot.io/bitbucket/services/deployer/internal/mirror"
	"devpilot.io/bitbucket/services/deployer/internal/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// seen is an app and its lane as it was before Bitbucket was asked: what is found is accepted at
// that revision only, since a delivery that comes in between knows better.
type seen struct {
	key  lane.Key
	app  *storev1.App
	lane *storev1.Lane
	rev  uint64
}

// look compares a repository's heads with what the lanes saw. It changes state, which the caller
// stores, and returns when to look again where that is sooner or later than usual.
func (r *Reconciler) look(ctx context.Context, workspace, repository string, state *storev1.Reconciliation) (time.Time, error) {
	idx, err := r.cfg.Apps.Index(ctx, workspace, repository)
	if err != nil {
		return time.Time{}, err
	}
	connection, err := r.cfg.Connections.Get(ctx, workspace)
	if err != nil {
		return time.Time{}, err
	}
	if connection.GetPaused() != nil {
		return time.Time{}, r.answer(ctx, workspace, state, nil, "Bitbucket was disconnected; connect again and Devpilot catches up")
	}
	apps, branches, err := r.watchers(ctx, workspace, idx)
	if err != nil {
		return time.Time{}, err
	}
	if len(apps) == 0 {
		state.Missing = nil
		return time.Time{}, r.answer(ctx, workspace, state, nil, "The delivery listed no changes, and no app watches this repository")
	}
	heads, err := r.heads(ctx, workspace, repository, branches)
	if err != nil {
		state.Failures++
		return r.cfg.Now().Add(r.backoff(state.GetFailures(), err)), err
	}
	state.Failures = 0
	if err := r.cfg.Apps.Reached(ctx, workspace, repository, nil); err != nil {
		return time.Time{}, err
	}
	// Where Bitbucket cannot reach us no delivery is on its way.
	atOnce := len(state.GetAsks()) > 0 || idx.GetWebhook().GetReason() == string(apierr.ReasonNoPublicURL)
	made := map[string]int32{}
	var missing []*storev1.Missing
	next := time.Time{}
	for _, s := range apps {
		found, again, err := r.compareAll(ctx, s, heads, state, atOnce, made)
		if err != nil {
			return time.Time{}, err
		}
		for _, m := range found {
			if !slices.ContainsFunc(missing, func(x *storev1.Missing) bool { return x.GetBranch() == m.GetBranch() }) {
				missing = append(missing, m)
			}
		}
		if !again.IsZero() && (next.IsZero() || again.Before(next)) {
			next = again
		}
	}
	state.Missing = missing
	if !next.IsZero() && len(state.GetAsks()) > 0 && len(made) == 0 {
		return next, nil // a lane changed under us: the asks are answered by the next look
	}
	return next, r.answer(ctx, workspace, state, made, "The delivery listed no changes; Devpilot looked, and no watched branch had moved")
}

// watchers reads the apps that watch the repository by auto-deploy, and their lanes.
func (r *Reconciler) watchers(ctx context.Context, workspace string, idx *storev1.RepositoryIndex) (apps []seen, branches []string, err error) {
	var done []string
	for _, w := range idx.GetWatches() {
		if slices.Contains(done, w.GetApp()) {
			continue
		}
		done = append(done, w.GetApp())
		k := lane.Key{Workspace: workspace, App: w.GetApp()}
		a, err := r.cfg.Apps.App(ctx, k)
		if apierr.Has(err, apierr.ReasonAppNotFound) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		if !a.GetAutoDeploy() || a.GetRepository() != idx.GetRepository() {
			continue
		}
		l, rev, err := r.cfg.Keeper.Get(ctx, k)
		if err != nil {
			return nil, nil, err
		}
		if l.GetRetired() || l.GetGeneration() != a.GetGeneration() {
			continue
		}
		apps = append(apps, seen{k, a, l, rev})
		if !slices.Contains(branches, a.GetBranch()) {
			branches = append(branches, a.GetBranch())
		}
	}
	return apps, branches, nil
}

// ask asks Bitbucket for the heads of branches, and of all branches that match a pattern among them.
func (r *Reconciler) ask(ctx context.Context, workspace, fullName string, branches []string) (map[string]string, error) {
	var names, patterns []string
	for _, b := range branches {
		if rules.IsGlob(b) {
			patterns = append(patterns, b)
		} else {
			names = append(names, b)
		}
	}
	heads, err := r.cfg.Heads.Heads(ctx, workspace, fullName, names)
	if err != nil || len(patterns) == 0 {
		return heads, err
	}
	for _, p := range patterns {
		under, err := r.cfg.Heads.HeadsUnder(ctx, workspace, fullName, rules.Prefix(p))
		if err != nil {
			return nil, err
		}
		for b, hash := range under {
			if rules.MatchBranch(p, b) {
				heads[b] = hash
			}
		}
	}
	return heads, nil
}

// heads asks Bitbucket, once more under the repository's new name if it was renamed.
func (r *Reconciler) heads(ctx context.Context, workspace, repository string, branches []string) (map[string]string, error) {
	name, err := r.cfg.Apps.FullName(ctx, workspace, repository)
	if err != nil {
		return nil, err
	}
	heads, err := r.ask(ctx, workspace, name, branches)
	if mirror.IsGone(err) {
		if renamed, rerr := r.cfg.Apps.Renamed(ctx, workspace, repository); rerr == nil && renamed != name {
			heads, err = r.ask(ctx, workspace, renamed, branches)
		}
	}
	var m *mirror.Error
	if errors.As(err, &m) && !m.Temporary {
		trouble := &storev1.Trouble{Reason: m.Reason, Message: m.Message, Time: timestamppb.New(r.cfg.Now())}
		if err := r.cfg.Apps.Reached(ctx, workspace, repository, trouble); err != nil {
			return nil, err
		}
	}
	return heads, err
}

// backoff spreads looks at a repository that cannot be reached, up to half an hour.
func (r *Reconciler) backoff(failures int32, err error) time.Duration {
	d := min(r.cfg.Interval<<min(failures-1, 10), 30*time.Minute)
	var m *mirror.Error
	if errors.As(err, &m) {
		d = max(d, m.RetryAfter)
	}
	return d
}

// compareAll holds the heads of all branches that an app watches against what its lane saw. A lane
// takes one change a look: what it saw is known at one revision only, and the next look follows at
// once.
func (r *Reconciler) compareAll(ctx context.Context, s seen, heads map[string]string, state *storev1.Reconciliation, atOnce bool, made map[string]int32) (missing []*storev1.Missing, next time.Time, err error) {
	repository, pattern := s.app.GetRepository(), s.app.GetBranch()
	if !rules.IsGlob(pattern) {
		m, next, err := r.compare(ctx, s, pattern, heads[pattern], state, atOnce, made)
		if m != nil {
			missing = append(missing, m)
		}
		return missing, next, err
	}
	matching := map[string]string{}
	for b, hash := range heads {
		if rules.MatchBranch(pattern, b) {
			matching[b] = hash
		}
	}
	if !lane.PatternSeen(s.lane, repository, pattern) {
		_, err := r.cfg.Keeper.ChangeAt(ctx, s.key, s.lane, s.rev, func(l *storev1.Lane) error {
			lane.BaselinePattern(l, repository, pattern, matching, r.cfg.Now())
			return nil
		})
		if errors.Is(err, kv.ErrConflict) {
			return nil, r.cfg.Now().Add(time.Second), nil
		}
		return nil, time.Time{}, err
	}
	for _, b := range lane.Moved(s.lane, repository, pattern, matching) {
		m, again, err := r.compare(ctx, s, b, matching[b], state, atOnce, made)
		if err != nil {
			return nil, time.Time{}, err
		}
		if m == nil { // the lane has changed: the others are looked at with what it is by then
			return missing, r.cfg.Now().Add(time.Second), nil
		}
		missing = append(missing, m)
		if next.IsZero() || again.Before(next) {
			next = again
		}
	}
	return missing, next, nil
}

// compare holds a branch's head against what one lane saw. It returns the head as missing while its
// delivery may still come, and when to look again.
func (r *Reconciler) compare(ctx context.Context, s seen, branch, head string, state *storev1.Reconciliation, atOnce bool, made map[string]int32) (*storev1.Missing, time.Time, error) {
	now := r.cfg.Now()
	last := lane.HeadOf(s.lane, s.app.GetRepository(), branch)
	var err error
	switch {
	case last == nil && !rules.IsGlob(s.app.GetBranch()):
		_, err = r.cfg.Keeper.ChangeAt(ctx, s.key, s.lane, s.rev, func(l *storev1.Lane) error {
			lane.Baseline(l, s.app.GetRepository(), branch, head, now)
			return nil
		})
	case last.GetHash() == head:
		return nil, time.Time{}, nil
	case head == "":
		_, err = r.cfg.Keeper.ChangeAt(ctx, s.key, s.lane, s.rev, func(l *storev1.Lane) error {
			return lane.Gone(l, s.app.GetRepository(), branch, now)
		})
	default:
		since := now
		for _, m := range state.GetMissing() {
			if m.GetBranch() == branch && m.GetHash() == head {
				since = m.GetTime().AsTime()
			}
		}
		missing := &storev1.Missing{Branch: branch, Hash: head, Time: timestamppb.New(since)}
		if !atOnce && now.Sub(since) < r.cfg.Grace {
			return missing, since.Add(r.cfg.Grace), nil
		}
		if err = r.accept(ctx, s, branch, last.GetHash(), head, state, made); errors.Is(err, kv.ErrConflict) {
			return missing, now.Add(time.Second), nil
		}
	}
	if errors.Is(err, kv.ErrConflict) {
		return nil, now.Add(time.Second), nil
	}
	return nil, time.Time{}, err
}

// accept makes a deployment of a head that no delivery spoke of.
func (r *Reconciler) accept(ctx context.Context, s seen, branch, old, head string, state *storev1.Reconciliation, made map[string]int32) error {
	now := r.cfg.Now()
	ask := lane.Ask{
		Event: fmt.Sprintf("reconciled:%s:%s:%s:%d", s.app.GetRepository(), branch, head, s.rev), ReceiveTime: now,
		Trigger: deployerv1.Deployment_RECONCILED, Repository: s.app.GetRepository(), Branch: branch, Server: s.app.GetServer(), Now: now,
		CancelRunning: s.app.GetCancelRunning(),
		Commit:        &deployerv1.DeploymentCommit{Hash: head},
		Actor:         &deployerv1.DeploymentActor{Kind: deployerv1.DeploymentActor_SYSTEM, Label: "Devpilot"},
	}
	if asks := state.GetAsks(); len(asks) > 0 { // a delivery did come; it only did not say what changed
		a := asks[len(asks)-1]
		ask.Trigger, ask.ReceiveTime = deployerv1.Deployment_PUSH, a.GetReceiveTime().AsTime()
		ask.Delivery = &deployerv1.DeliveryReference{Webhook: a.GetWebhook(), Number: a.GetDelivery()}
	}
	verdict, err := r.cfg.Gate.Decide(ctx, s.app, gate.Push{Branch: branch, Old: old, New: head, Created: old == ""})
	if err != nil {
		return err
	}
	if !verdict.Deploys {
		_, err := r.cfg.Keeper.ChangeAt(ctx, s.key, s.lane, s.rev, func(l *storev1.Lane) error { return lane.TurnAway(l, ask) })
		if err == nil {
			r.cfg.Logger.InfoContext(ctx, "push found by looking, and turned away", slog.String(logs.KeyApp, s.key.App), slog.String(logs.KeyBranch, branch),
				slog.String(logs.KeyReason, verdict.Reason))
		}
		return err
	}
	ask.Notes = verdict.Notes
	var d lane.Decision
	l, err := r.cfg.Keeper.ChangeAt(ctx, s.key, s.lane, s.rev, func(l *storev1.Lane) (err error) {
		d, err = lane.Accept(l, ask)
		return err
	})
	if err != nil {
		return err
	}
	made[s.key.App] = d.Number
	r.cfg.Logger.InfoContext(ctx, "push found by looking", slog.String(logs.KeyApp, s.key.App), slog.String(logs.KeyBranch, branch),
		slog.String(logs.KeyCommit, head), slog.Int(logs.KeyDeployment, int(d.Number)))
	return r.cfg.Keeper.Settle(ctx, s.key, l)
}

// answer says what came of the deliveries that listed no changes.
func (r *Reconciler) answer(ctx context.Context, workspace string, state *storev1.Reconciliation, made map[string]int32, otherwise string) error {
	var out []*webhookv1.RecordedOutcome
	for _, a := range state.GetAsks() {
		base := &webhookv1.DeliveryOutcome{Change: a.GetChange(), Time: timestamppb.New(r.cfg.Now())}
		add := func(set func(o *webhookv1.DeliveryOutcome)) {
			o := proto.CloneOf(base)
			set(o)
			out = append(out, &webhookv1.RecordedOutcome{Workspace: workspace, Webhook: a.GetWebhook(), Delivery: a.GetDelivery(), Outcome: o})
		}
		for app, number := range made {
			add(func(o *webhookv1.DeliveryOutcome) {
				o.App, o.Kind, o.Deployment, o.Message = app, webhookv1.DeliveryOutcome_DEPLOYMENT, number, fmt.Sprintf("Deployed as #%d", number)
			})
		}
		if len(made) == 0 {
			add(func(o *webhookv1.DeliveryOutcome) {
				o.Kind, o.Reason, o.Message = webhookv1.DeliveryOutcome_IGNORED, "NO_CHANGES", otherwise
			})
		}
	}
	if len(out) == 0 {
		return nil
	}
	if err := r.cfg.Outcomes.Put(ctx, out...); err != nil {
		return err
	}
	state.Asks = nil
	return nil
}
