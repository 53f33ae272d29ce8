package app

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// Why a branch is behind, or not known. Reasons of rules, of deployments' troubles and of the
// connection's are passed on as they are.
const (
	syncDeploying  = "DEPLOYING"         // a deployment of it runs
	syncWaiting    = "WAITING"           // a deployment of it waits for its turn
	syncDeciding   = "DECIDING"          // a worker decides about its push
	syncAwaited    = "DELIVERY_AWAITED"  // a poll found its push, whose delivery may still come
	syncFailed     = "DEPLOYMENT_FAILED" // its deployment failed
	syncCancelled  = "DEPLOYMENT_CANCELLED"
	syncOff        = "AUTO_DEPLOY_OFF"
	syncUndeployed = "NOT_DEPLOYED"  // it was there before pushes deployed, and nobody deployed it
	syncUnseen     = "NOT_SEEN"      // nobody has looked yet
	syncNoBranch   = "NO_BRANCH"     // there is no such branch
	syncChosen     = "OLDER_RELEASE" // a person made an older release live
	syncCommit     = "COMMIT_CHOSEN" // a person chose a commit, which is live
	syncTag        = "TAG_CHOSEN"    // a person chose a tag, which is live
)

// standing is what Sync is made of.
type standing struct {
	app        *storev1.App
	lane       *storev1.Lane
	connection *storev1.Connection
	index      *storev1.RepositoryIndex
	live       *deployerv1.Deployment // nil when nothing is
	ref        lane.Ref               // the branch; empty when none was seen of a pattern's
	head       *storev1.Head          // nil when it was not seen
	told       *apps.Told             // a newer push, about which nothing was decided yet; nil for none
	made       *deployerv1.Deployment // what came of the head; nil when nothing did
	polls      string                 // how often the branch is polled, in words
	// offline says that nobody serves a server, nil when somebody does. It is nil where nobody asks.
	offline func(server string) *deployerv1.DeploymentError
}

// away is offline of a job's server.
func (st standing) away(job *storev1.Job) *deployerv1.DeploymentError {
	if st.offline == nil {
		return nil
	}
	return st.offline(job.GetServer())
}

// sync says how the app's branch stands to what is live. It asks nobody: the lane knows the branches that
// pushes and polls told of, and the repository's index whether polls are answered.
func (s *Service) sync(ctx context.Context, r *reading, p *parts, connection *storev1.Connection, live, latest *deployerv1.Deployment) (*deployerv1.Sync, error) {
	st := standing{app: p.app, lane: p.lane, connection: connection, index: p.index, live: live, polls: s.polls(p.key.Workspace, p.app.GetRepository()), offline: s.offline}
	st.watched()
	number := st.head.GetNumber()
	if job := p.lane.GetRunning().GetJob(); number == 0 && job != nil && p.lane.GetRunning().GetHash() == st.head.GetHash() {
		number = job.GetNumber()
	}
	if number == 0 {
		number = p.lane.GetLastNumber() // its record tells whether it was of this commit
	}
	if origin := lane.Origin(p.lane); p.lane.GetLive().GetChosen() && origin != live.GetNumber() { // who chose it says its record
		var err error
		if st.live, err = s.deployment(ctx, r, p.key, p.app, p.lane, origin); err != nil {
			return nil, err
		}
	}
	made := live
	switch number {
	case live.GetNumber():
	case latest.GetNumber():
		made = latest
	default:
		var err error
		if made, err = s.deployment(ctx, r, p.key, p.app, p.lane, number); err != nil {
			return nil, err
		}
	}
	if st.head.GetNumber() != 0 || made.GetCommit().GetHash() == st.head.GetHash() {
		st.made = made
	}
	return st.sync(), nil
}

// watched finds the branch that counts.
func (st *standing) watched() {
	st.ref, st.head = apps.WatchedHead(st.app, st.lane)
	of := st.ref
	if rules.IsGlob(st.app.GetBranch()) {
		of = ""
	}
	if st.told = apps.NewestTold(st.app, st.lane, of); st.told != nil && st.told.Ref != st.ref {
		st.ref, st.head = st.told.Ref, apps.ShownHead(st.app, st.lane, st.told.Ref)
	}
}

