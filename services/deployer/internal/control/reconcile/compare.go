package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/policy"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

const (
	// maxDecisions is how many branches and tags of one app a poll decides about at a time: each may
	// add two changes of deployments' records to the lane.
	maxDecisions = 100
)

// change is a branch or tag that is not what was seen last.
type change struct {
	ref      lane.Ref
	old, new string // commits; empty for none
	baseline bool   // nothing was known of the branch, and this is where it begins
}

// decision is what comes of a change.
type decision struct {
	change
	ask     lane.Request
	verdict rules.Verdict
	propose bool // a worker decides: the rules need the repository
}

// compare finds where Bitbucket's branches and tags differ from what the app's lane saw, decides
// about the differences, and then remembers all that is there. It returns the lane as it is then.
func (r *Reconciler) compare(ctx context.Context, s seen, l *polling) (*storev1.Lane, error) {
	branches, tags := r.found(ctx, s, l)
	changes := append(changes(s, false, branches), changes(s, true, tags)...)
	if decided := slices.DeleteFunc(slices.Clone(changes), func(c change) bool { return lane.UndecidedOf(s.lane, c.ref) }); len(decided) < len(changes) {
		changes = decided // the others are left to a poll after their decision
		if len(l.state.GetAsks()) > 0 {
			l.again(r.cfg.Now().Add(r.cfg.Interval))
		}
	}
	if !s.app.GetAutoDeploy() { // nothing deploys: where the branch is, is noted
		for i := range changes {
			changes[i].baseline = changes[i].new != ""
		}
	}
	due, missing := r.ripe(ctx, s, changes, l)
	if len(due) > 0 || s.unnoted(branches, tags) {
		if err := r.prove(ctx, s.key.Workspace, s.app.GetRepository(), l); err != nil {
			return nil, err
		}
	}
	now, err := r.decide(ctx, s, due, missing, l)
	if err == nil {
		now, err = r.sight(ctx, s, now, changes, missing, branches)
	}
	if err != nil {
		return nil, err
	}
	maps.Copy(l.missing, missing)
	if s.app.GetAutoDeploy() {
		if err := r.retry(ctx, s, now, l); err != nil {
			return nil, err
		}
	}
	if len(s.glob())+len(s.tags()) == 0 {
		return now, nil // the lane has the one head that counts
	}
	noted, err := r.cfg.Dispatcher.Polled(ctx, s.key, s.known, now, branches, tags)
	if err == nil && !noted {
		l.again(r.cfg.Now().Add(time.Second))
	}
	return now, err
}

// found returns the branches and tags that the app watches. When there are more than can be
// remembered, none are returned, and their deliveries alone tell of them.
func (r *Reconciler) found(ctx context.Context, s seen, l *polling) (branches, tags lane.Found) {
	of := func(patterns []string, all map[string]string, match func(string) bool) lane.Found {
		heads := map[string]string{}
		for name, hash := range all {
			if match(name) {
				heads[name] = hash
			}
		}
		if len(heads) > lane.MaxRefs {
			r.cfg.Logger.WarnContext(ctx, "too many branches or tags match to look for missed pushes", slog.String(logs.KeyApp, s.key.App), slog.Int(logs.KeyCount, len(heads)))
			return lane.Found{}
		}
		return lane.Found{Patterns: patterns, Heads: heads, Time: r.cfg.Now(), Doubt: r.cfg.Doubt}
	}
	branches = of(s.glob(), l.found.Branches, func(name string) bool { return rules.MatchBranch(s.app.GetBranch(), name) })
	tags = of(s.tags(), l.found.Tags, func(name string) bool { return rules.MatchTag(s.tags(), name) })
	return branches, tags
}

