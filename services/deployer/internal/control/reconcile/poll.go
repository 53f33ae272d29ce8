package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	records "devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/outcome"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// seen is an app and its lane as they were before Bitbucket was asked. What Bitbucket answers about
// a branch or tag counts only if the lane has noted nothing about it since: a delivery that came in
// between is newer.
type seen struct {
	key   lane.Key
	app   *storev1.App
	lane  *storev1.Lane
	rev   uint64
	known lane.Known
}

// glob is the app's pattern of branches; none when it watches a single one.
func (s seen) glob() []string {
	if rules.IsGlob(s.app.GetBranch()) {
		return []string{s.app.GetBranch()}
	}
	return nil
}

// tags are the app's patterns of tags; none while pushes do not deploy.
func (s seen) tags() []string {
	if !s.app.GetAutoDeploy() {
		return nil
	}
	return s.app.GetRules().GetTags()
}

// polling is one poll of a repository.
type polling struct {
	state  *storev1.Reconciliation
	found  remote.Heads
	name   string // that was asked
	proven bool   // the name is the repository's
	atOnce bool   // no delivery is on its way
	// resumed is whether deliveries were turned away until now.
	resumed bool
	time    time.Time            // of the poll
	hook    *storev1.WebhookView // as far as is known; nil for none
	since   map[string]time.Time // of what was missing before, by key
	made    map[string][]int32   // deployments, by app
	turned  map[string]decision  // what a rule turned away last, by app
	// proposed are the apps about whose pushes a worker decides.
	proposed []seen
	// missing are the heads that no delivery has spoken of yet, by key.
	missing map[string]*storev1.Missing
	// distances are what was counted, for other apps of the repository.
	distances map[pair]*storev1.Distance
	next      time.Time // when to poll again; zero as usual
}

// again has the repository polled again at a time.
func (l *polling) again(at time.Time) {
	if l.next.IsZero() || at.Before(l.next) {
		l.next = at
	}
}

func missingKey(m *storev1.Missing) string {
	return m.GetBranch() + "\n" + m.GetTag() + "\n" + m.GetHash()
}

// maxMissing bounds the heads whose deliveries are waited for; the others' turn comes after them.
const maxMissing = 500

// poll compares a repository's branches and tags with what the lanes saw. It changes state, which
// the caller stores. It returns a time when the next poll should not be at the usual one.
func (r *Reconciler) poll(ctx context.Context, workspace, repository string, state *storev1.Reconciliation) (time.Time, error) {
	v, err := r.view(ctx, workspace, repository)
	if err != nil {
		return time.Time{}, err
	}
	idx := v.index
	r.mu.Lock()
	delete(r.behind, workspace+"."+repository) // once: whatever is not counted now, the next poll counts
	r.mu.Unlock()
	connection, err := r.cfg.Connections.Shown(ctx, workspace)
	if err != nil {
		return time.Time{}, err
	}
	if connection.GetPaused() != nil {
		r.mu.Lock()
		delete(r.asked, workspace+"."+repository)
		r.mu.Unlock()
		return time.Time{}, r.answer(ctx, workspace, state, &polling{}, records.Disconnected)
	}
	if outside := records.Outside(connection, idx); outside != nil {
		r.mu.Lock()
		delete(r.asked, workspace+"."+repository)
		r.mu.Unlock()
		return time.Time{}, r.answer(ctx, workspace, state, &polling{}, strings.TrimSuffix(outside.GetMessage(), "."))
	}
	if r.cfg.Learn != nil {
		r.cfg.Learn(workspace, idx.GetFullName(), idx.GetBitbucketWorkspace())
	}
	l := &polling{state: state, resumed: state.GetResumed(), time: r.cfg.Now(), hook: idx.GetWebhook(), since: map[string]time.Time{}, made: map[string][]int32{}, turned: map[string]decision{}, missing: map[string]*storev1.Missing{}, distances: map[pair]*storev1.Distance{}}
	for _, m := range state.GetMissing() {
		l.since[missingKey(m)] = m.GetTime().AsTime()
	}
	apps, err := r.watchers(ctx, workspace, v, l)
	if err != nil {
		return time.Time{}, err
	}
	if len(apps) == 0 && !r.isRequested(workspace, repository) {
		state.Missing = nil
		return l.next, r.answer(ctx, workspace, state, l, "no app watches this repository")
	}
	if l.found, l.name, err = r.heads(ctx, idx, apps, state); err != nil {
		next := r.failed(state, err)
		return next, errors.Join(err, r.unanswered(ctx, idx, state, err))
	}
	if err := r.answers(ctx, workspace, repository, idx, state); err != nil {
		return time.Time{}, err
	}
	if len(apps) == 0 {
		return time.Time{}, nil // only deployments waited
	}
	l.forget()
	// Where Bitbucket cannot reach us, and of what was turned away, no delivery is on its way.
	l.atOnce = len(state.GetAsks()) > 0 || l.resumed || idx.GetWebhook().GetReason() == string(apierr.ReasonNoPublicURL)
	for _, s := range apps {
		now, err := r.compare(ctx, s, l)
		if errors.Is(err, errRenamed) {
			return r.cfg.Now(), err // under its own name
		}
		if err != nil {
			return time.Time{}, err
		}
		r.count(ctx, s, now, l)
	}
	state.Missing, state.Resumed = nil, false
	for _, m := range l.missing {
		state.Missing = append(state.Missing, m)
	}
	slices.SortFunc(state.Missing, func(a, b *storev1.Missing) int { return strings.Compare(missingKey(a), missingKey(b)) })
	if !l.next.IsZero() && len(state.GetAsks()) > 0 && len(l.made)+len(l.turned)+len(l.proposed) == 0 {
		return l.next, nil // a lane changed under us: the asks are answered by the next poll
	}
	return l.next, r.answer(ctx, workspace, state, l, "Devpilot compared the branches with Bitbucket, and no watched branch had moved")
}

