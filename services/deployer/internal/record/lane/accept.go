package lane

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// Errors of the decisions.
var (
	// ErrSkip, returned by a function given to Dispatcher, leaves the lane as it is.
	ErrSkip = errors.New("lane: leave as is")
	// ErrRetired says that the app is gone.
	ErrRetired = errors.New("lane: the app is gone")
	// ErrBacklog says that too many changes of deployment records wait to be written. Accepting
	// more would let the record grow without bound: flush, then try again.
	ErrBacklog = errors.New("lane: too many changes are waiting to be written")
	// ErrLost says that the attempt has been replaced, or its app deleted: it may change nothing
	// any more.
	ErrLost = errors.New("lane: the attempt has been replaced")
)

const (
	// maxRecent is how many events a lane remembers; maxOutbox how many changes may wait.
	maxRecent = 512
	maxOutbox = 256 // changes of records that wait to be written
	// forgottenMargin: an event that is so much older than the youngest forgotten one is taken for
	// one that was seen. A younger one was more likely held up, and is accepted: one deployment too
	// many ends SUPERSEDED, one too few is a lost push.
	forgottenMargin = 15 * time.Minute
	// maxMessage bounds the commit message kept in records.
	maxMessage = 4 << 10
)

// Request is a wish for a deployment.
type Request struct {
	// Event identifies the wish: the same one twice gives the same deployment.
	Event string
	// Replay says that a person asked for an old event to be considered again, whatever its place.
	Replay bool
	// Step is what a push says it did; nil for wishes that are no pushes.
	Step *Step
	// Head is where SeenRefs has the branch or tag; nil where it has none. The lane's own is newer.
	Head *string
	// Actual is where Bitbucket says the branch or tag is now; nil while it was not asked.
	Actual *string
	// Askers hear how the deployment ends.
	Askers []*storev1.Asker
	// ReceiveTime is when the push was received or the button pressed.
	ReceiveTime time.Time
	Trigger     deployerv1.Deployment_Trigger
	Repository  string
	Branch      string
	// Commit is the pushed commit; nil when nobody named one.
	Commit   *deployerv1.DeploymentCommit
	Actor    *deployerv1.DeploymentActor
	Delivery *deployerv1.DeliveryReference
	Server   string
	Now      time.Time

	// Tag is the pushed or chosen tag; Branch is then empty.
	Tag string
	// Pinned deploys exactly Commit, whatever the branch's head is: a redeploy, or what a person chose. Such a
	// commit says nothing about the branch.
	Pinned bool
	// Directory is the release directory that a rollback makes current again.
	Directory string
	// SourceNumber is the deployment whose commit or release is taken.
	SourceNumber int32
	// CancelRunning has what runs cancelled instead of waited for.
	CancelRunning bool
	// Notes are kept in the deployment's record.
	Notes []string
	// Traceparent is the trace that the deployment belongs to; empty where none is recorded.
	Traceparent string
	// ForcedFrom is the commit that was there before, where Bitbucket says that Commit does not contain it.
	ForcedFrom string
	// Old is where the branch or tag was before, as far as that is known; Step.Old where there is one.
	Old string
	// Created says that a push made the branch or tag, Deleted that it removed it, Forced that its
	// commit does not contain what was there before.
	Created, Deleted, Forced bool
	// MessageKnown says that the commit's message is the whole of it.
	MessageKnown bool
	// Found says that it was found by looking: no delivery spoke of it.
	Found bool
	// Reason and Message say why a rule turned the push away; TurnAway keeps them with the head.
	Reason, Message string
	// Retries is how many deployments of the same push failed before; the wish says nothing about the
	// branch then.
	Retries int32
}

// ref is the branch or tag that the wish is about.
func (a Request) ref() Ref {
	if a.Tag != "" {
		return Tag(a.Tag)
	}
	return Branch(a.Branch)
}

// tellsHead tells whether the request's commit is what its branch or tag points to. A replay's is
// old, so it tells nothing unless nothing else is known.
func (a Request) tellsHead(l *storev1.Lane) bool {
	if _, known := a.seenHead(l); a.Replay && known {
		return false
	}
	return a.Commit.GetHash() != "" && (a.Branch != "" || a.Tag != "") && !a.Pinned && a.Directory == "" && a.Retries == 0
}

// Decision is what came of a Request.
type Decision struct {
	// Number is the deployment's; 0 when the event is too old to be new and its number forgotten.
	Number int32
	// New says that this Request made it.
	New bool
	// Reconciled says that reconciliation had made it before the delivery came.
	Reconciled bool
	// Past says that the push was seen, or passed by, before: Number is what came of it.
	Past bool
}