// changes lists the branches, or the tags, that are not what the lane saw last. They are in the
// order of their names, with numbers compared as numbers, so that of several versions the newest is
// decided last.
func changes(s seen, areTags bool, found lane.Found) []change {
	ref, complete := lane.Branch, s.known.Complete(areTags, found.Patterns)
	if areTags {
		ref = lane.Tag
	}
	var out []change
	for name, hash := range found.Heads {
		old, known := s.known.Head(ref(name))
		single := !areTags && len(s.glob()) == 0
		switch {
		case known && old == hash:
		case known, complete:
			out = append(out, change{ref: ref(name), old: old, new: hash})
		case single:
			out = append(out, change{ref: ref(name), new: hash, baseline: true})
		}
	}
	// What is gone without the lane having heard of it. What only SeenRefs has goes from there.
	for r, h := range s.lane.GetHeads() {
		ref := lane.Ref(r)
		watched := rules.MatchBranch(s.app.GetBranch(), ref.Branch())
		if areTags {
			watched = rules.MatchTag(s.tags(), ref.Tag())
		}
		if _, there := found.Heads[ref.Name()]; ref.IsTag() == areTags && watched && !there && found.Heads != nil && h.GetHash() != "" && h.GetRepository() == s.app.GetRepository() {
			out = append(out, change{ref: ref, old: h.GetHash()})
		}
	}
	// The one watched branch does not exist and was never seen: note that, so that the push that
	// creates it counts as new.
	if branch := s.app.GetBranch(); !areTags && len(s.glob()) == 0 {
		if _, there := found.Heads[branch]; !there {
			if _, known := s.known.Head(lane.Branch(branch)); !known {
				out = append(out, change{ref: lane.Branch(branch), baseline: true})
			}
		}
	}
	slices.SortFunc(out, func(a, b change) int {
		return cmp.Or(natural(a.ref.Name(), b.ref.Name()), strings.Compare(string(a.ref), string(b.ref)))
	})
	return out
}

// ripe returns the changes that can be decided now. A new commit waits until its delivery has had
// time to come. A branch or tag that is missing waits longer, because Bitbucket may have answered
// from before its last push, or have left something out. All changes are noted as missing until
// they are decided.
func (r *Reconciler) ripe(ctx context.Context, s seen, all []change, l *polling) (out []change, missing map[string]*storev1.Missing) {
	now := r.cfg.Now()
	missing = map[string]*storev1.Missing{}
	for _, c := range all {
		gone := c.new == ""
		if c.baseline || l.atOnce && !gone {
			out = append(out, c)
			continue
		}
		m := &storev1.Missing{Branch: c.ref.Branch(), Tag: c.ref.Tag(), Hash: c.new, Time: timestamppb.New(now)}
		since, known := l.since[missingKey(m)]
		if !known && len(missing) >= maxMissing {
			continue
		}
		if known {
			m.Time = timestamppb.New(since)
		}
		missing[missingKey(m)] = m
		wait := r.cfg.Grace
		if gone {
			wait = max(r.cfg.Grace, r.cfg.Doubt)
		}
		switch {
		case !known || now.Sub(since) < wait:
			l.again(m.GetTime().AsTime().Add(wait))
		case !gone:
			l.state.MissedTime = timestamppb.New(now)
			out = append(out, c)
		case r.gone(ctx, c, s, l):
			out = append(out, c)
		}
	}
	return out, missing
}