// settling is how long a save may take from the index to the app's record.
const settling = time.Minute

// watchers reads the apps that watch the repository, and their lanes: those too whose auto-deploy is off.
func (r *Reconciler) watchers(ctx context.Context, workspace string, v view, poll *polling) (apps []seen, err error) {
	var done []string
	for _, w := range v.index.GetWatches() {
		k := lane.Key{Workspace: workspace, App: w.GetApp()}
		a, _, err := v.apps.Get(ctx, k.String())
		if err != nil && !errors.Is(err, kv.ErrNotFound) {
			return nil, fmt.Errorf("reconcile: read app %s: %w", k, err)
		}
		if age := r.cfg.Now().Sub(time.Unix(0, w.GetVersion())); w.GetVersion() > a.GetVersion() && age < settling {
			poll.again(r.cfg.Now().Add(time.Second)) // it is being saved
		}
		if err != nil || slices.Contains(done, w.GetApp()) {
			continue
		}
		done = append(done, w.GetApp())
		if a.GetRepository() != v.index.GetRepository() {
			continue
		}
		l, rev, err := v.lanes.Get(ctx, k.String())
		if err != nil && !errors.Is(err, kv.ErrNotFound) {
			return nil, fmt.Errorf("reconcile: read lane %s: %w", k, err)
		}
		if l == nil {
			l = &storev1.Lane{}
		}
		if l.GetRetired() || l.GetGeneration() != a.GetGeneration() {
			continue
		}
		s := seen{key: k, app: a, lane: l, rev: rev, known: lane.Known{Repository: a.GetRepository(), Lane: l}}
		if _, sure := s.known.Head(lane.Branch(a.GetBranch())); !sure || len(s.glob())+len(s.tags()) > 0 {
			if s.known, err = r.cfg.Dispatcher.Known(ctx, k, l, a.GetRepository()); err != nil {
				return nil, err
			}
		}
		apps = append(apps, s)
	}
	return apps, nil
}

// wanted are the branches and tags that any of the apps watches.
func wanted(apps []seen) remote.Wanted {
	w := remote.Wanted{Branch: func(name string) bool {
		return slices.ContainsFunc(apps, func(s seen) bool { return rules.MatchBranch(s.app.GetBranch(), name) })
	}}
	if slices.ContainsFunc(apps, func(s seen) bool { return len(s.tags()) > 0 }) {
		w.Tag = func(name string) bool {
			return slices.ContainsFunc(apps, func(s seen) bool { return rules.MatchTag(s.tags(), name) })
		}
	}
	return w
}