func (st standing) sync() *deployerv1.Sync {
	out := st.known()
	out.Branch, out.Commit = st.ref.Branch(), st.head.GetHash()
	if st.told != nil {
		out.Commit = st.told.Hash
	}
	if out.GetBranch() == "" && !rules.IsGlob(st.app.GetBranch()) {
		out.Branch = st.app.GetBranch()
	}
	// A branch that was behind is so whatever Bitbucket says now; that it is in sync is no longer known.
	trouble := st.connection.GetPaused()
	outside := apps.Outside(st.connection, st.index)
	if trouble == nil && outside != nil {
		trouble = outside
		if out.GetState() == deployerv1.Sync_BEHIND && out.GetReason() != syncDeploying {
			out.Reason, out.Message = outside.GetReason(), outside.GetMessage()
		}
	}
	if trouble == nil {
		trouble = st.index.GetUnreachable()
	}
	if trouble == nil {
		trouble = st.index.GetUnanswered()
	}
	if trouble != nil && out.GetReason() == syncAwaited { // neither is the delivery likely to come nor a poll
		out.Reason, out.Message = trouble.GetReason(), trouble.GetMessage()
	}
	if trouble != nil && out.GetState() != deployerv1.Sync_BEHIND {
		out.State, out.Reason, out.Since = deployerv1.Sync_UNKNOWN, trouble.GetReason(), trouble.GetTime()
		out.Message = "Where the branch is now is not known: " + trouble.GetMessage()
	}
	if out.GetState() == deployerv1.Sync_BEHIND && rules.IsGlob(st.app.GetBranch()) {
		st.sayAside(out)
	}
	if d := st.distance(); d != nil && slices.Contains(apart, out.GetState()) {
		out.Diverged = d.GetDiverged()
		if !d.GetDiverged() {
			out.Commits = d.GetCommits()
		}
	}
	return out
}

// apart are the states in which the branch's newest commit is not live.
var apart = []deployerv1.Sync_State{deployerv1.Sync_BEHIND, deployerv1.Sync_ROLLED_BACK, deployerv1.Sync_CHOSEN}

// namedAside is how many branches a sentence names.
const namedAside = 5

// sayAside says which branches stand as the one does that a pattern's app is behind by, and how many they are.
func (st standing) sayAside(out *deployerv1.Sync) {
	refs, all := apps.Aside(st.app, st.lane)
	var others []string
	for _, r := range refs {
		if r != st.ref {
			others = append(others, r.Name())
		}
	}
	if all {
		out.Branches = int32(len(others) + 1) //nolint:gosec // a lane holds a few hundred
	}
	if len(others) == 0 {
		return
	}
	count, named := fmt.Sprint(len(others)), others
	if !all {
		count = "At least " + count
	}
	if len(named) > namedAside {
		named = append(slices.Clip(named[:namedAside]), fmt.Sprintf("%d others", len(others)-namedAside))
	}
	are := "branches that match %s are not live either: %s."
	if len(others) == 1 {
		are = "branch that matches %s is not live either: %s."
	}
	out.Message += fmt.Sprintf(" %s more "+are, count, st.app.GetBranch(), strings.Join(named, ", "))
}

// distance is how far the branch's newest commit is from what is live; nil while it is not known.
func (st standing) distance() *storev1.Distance {
	if d := lane.DistanceTo(st.lane, st.head.GetHash()); st.told == nil && !d.GetUnknown() {
		return d
	}
	return nil
}

// distanceWords says it for people; empty while it is not known.
func (st standing) distanceWords() string {
	switch d := st.distance(); {
	case d == nil:
		return ""
	case d.GetDiverged():
		return st.ref.Name() + " does not contain what is live"
	case d.GetCommits() == 1:
		return st.ref.Name() + " is 1 commit ahead of what is live"
	default:
		return fmt.Sprintf("%s is %d commits ahead of what is live", st.ref.Name(), d.GetCommits())
	}
}