// decide applies the app's rules to the changes, then changes its lane, and returns the lane. What
// is decided is no longer missing.
func (r *Reconciler) decide(ctx context.Context, s seen, due []change, missing map[string]*storev1.Missing, l *polling) (*storev1.Lane, error) {
	var decisions []decision
	for i, c := range due {
		if i == maxDecisions {
			l.again(r.cfg.Now().Add(time.Second)) // the rest follows
			break
		}
		d := decision{change: c, ask: r.ask(s, c, l)}
		if c.new != "" && !c.baseline {
			var decided bool
			var err error
			if d.verdict, decided, err = policy.Quick(ctx, s.app, policy.Of(s.lane, d.ask)); err != nil {
				return nil, err
			}
			d.propose = !decided || lane.Undecided(s.lane) || slices.ContainsFunc(decisions, func(d decision) bool { return d.propose })
			d.ask.Notes = d.verdict.Notes
		}
		decisions = append(decisions, d)
	}
	if len(decisions) == 0 {
		return s.lane, nil
	}
	var done *tally
	now, err := r.cfg.Dispatcher.Change(ctx, s.key, func(now *storev1.Lane) error {
		done = &tally{}
		return done.apply(s, now, decisions)
	})
	if err != nil && !errors.Is(err, lane.ErrRetired) {
		return nil, err
	}
	if errors.Is(err, lane.ErrRetired) || now == nil {
		return s.lane, nil
	}
	if done.again {
		l.again(r.cfg.Now().Add(time.Second))
	}
	for _, d := range done.decided() {
		delete(missing, missingKey(&storev1.Missing{Branch: d.ref.Branch(), Tag: d.ref.Tag(), Hash: d.new}))
	}
	r.tell(ctx, s, done, l)
	r.counted(done)
	if len(done.made)+len(done.proposed)+len(done.turned) > 0 || done.again {
		if err := r.cfg.Dispatcher.Dispatch(ctx, s.key, now); err != nil {
			return nil, err
		}
	}
	return now, nil
}

// tally is what came of decisions, made to one state of a lane.
type tally struct {
	made     []made
	proposed []decision
	turned   []decision
	gone     []decision
	again    bool // something is left to the next poll
}

type made struct {
	decision
	number int32
}

// decided are the changes that were decided about.
func (t *tally) decided() []decision {
	out := slices.Concat(t.turned, t.gone, t.proposed)
	for _, m := range t.made {
		out = append(out, m.decision)
	}
	return out
}

// apply makes those decisions that still hold: the lane has noted nothing about their branch or tag
// since it was read, which was before Bitbucket was asked.
func (t *tally) apply(s seen, now *storev1.Lane, decisions []decision) error {
	if now.GetRetired() || now.GetGeneration() != s.lane.GetGeneration() {
		return lane.ErrRetired
	}
	before, changed := now.GetHeadSeq(), false
	for _, d := range decisions {
		if !lane.Untouched(s.lane, now, d.ref) || lane.UndecidedOf(now, d.ref) {
			t.again = true
			continue
		}
		err := t.one(s, now, d)
		switch {
		case errors.Is(err, lane.ErrBacklog), errors.Is(err, lane.ErrFull), errors.Is(err, lane.ErrUndecided):
			t.again = true
		case errors.Is(err, lane.ErrSkip): // decided before
		case err != nil:
			return err
		default:
			changed = true
		}
	}
	if !changed && before == now.GetHeadSeq() {
		return lane.ErrSkip
	}
	return nil
}

func (t *tally) one(s seen, now *storev1.Lane, d decision) error {
	switch {
	case d.baseline:
		lane.Baseline(now, s.app.GetRepository(), d.ref.Name(), d.new, d.ask.Now)
		return nil
	case d.new == "":
		if err := lane.Gone(now, s.app.GetRepository(), d.ref, d.ask.Now); err != nil {
			return err
		}
		t.gone = append(t.gone, d)
		return nil
	case d.propose:
		if err := lane.Propose(now, d.ask.Candidate()); err != nil {
			return err
		}
		t.proposed = append(t.proposed, d)
		return nil
	case lane.Undecided(now):
		return lane.ErrUndecided
	case !d.verdict.Deploys:
		d.ask.Reason, d.ask.Message = d.verdict.Reason, d.verdict.Message
		if err := lane.TurnAway(now, d.ask); err != nil {
			return err
		}
		lane.NoteTurnedAway(now, &deployerv1.TurnedAwayPush{
			Branch: d.ref.Branch(), Tag: d.ref.Tag(), Commit: d.new, Reason: d.verdict.Reason, Message: d.verdict.Message, Time: timestamppb.New(d.ask.Now),
		})
		d.tellFound(now, &storev1.Decided{Reason: d.verdict.Reason, Message: strings.TrimSuffix(d.verdict.Message, ".")})
		t.turned = append(t.turned, d)
		return nil
	}
	accepted, err := lane.Accept(now, d.ask)
	if err != nil {
		return err
	}
	d.tellFound(now, &storev1.Decided{Number: accepted.Number})
	t.made = append(t.made, made{d, accepted.Number})
	return nil
}