func (r *Reconciler) isRequested(workspace, repository string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[workspace+"."+repository]
}

// failed notes a poll that failed, and returns when the next one is where Bitbucket named a time.
func (r *Reconciler) failed(state *storev1.Reconciliation, err error) (next time.Time) {
	now := r.cfg.Now()
	state.Failures++
	if state.GetFailingSince() == nil {
		state.FailingSince = timestamp(now)
	}
	state.NotBefore = nil
	if m := (*remote.Error)(nil); errors.As(err, &m) && m.RetryAfter > 0 {
		next = now.Add(m.RetryAfter)
		state.NotBefore = timestamp(next)
	}
	return next
}

// believedFailures is how many polls in a row must fail until people are told that Bitbucket does not
// answer.
const believedFailures = 2

// unanswered notes for people that polls fail: at once where the next one is not soon, for until then nobody
// knows where the branches are.
func (r *Reconciler) unanswered(ctx context.Context, idx *storev1.RepositoryIndex, state *storev1.Reconciliation, err error) error {
	var m *remote.Error
	if idx.GetUnanswered() != nil || !errors.As(err, &m) || state.GetFailures() < believedFailures && m.RetryAfter <= r.cfg.Interval {
		return nil
	}
	return r.cfg.Apps.Answered(ctx, idx.GetWorkspace(), idx.GetRepository(), &storev1.Trouble{Reason: m.Reason, Message: m.Message, Time: state.GetFailingSince()})
}

// answers notes that Bitbucket answers about a repository. What waited for that goes on.
func (r *Reconciler) answers(ctx context.Context, workspace, repository string, idx *storev1.RepositoryIndex, state *storev1.Reconciliation) error {
	if state.GetFailures() > 0 || r.isRequested(workspace, repository) {
		if err := r.carryOn(ctx, workspace, idx); err != nil {
			return err
		}
	}
	state.Failures, state.FailingSince, state.NotBefore = 0, nil, nil
	if idx.GetUnanswered() != nil {
		if err := r.cfg.Apps.Answered(ctx, workspace, repository, nil); err != nil {
			return err
		}
	}
	r.mu.Lock()
	delete(r.asked, workspace+"."+repository)
	r.mu.Unlock()
	if idx.GetUnreachable() == nil { // as usual: nothing is written, and nothing read for it
		return nil
	}
	return r.cfg.Apps.Reached(ctx, workspace, repository, nil)
}

func timestamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }

// heads asks Bitbucket, once more under the repository's new name if it was renamed.
func (r *Reconciler) heads(ctx context.Context, idx *storev1.RepositoryIndex, apps []seen, state *storev1.Reconciliation) (heads remote.Heads, name string, err error) {
	workspace, repository, want := idx.GetWorkspace(), idx.GetRepository(), wanted(apps)
	if name = idx.GetFullName(); name == "" || idx.GetDoubtedBy() != "" {
		if name, err = r.cfg.Apps.FullName(ctx, workspace, repository); err != nil {
			return remote.Heads{}, "", err
		}
	}
	heads, err = r.cfg.Heads.Heads(ctx, workspace, name, want)
	if remote.IsGone(err) {
		if renamed, rerr := r.cfg.Apps.Renamed(ctx, workspace, repository); rerr == nil && renamed != name {
			name = renamed
			heads, err = r.cfg.Heads.Heads(ctx, workspace, name, want)
		}
	}
	if err == nil && heads.Empty {
		err = r.empty(ctx, workspace, repository, name, apps, state)
	}
	var m *remote.Error
	if errors.As(err, &m) && !m.Temporary && r.unreachable(ctx, workspace, repository, m, state) {
		trouble := &storev1.Trouble{Reason: m.Reason, Message: m.Message, Time: timestamppb.New(r.cfg.Now())}
		if err := r.cfg.Apps.Reached(ctx, workspace, repository, trouble); err != nil {
			return remote.Heads{}, "", err
		}
	}
	return heads, name, err
}