// Accept gives the wish a number and lets it wait, superseding what waited. It changes the lane
// only when the decision is new or a late delivery is answered with an earlier one; otherwise it
// returns ErrSkip with the decision made before.
func Accept(l *storev1.Lane, a Request) (Decision, error) {
	if l.GetRetired() || l.GetGeneration() == 0 {
		return Decision{}, ErrRetired
	}
	id := eventID(a.Event)
	if number, seen := find(l, id); seen {
		return Decision{Number: number}, ErrSkip
	}
	if tooOld(l, a) {
		return Decision{}, ErrSkip
	}
	place, _ := PlaceOf(l, a)
	if place == Past {
		return Repeat(l, a)
	}
	if number := again(l, a); number > 0 {
		remember(l, id, number, a.ReceiveTime)
		tellLater(l, number, a.Askers)
		return Decision{Number: number, Past: true}, nil
	}
	hash := a.Commit.GetHash()
	head := HeadOf(l, a.Repository, a.ref())
	if a.Trigger == deployerv1.Deployment_PUSH && !a.Replay && hash != "" && head.GetSource() == storev1.Head_RECONCILED && head.GetHash() == hash {
		head.Source = storev1.Head_EVENT
		remember(l, id, head.GetNumber(), a.ReceiveTime)
		tellLater(l, head.GetNumber(), a.Askers)
		return Decision{Number: head.GetNumber(), Reconciled: true}, nil
	}
	if len(l.GetOutbox()) >= maxOutbox {
		return Decision{}, ErrBacklog
	}
	a.Server = addressee(l, a.Server)
	l.LastNumber++
	n := l.LastNumber
	if w := l.GetWaiting(); w != nil {
		supersede(l, w, n, a.Now)
	}
	l.Waiting = a.job(n)
	if place == Doubtful {
		l.Waiting.Before, _ = a.seenHead(l)
		l.Waiting.BeforeNumber, _ = recall(l, commitID(a.Repository, a.ref(), l.GetWaiting().GetBefore()))
	}
	l.Owed = nil
	easeBackoff(l, a.Trigger)
	remember(l, id, n, a.ReceiveTime)
	if a.tellsHead(l) {
		source := storev1.Head_EVENT
		if a.Trigger == deployerv1.Deployment_RECONCILED {
			source = storev1.Head_RECONCILED
		}
		SetHead(l, a.ref(), &storev1.Head{Hash: hash, Source: source, Number: n, Time: timestamppb.New(a.Now), Repository: a.Repository})
	}
	noteStep(l, a, n)
	push(l, n, func(c *storev1.RecordChange) { c.Change = &storev1.RecordChange_Created{Created: newRecord(l, a, n)} })
	if a.CancelRunning {
		giveWay(l, n, a.Now)
	}
	if a.personal() {
		overtake(l, n)
	}
	return Decision{Number: n, New: true}, nil
}

// job is what the wish's worker must know.
func (a Request) job(number int32) *storev1.Job {
	return &storev1.Job{
		Number: number, Trigger: a.Trigger, Branch: a.Branch, Hash: a.Commit.GetHash(), Server: a.Server,
		AskTime: timestamppb.New(a.ReceiveTime), Tag: a.Tag, Pinned: a.Pinned, Directory: a.Directory, SourceNumber: a.SourceNumber,
		Askers: a.Askers, Retries: a.Retries, ForcedFrom: a.ForcedFrom, Traceparent: a.Traceparent,
	}
}

// TurnAway notes that a rule of the app turned an event away. The branch has moved all the same, so
// that the reconciler does not look for a delivery that came. ErrSkip when the event was decided
// before.
func TurnAway(l *storev1.Lane, a Request) error {
	if l.GetRetired() || l.GetGeneration() == 0 {
		return ErrRetired
	}
	id := eventID(a.Event)
	if _, seen := find(l, id); seen || tooOld(l, a) {
		return ErrSkip
	}
	remember(l, id, 0, a.ReceiveTime)
	if place, _ := PlaceOf(l, a); place == Past {
		return nil
	}
	if a.tellsHead(l) {
		SetHead(l, a.ref(), &storev1.Head{
			Hash: a.Commit.GetHash(), Source: storev1.Head_EVENT, Time: timestamppb.New(a.Now), Repository: a.Repository, Reason: a.Reason, Message: a.Message,
		})
	}
	noteStep(l, a, 0)
	return nil
}

// maxTurnedAway is how many pushes are shown that a rule turned away.
const maxTurnedAway = 10

// NoteTurnedAway keeps a push for people that was found by looking and turned away: no delivery says so.
func NoteTurnedAway(l *storev1.Lane, p *deployerv1.TurnedAwayPush) {
	l.TurnedAway = append(l.TurnedAway, p)
	l.TurnedAway = l.TurnedAway[max(0, len(l.TurnedAway)-maxTurnedAway):]
}