// tell logs what came of the poll, and notes it for the deliveries that asked for it.
func (r *Reconciler) tell(ctx context.Context, s seen, t *tally, l *polling) {
	name := func(d decision) slog.Attr {
		if d.ref.IsTag() {
			return slog.String(logs.KeyTag, d.ref.Name())
		}
		return slog.String(logs.KeyBranch, d.ref.Name())
	}
	for _, m := range t.made {
		l.made[s.key.App] = append(l.made[s.key.App], m.number)
		r.cfg.Logger.InfoContext(ctx, "push found by polling", slog.String(logs.KeyApp, s.key.App), name(m.decision),
			slog.String(logs.KeyCommit, m.new), slog.Int(logs.KeyDeployment, int(m.number)))
	}
	for _, d := range t.proposed {
		l.proposed = append(l.proposed, s)
		r.cfg.Logger.InfoContext(ctx, "push found by polling, a worker decides", slog.String(logs.KeyApp, s.key.App), name(d), slog.String(logs.KeyCommit, d.new))
	}
	for _, d := range t.turned {
		l.turned[s.key.App] = d
		r.cfg.Logger.InfoContext(ctx, "push found by polling, and turned away", slog.String(logs.KeyApp, s.key.App), name(d),
			slog.String(logs.KeyReason, d.verdict.Reason))
	}
}

// ask is the wish for a deployment of a head that no delivery spoke of.
func (r *Reconciler) ask(s seen, c change, l *polling) lane.Request {
	now := r.cfg.Now()
	ask := lane.Request{
		Event: fmt.Sprintf("reconciled:%s:%s:%s:%d", s.app.GetRepository(), c.ref, c.new, s.rev), ReceiveTime: now,
		Trigger: deployerv1.Deployment_RECONCILED, Repository: s.app.GetRepository(), Branch: c.ref.Branch(), Tag: c.ref.Tag(), Server: s.app.GetServer(), Now: now,
		CancelRunning: s.app.GetCancelRunning(), Old: c.old, Created: c.old == "", Found: true,
		Commit: &deployerv1.DeploymentCommit{Hash: c.new},
		Actor:  &deployerv1.DeploymentActor{Kind: deployerv1.DeploymentActor_SYSTEM, Label: "Devpilot"},
	}
	asks := l.state.GetAsks()
	switch {
	case len(asks) > 0: // a delivery did come; it only did not say what changed
		a := asks[len(asks)-1]
		ask.Trigger, ask.ReceiveTime = deployerv1.Deployment_PUSH, a.GetReceiveTime().AsTime()
		ask.Delivery = &deployerv1.DeliveryReference{Webhook: a.GetWebhook(), Number: a.GetDelivery()}
		for _, a := range asks {
			ask.Askers = append(ask.Askers, &storev1.Asker{Webhook: a.GetWebhook(), Delivery: a.GetDelivery(), Change: a.GetChange()})
		}
	case c.new != "" && !c.baseline:
		ask.Askers = []*storev1.Asker{r.finder(s, c, l)}
	}
	return ask
}

// natural compares names; what is a number in both is compared as one: v1.9 comes before v1.10.
func natural(a, b string) int {
	for a != "" && b != "" {
		x, y := digits(a), digits(b)
		if x == 0 || y == 0 {
			if a[0] != b[0] {
				return cmp.Compare(a[0], b[0])
			}
			a, b = a[1:], b[1:]
			continue
		}
		m, n := strings.TrimLeft(a[:x], "0"), strings.TrimLeft(b[:y], "0")
		if c := cmp.Or(cmp.Compare(len(m), len(n)), strings.Compare(m, n)); c != 0 {
			return c
		}
		a, b = a[x:], b[y:]
	}
	return cmp.Compare(len(a), len(b))
}

// digits counts the digits that s begins with.
func digits(s string) int {
	return len(s) - len(strings.TrimLeft(s, "0123456789"))
}