// known is how the branch stands where polls are answered.
func (st standing) known() *deployerv1.Sync {
	unknown := func(reason, message string) *deployerv1.Sync {
		return &deployerv1.Sync{State: deployerv1.Sync_UNKNOWN, Reason: reason, Message: message, Since: st.head.GetTime()}
	}
	switch lv := st.lane.GetLive(); {
	case lv.GetLost():
		return st.moving()
	case st.told != nil:
		reason, message := st.undecided()
		return &deployerv1.Sync{State: deployerv1.Sync_BEHIND, Since: st.told.Time, Reason: reason, Message: message}
	case st.ref == "" && apps.Gone(st.app, st.lane):
		return unknown(syncNoBranch, fmt.Sprintf("No branch on Bitbucket that Devpilot knows of matches %s any more. Push one, or watch another.", st.app.GetBranch()))
	case st.head == nil && st.ref == "":
		return unknown(syncUnseen, fmt.Sprintf("Nothing was pushed to a branch that matches %s since the app watches it as it does now.", st.app.GetBranch()))
	case st.head == nil:
		return unknown(syncUnseen, unasked(st.polls))
	case st.head.GetHash() == "":
		return unknown(syncNoBranch, noBranchMessage(st.ref.Name()))
	case lv.GetHash() == st.head.GetHash():
		return &deployerv1.Sync{State: deployerv1.Sync_IN_SYNC, Since: lv.GetTime(), Message: fmt.Sprintf("%s is live as it is on Bitbucket.", st.ref.Name())}
	case st.overtaken():
		return &deployerv1.Sync{
			State: deployerv1.Sync_IN_SYNC, Since: lv.GetTime(), Deployment: lv.GetNumber(),
			Message: fmt.Sprintf("Deployment #%d, which is live, came after the last push to %s.", lv.GetNumber(), st.ref.Name()),
		}
	case st.rolledBack() && lv.GetNamed():
		return st.chosen()
	case st.rolledBack():
		return &deployerv1.Sync{
			State: deployerv1.Sync_ROLLED_BACK, Since: lv.GetTime(), Reason: syncChosen, Deployment: lv.GetNumber(),
			Message: fmt.Sprintf("%s made %s live again in deployment #%d; %s is at %s.",
				who(st.live.GetActor()), bitbucket.ShortHash(lv.GetHash()), lv.GetNumber(), st.ref.Name(), bitbucket.ShortHash(st.head.GetHash())),
		}
	}
	reason, message, number := st.why()
	return &deployerv1.Sync{State: deployerv1.Sync_BEHIND, Since: st.head.GetTime(), Reason: reason, Message: message, Deployment: number}
}

// moving is how the branch stands while nothing is served, because the server of what was live died.
func (st standing) moving() *deployerv1.Sync {
	lv, d := st.lane.GetLive(), st.lane.GetDeparture()
	return &deployerv1.Sync{
		State: deployerv1.Sync_BEHIND, Since: d.GetTime(), Reason: syncMoving, Deployment: d.GetNumber(),
		Message: fmt.Sprintf("Nothing is served: server %s died, which had deployment #%d. Deployment #%d is to bring the same commit back on server %s.", lv.GetServer(), lv.GetNumber(), d.GetNumber(), d.GetTo()),
	}
}

// overtaken tells whether what is live was pushed and deployed after the branch's newest commit: a tag's
// push, or another branch's.
func (st standing) overtaken() bool {
	lv := st.lane.GetLive()
	return lv != nil && !lv.GetChosen() && st.head.GetNumber() > 0 && lane.Origin(st.lane) > st.head.GetNumber() && lv.GetRef() != string(st.ref)
}

// chosen is how the branch stands while a commit or tag is live that a person chose.
func (st standing) chosen() *deployerv1.Sync {
	lv := st.lane.GetLive()
	reason, what, next := syncCommit, "commit "+bitbucket.ShortHash(lv.GetHash()), "The next push deploys again."
	if tag := lane.Ref(lv.GetRef()).Tag(); tag != "" {
		reason, what = syncTag, fmt.Sprintf("tag %s (%s)", tag, bitbucket.ShortHash(lv.GetHash()))
	}
	if !st.app.GetAutoDeploy() {
		next = "Auto-deploy is off: it stays so until somebody deploys."
	}
	return &deployerv1.Sync{
		State: deployerv1.Sync_CHOSEN, Since: lv.GetTime(), Reason: reason, Deployment: lv.GetNumber(),
		Message: fmt.Sprintf("%s chose %s, which is live by deployment #%d; %s is at %s. %s",
			who(st.live.GetActor()), what, lv.GetNumber(), st.ref.Name(), bitbucket.ShortHash(st.head.GetHash()), next),
	}
}

// rolledBack tells whether a person made something else live after the branch's newest commit was seen.
func (st standing) rolledBack() bool {
	lv := st.lane.GetLive()
	if !lv.GetChosen() {
		return false
	}
	if st.head.GetNumber() > 0 {
		return st.head.GetNumber() < lane.Origin(st.lane)
	}
	return st.head.GetTime().AsTime().Before(lv.GetTime().AsTime())
}

// undecided says why nothing came yet of the branch's newest push.
func (st standing) undecided() (reason, message string) {
	if st.told.Deciding {
		return syncDeciding, "Whether it deploys is being decided: the app's rules need the repository."
	}
	return syncAwaited, fmt.Sprintf("A poll found the push to %s, and its delivery has not come yet. The app decides about it when it comes, or without it at one of the next polls.", st.ref.Name())
}