// unreachable tells whether the account has really lost a repository. Polls must have failed for a
// while, and the REST API must say the same, because a single answer may be wrong.
func (r *Reconciler) unreachable(ctx context.Context, workspace, repository string, m *remote.Error, state *storev1.Reconciliation) bool {
	if m.Reason != string(apierr.ReasonRepositoryNotFound) {
		return true // in Bitbucket's own words
	}
	if state.GetFailingSince() == nil || r.cfg.Now().Sub(state.GetFailingSince().AsTime()) < r.cfg.Doubt {
		return false
	}
	if r.cfg.Witness == nil {
		return true
	}
	if !r.around(state) {
		return false
	}
	_, confirmed := r.cfg.Witness.Well(ctx, workspace, repository, "", m.Reason)
	return confirmed
}

// empty tells whether an answer without any branch or tag is to be doubted: it is where something
// was seen before, or where the baseline is not noted yet, since all that the next answer has would
// then count as new.
func (r *Reconciler) empty(ctx context.Context, workspace, repository, name string, apps []seen, state *storev1.Reconciliation) error {
	if r.cfg.Witness == nil || !slices.ContainsFunc(apps, func(s seen) bool { return !settledEmpty(s) }) {
		return nil
	}
	doubtful := &remote.Error{
		Reason: string(apierr.ReasonBitbucketUnavailable), Temporary: true, Message: fmt.Sprintf("Bitbucket's git lists no branch and no tag of %s, and its API does not say the same.", name),
	}
	if !r.around(state) {
		return doubtful
	}
	empty, err := r.cfg.Witness.Empty(ctx, workspace, repository)
	if err == nil && empty {
		return nil
	}
	doubtful.Err = err
	return doubtful
}

// gone tells whether a branch or tag that has been missing for a while is gone. Of a branch the
// REST API must say the same.
func (r *Reconciler) gone(ctx context.Context, c change, s seen, l *polling) bool {
	if c.ref.IsTag() || r.cfg.Witness == nil {
		return true
	}
	if !r.around(l.state) {
		l.again(r.cfg.Now().Add(min(asksAround, r.cfg.Doubt)))
		return false
	}
	_, confirmed := r.cfg.Witness.Well(ctx, s.key.Workspace, s.app.GetRepository(), c.ref.Name(), string(apierr.ReasonBranchNotFound))
	return confirmed
}

// asked says why a delivery made us poll.
func asked(a *storev1.Ask) (reason, said string) {
	switch n := a.GetUnreadable(); n {
	case 0:
		return "NO_CHANGES", "The delivery listed no changes"
	case 1:
		return "CHANGE_UNREADABLE", "A change of the delivery cannot be read"
	default:
		return "CHANGE_UNREADABLE", fmt.Sprintf("%d changes of the delivery cannot be read", n)
	}
}

// answer says what came of the deliveries that made us poll.
func (r *Reconciler) answer(ctx context.Context, workspace string, state *storev1.Reconciliation, l *polling, otherwise string) error {
	var out []*webhookv1.RecordedOutcome
	for _, a := range state.GetAsks() {
		add := func(o *webhookv1.DeliveryOutcome) {
			o.Change, o.Time = a.GetChange(), timestamppb.New(r.cfg.Now())
			out = append(out, &webhookv1.RecordedOutcome{Workspace: workspace, Webhook: a.GetWebhook(), Delivery: a.GetDelivery(), Outcome: o})
		}
		ignored := func(app, reason, message string) {
			add(&webhookv1.DeliveryOutcome{App: app, Kind: webhookv1.DeliveryOutcome_IGNORED, Reason: reason, Message: message})
		}
		for app, numbers := range l.made {
			for _, n := range numbers {
				add(outcome.Deployment(app, &deployerv1.Deployment{Number: n}))
			}
		}
		for app, d := range l.turned {
			ignored(app, d.verdict.Reason, strings.TrimSuffix(d.verdict.Message, "."))
		}
		for _, s := range l.proposed {
			_, offline := r.cfg.Servers.Offline(s.app.GetServer())
			add(outcome.Deciding(s.key.App, s.app.GetServer(), offline))
		}
		if len(l.made)+len(l.turned)+len(l.proposed) == 0 {
			reason, said := asked(a)
			ignored("", reason, said+": "+otherwise)
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
