package policy

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/services/deployer/internal/metrics/verdict"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// Decision is what comes of a lane's oldest candidate.
type Decision struct {
	Request lane.Request
	// Past says that the push repeats one that was decided about, or came before it.
	Past bool
	// Reason and Message are why it does not deploy; empty where it does.
	Reason, Message string

	seq    int64
	byRule bool
}

// About begins a decision about a candidate of an app, nil when that is gone. It has a reason where no
// rule needs to be asked: what the app says has changed since the push came.
func About(c *storev1.Candidate, a *storev1.App, now time.Time) *Decision {
	d := &Decision{Request: lane.FromCandidate(c), seq: c.GetSeq()}
	d.Request.Now = now
	if d.Reason, d.Message = unwanted(a, d.Request); d.Reason == "" {
		d.Request.Server, d.Request.CancelRunning = a.GetServer(), a.GetCancelRunning()
	}
	return d
}

// Rules takes what the rules say.
func (d *Decision) Rules(v rules.Verdict) {
	d.Request.Notes = v.Notes
	if !v.Deploys {
		d.byRule, d.Reason, d.Message = true, v.Reason, v.Message
	}
}

// Apply makes the decision to a lane; lane.ErrLost where another candidate is the oldest. With an error
// the lane is as it was.
func (d *Decision) Apply(l *storev1.Lane) error {
	before := l.GetCandidates()
	c, err := lane.Take(l, d.seq)
	if err != nil {
		return err
	}
	told := &storev1.Decided{Time: timestamppb.New(d.Request.Now), Askers: c.GetAskers(), Reason: d.Reason, Message: strings.TrimSuffix(d.Message, ".")}
	var made lane.Decision
	switch {
	case d.byRule:
		d.Request.Reason, d.Request.Message = d.Reason, d.Message
		if err = lane.TurnAway(l, d.Request); err == nil && c.GetFound() {
			lane.NoteTurnedAway(l, &deployerv1.TurnedAwayPush{
				Branch: d.Request.Branch, Tag: d.Request.Tag, Commit: d.Request.Commit.GetHash(), Reason: d.Reason, Message: d.Message, Time: told.GetTime(),
			})
		}
	case d.Reason != "":
	case d.Request.Deleted:
		err = lane.RefDeleted(l, d.Request)
		told.Reason, told.Message = Deleted(d.Request)
	case d.Past:
		made, err = lane.Repeat(l, d.Request)
	case c.GetOvertakenBy() != 0:
		told.Reason = lane.ReasonOvertaken
		told.Message = fmt.Sprintf("Deployment #%d was asked for after this push, which does not undo it", c.GetOvertakenBy())
		d.Request.Reason, d.Request.Message = told.GetReason(), told.GetMessage()
		err = lane.TurnAway(l, d.Request)
	default:
		made, err = lane.Accept(l, d.Request)
	}
	if err != nil && !errors.Is(err, lane.ErrSkip) {
		l.Candidates = before // nothing was decided
		return err
	}
	told.Number, told.Past, told.Reconciled = made.Number, d.Past || made.Past, made.Reconciled
	lane.Tell(l, told)
	return nil
}

// Verdict is what came of the push after Apply, in the words of package verdict.
func (d *Decision) Verdict() string {
	switch {
	case d.Reason != "", d.Request.Reason != "", d.Request.Deleted:
		return verdict.Ignored
	case d.Past:
		return verdict.Repeated
	}
	return verdict.Deploys
}

// unwanted tells why a push does not deploy before any rule is asked.
func unwanted(a *storev1.App, p lane.Request) (reason, message string) {
	switch {
	case a == nil:
		return "APP_DELETED", "The app was deleted before this push was decided about"
	case !a.GetAutoDeploy():
		return AutoDeployOff(a)
	case a.GetRepository() != p.Repository, p.Tag == "" && !rules.MatchBranch(a.GetBranch(), p.Branch):
		return rules.ReasonBranchNotWatched, fmt.Sprintf("The app watches %s now, no longer %s", a.GetBranch(), p.Branch)
	case p.Tag != "" && !rules.MatchTag(a.GetRules().GetTags(), p.Tag):
		return rules.ReasonTagNotWatched, fmt.Sprintf("The app no longer deploys the tag %s", p.Tag)
	}
	return "", ""
}

// AutoDeployOff is what comes of pushes to an app that deploys none.
func AutoDeployOff(a *storev1.App) (reason, message string) {
	return "AUTO_DEPLOY_OFF", fmt.Sprintf("Auto-deploy of %s is off", a.GetId())
}

// Deleted is what comes of a push that deleted its branch or tag.
func Deleted(p lane.Request) (reason, message string) {
	if p.Tag != "" {
		return "TAG_DELETED", fmt.Sprintf("Tag %s was deleted; what is live stays", p.Tag)
	}
	return "BRANCH_DELETED", fmt.Sprintf("Branch %s was deleted; what is live stays", p.Branch)
}