// why says why the branch's newest commit is not live, and which deployment that is about.
func (st standing) why() (reason, message string, number int32) {
	if job := st.lane.GetRunning().GetJob(); st.brings(job) {
		if e := st.away(job); e != nil {
			return e.GetReason(), ranMessage(job.GetNumber(), e.GetMessage()), job.GetNumber()
		}
		return syncDeploying, runsMessage(job.GetNumber()), job.GetNumber()
	}
	if job := st.lane.GetWaiting(); st.brings(job) {
		if t := st.lane.GetHold().GetTrouble(); t != nil {
			return t.GetReason(), waitsMessage(job.GetNumber(), t.GetMessage()), job.GetNumber()
		}
		if e := st.away(job); e != nil {
			return e.GetReason(), waitsMessage(job.GetNumber(), e.GetMessage()), job.GetNumber()
		}
		return syncWaiting, turnMessage(job.GetNumber()), job.GetNumber()
	}
	if lane.UndecidedOf(st.lane, st.ref) {
		return syncDeciding, "Whether it deploys is being decided: the app's rules need the repository.", 0
	}
	switch d := st.made; d.GetState() { //nolint:exhaustive // others are no reason
	case deployerv1.Deployment_FAILED:
		return syncFailed, failedMessage(d), d.GetNumber()
	case deployerv1.Deployment_CANCELLED:
		return syncCancelled, cancelledMessage(d), d.GetNumber()
	}
	if !st.app.GetAutoDeploy() {
		return syncOff, st.off(), 0
	}
	if st.head.GetReason() != "" {
		return st.head.GetReason(), strings.TrimSuffix(st.head.GetMessage(), ".") + ".", 0
	}
	return syncUndeployed, "The newest commit was there before pushes began to deploy, and nobody has deployed it. Deploy the latest commit to put it live.", 0
}

// brings tells whether a job will put the branch's newest commit live.
func (st standing) brings(job *storev1.Job) bool {
	if job == nil || job.GetTag() != "" || job.GetBranch() != st.ref.Branch() || job.GetDirectory() != "" {
		return false
	}
	return !job.GetPinned() || job.GetHash() == st.head.GetHash()
}

func noBranchMessage(branch string) string {
	return fmt.Sprintf("Branch %s does not exist on Bitbucket. Push it, or watch another one.", branch)
}

func runsMessage(number int32) string { return fmt.Sprintf("Deployment #%d of it runs.", number) }

func ranMessage(number int32, why string) string {
	return fmt.Sprintf("Deployment #%d of it was running when its worker fell silent. %s", number, why)
}

func turnMessage(number int32) string {
	return fmt.Sprintf("Deployment #%d of it waits for its turn.", number)
}

func waitsMessage(number int32, why string) string {
	return fmt.Sprintf("Deployment #%d of it waits: %s", number, why)
}

func failedMessage(d *deployerv1.Deployment) string {
	return fmt.Sprintf("Deployment #%d of it failed: %s", d.GetNumber(), d.GetError().GetMessage())
}

func cancelledMessage(d *deployerv1.Deployment) string {
	return fmt.Sprintf("%s cancelled deployment #%d of it. Redeploy it to put it live.", who(d.GetCancelledBy()), d.GetNumber())
}

// off says who switched auto-deploy off.
func (st standing) off() string {
	off := st.app.GetAutoDeployOff()
	switch {
	case off == nil:
		return "Auto-deploy is off. Deploy the latest commit, or switch auto-deploy on."
	case off.GetRolledBack():
		return fmt.Sprintf("Auto-deploy is off: %s switched it off with a rollback. Deploy the latest commit, or switch auto-deploy on.", who(off.GetActor()))
	case sameTime(off.GetTime(), st.app.GetCreateTime()):
		return "Auto-deploy was never switched on. Deploy the latest commit, or switch it on."
	}
	return fmt.Sprintf("Auto-deploy is off: %s switched it off. Deploy the latest commit, or switch auto-deploy on.", who(off.GetActor()))
}

func sameTime(a, b *timestamppb.Timestamp) bool { return a.AsTime().Equal(b.AsTime()) }

// who names an actor at the beginning of a sentence.
func who(a *deployerv1.DeploymentActor) string {
	if a.GetLabel() == "" {
		return "Somebody"
	}
	return a.GetLabel()
}