// newRecord is the deployment's record as it begins.
func newRecord(l *storev1.Lane, a Request, n int32) *storev1.Deployment {
	d := &deployerv1.Deployment{
		Number: n, State: deployerv1.Deployment_PENDING, Trigger: a.Trigger, Branch: a.Branch,
		Actor: a.Actor, Delivery: a.Delivery, Server: a.Server, CreateTime: timestamppb.New(a.Now),
		Tag: a.Tag, SourceNumber: a.SourceNumber, Notes: a.Notes, Chosen: a.Pinned && a.Trigger == deployerv1.Deployment_MANUAL,
	}
	if a.Commit != nil {
		d.Commit = trim(a.Commit)
	}
	return &storev1.Deployment{Deployment: d, Generation: l.GetGeneration(), AskTime: timestamppb.New(a.ReceiveTime), Traceparent: a.Traceparent}
}

// trim bounds a commit's message.
func trim(c *deployerv1.DeploymentCommit) *deployerv1.DeploymentCommit {
	out := proto.CloneOf(c)
	if len(out.GetMessage()) > maxMessage {
		out.Message = string(bytes.ToValidUTF8([]byte(out.GetMessage()[:maxMessage]), nil)) + "…"
	}
	return out
}

// easeBackoff lets a new wish be tried at once, unless Bitbucket asked us to slow down.
func easeBackoff(l *storev1.Lane, trigger deployerv1.Deployment_Trigger) {
	if l.GetHold() == nil {
		return
	}
	limited := l.GetHold().GetTrouble().GetReason() == reasonRateLimited
	if !Automatic(trigger) || !limited {
		l.Hold = nil
	}
}

const reasonRateLimited = "BITBUCKET_RATE_LIMITED"

// An entry of Lane.recent.
const (
	idBytes    = 12
	entryBytes = idBytes + 4 + 8
)

func eventID(event string) []byte {
	sum := sha256.Sum256([]byte(event))
	return sum[:idBytes]
}

// find returns the deployment that an event made, and whether the lane remembers the event.
func find(l *storev1.Lane, id []byte) (number int32, seen bool) {
	for b := l.GetRecent(); len(b) >= entryBytes; b = b[entryBytes:] {
		if bytes.Equal(b[:idBytes], id) {
			return int32(binary.BigEndian.Uint32(b[idBytes:])), true // written from an int32
		}
	}
	return 0, false
}

// Seen returns the deployment that an event made, and whether the lane remembers the event.
func Seen(l *storev1.Lane, event string) (int32, bool) { return find(l, eventID(event)) }

func tooOld(l *storev1.Lane, a Request) bool {
	return !a.Replay && l.GetForgottenTime() != nil && !a.ReceiveTime.IsZero() &&
		a.ReceiveTime.Before(l.GetForgottenTime().AsTime().Add(-forgottenMargin))
}

func remember(l *storev1.Lane, id []byte, number int32, received time.Time) {
	recent := append([]byte(nil), l.GetRecent()...)
	recent = append(recent, id...)
	recent = binary.BigEndian.AppendUint32(recent, uint32(number))              // read back as an int32
	recent = binary.BigEndian.AppendUint64(recent, uint64(received.UnixNano())) // read back as an int64
	for ; len(recent) > maxRecent*entryBytes; recent = recent[entryBytes:] {
		t := time.Unix(0, int64(binary.BigEndian.Uint64(recent[idBytes+4:]))) // written from an int64
		if l.GetForgottenTime() == nil || t.After(l.GetForgottenTime().AsTime()) {
			l.ForgottenTime = timestamppb.New(t)
		}
	}
	l.Recent = recent
}

// supersede ends a job that waits.
func supersede(l *storev1.Lane, job *storev1.Job, by int32, now time.Time) {
	push(l, job.GetNumber(), func(c *storev1.RecordChange) {
		c.Change = &storev1.RecordChange_Ended{Ended: &storev1.Ended{
			State: deployerv1.Deployment_SUPERSEDED, Time: timestamppb.New(now), SupersededBy: by, Askers: job.GetAskers(),
		}}
	})
}

// maxAskers bounds the deliveries that hear of one deployment.
const maxAskers = 64

// tellLater notes deliveries that want to know how a deployment ends. For one that has ended
// already the caller reads its record.
func tellLater(l *storev1.Lane, number int32, askers []*storev1.Asker) {
	for _, job := range []*storev1.Job{l.GetWaiting(), l.GetRunning().GetJob()} {
		if job != nil && job.GetNumber() == number && len(job.GetAskers())+len(askers) <= maxAskers {
			job.Askers = append(job.Askers, askers...)
		}
	}
}

func push(l *storev1.Lane, number int32, set func(*storev1.RecordChange)) {
	l.OutboxSeq++
	c := &storev1.RecordChange{Seq: l.OutboxSeq, Number: number}
	set(c)
	l.Outbox = append(l.Outbox, c)
}
