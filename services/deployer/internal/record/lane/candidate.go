package lane

import (
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// A push whose rules need the repository is a candidate: a worker, which has the repository, decides
// about it. The order of pushes is that of their arrival, also where one of them waits for git: while a
// lane has candidates, whatever is pushed after them becomes one too.

const (
	// MaxCandidates bounds the pushes that wait for a decision. Beyond it the oldest is decided
	// without the repository, as when git cannot be asked.
	MaxCandidates = 100
	// maxCandidateMessage bounds the commit message kept in a candidate; a longer one is read from the
	// repository.
	maxCandidateMessage = 1 << 10
)

var (
	// ErrUndecided says that an earlier push waits for its decision.
	ErrUndecided = errors.New("lane: an earlier push is not decided yet")
	// ErrFull says that MaxCandidates wait.
	ErrFull = errors.New("lane: too many pushes wait for their decision")
)

// Undecided tells whether pushes wait for a decision.
func Undecided(l *storev1.Lane) bool { return len(l.GetCandidates()) > 0 }

// UndecidedOf tells whether a push of a branch or tag waits for a decision.
func UndecidedOf(l *storev1.Lane, r Ref) bool {
	for _, c := range l.GetCandidates() {
		if (Request{Branch: c.GetBranch(), Tag: c.GetTag()}).ref() == r {
			return true
		}
	}
	return false
}

// IsCandidate tells whether the event waits for a decision.
func IsCandidate(l *storev1.Lane, event string) bool {
	for _, c := range l.GetCandidates() {
		if c.GetEvent() == event {
			return true
		}
	}
	return false
}

// Propose lets a push wait for a worker's decision, behind those that were received before it. ErrSkip when it was
// decided or waits already, ErrFull when too many do.
func Propose(l *storev1.Lane, c *storev1.Candidate) error {
	if l.GetRetired() || l.GetGeneration() == 0 {
		return ErrRetired
	}
	if _, seen := Seen(l, c.GetEvent()); seen || IsCandidate(l, c.GetEvent()) {
		return ErrSkip
	}
	if len(l.GetCandidates()) >= MaxCandidates {
		return ErrFull
	}
	c = proto.CloneOf(c)
	c.Server = addressee(l, c.GetServer())
	l.CandidateSeq++
	c.Seq = l.GetCandidateSeq()
	at := len(l.GetCandidates())
	for at > 0 && !c.GetReplay() && c.GetReceiveTime().AsTime().Before(l.GetCandidates()[at-1].GetReceiveTime().AsTime()) {
		at--
	}
	l.Candidates = slices.Insert(l.GetCandidates(), at, c)
	return nil
}

// Candidate is a push in the form in which it waits.
func (a Request) Candidate() *storev1.Candidate {
	c := &storev1.Candidate{
		Event: a.Event, Replay: a.Replay, Created: a.Created, Forced: a.Forced, Deleted: a.Deleted, MessageKnown: a.MessageKnown, Found: a.Found,
		Trigger: a.Trigger, Repository: a.Repository, Branch: a.Branch, Tag: a.Tag, Actor: a.Actor, Delivery: a.Delivery, Askers: a.Askers,
		ReceiveTime: timestamppb.New(a.ReceiveTime), Server: a.Server, Old: a.Old,
		Traceparent: a.Traceparent,
	}
	if a.Step != nil {
		c.Stepped, c.Old = true, a.Step.Old
	}
	if a.Commit != nil {
		c.Commit = proto.CloneOf(a.Commit)
		if len(c.GetCommit().GetMessage()) > maxCandidateMessage {
			c.Commit.Message, c.MessageKnown = "", false
		}
	}
	return c
}

// FromCandidate is the push that a candidate is, without what the app says: its server, and whether a
// newer push cancels what runs.
func FromCandidate(c *storev1.Candidate) Request {
	a := Request{
		Event: c.GetEvent(), Replay: c.GetReplay(), Created: c.GetCreated(), Forced: c.GetForced(), Deleted: c.GetDeleted(), MessageKnown: c.GetMessageKnown(),
		Found: c.GetFound(), Trigger: c.GetTrigger(), Repository: c.GetRepository(), Branch: c.GetBranch(), Tag: c.GetTag(), Commit: c.GetCommit(),
		Actor: c.GetActor(), Delivery: c.GetDelivery(), Askers: c.GetAskers(), ReceiveTime: c.GetReceiveTime().AsTime(), Server: c.GetServer(), Old: c.GetOld(),
		Traceparent: c.GetTraceparent(),
	}
	if c.GetStepped() {
		a.Step = &Step{Old: c.GetOld(), New: c.GetCommit().GetHash()}
	}
	if c.GetForced() {
		a.ForcedFrom = c.GetOld()
	}
	return a
}

// Take removes the oldest candidate, about which is now decided; ErrLost when it is another one.
func Take(l *storev1.Lane, seq int64) (*storev1.Candidate, error) {
	if !Undecided(l) || l.GetCandidates()[0].GetSeq() != seq {
		return nil, ErrLost
	}
	c := l.GetCandidates()[0]
	l.Candidates = l.GetCandidates()[1:]
	return c, nil
}

// overtake notes that a person asked, after the pushes that wait, for what goes live instead: they do
// not undo it.
func overtake(l *storev1.Lane, number int32) {
	for _, c := range l.GetCandidates() {
		c.OvertakenBy = number
	}
}

// Tell has the deliveries of a candidate hear what was decided.
func Tell(l *storev1.Lane, d *storev1.Decided) {
	if len(d.GetAskers()) > 0 {
		push(l, 0, func(c *storev1.RecordChange) { c.Change = &storev1.RecordChange_Decided{Decided: d} })
	}
}

// ReasonOvertaken is why a push does not deploy after which a person asked for something else.
const ReasonOvertaken = "OVERTAKEN"

// OldOf is the commit from which a push's changes count. Where the lane saw another head before it than
// the push says, a delivery is missing: they count from there.
func OldOf(l *storev1.Lane, a Request) string {
	old := a.Old
	if a.Step != nil {
		old = a.Step.Old
	}
	if a.Tag != "" || a.Found {
		return old
	}
	last := HeadOf(l, a.Repository, a.ref()).GetHash()
	if last == "" && a.Head != nil {
		last = *a.Head
	}
	if last != "" && last != a.Commit.GetHash() {
		return last
	}
	return old
}

// TurnedAway tells whether a head is a commit whose push was decided about and made no deployment.
func TurnedAway(h *storev1.Head, hash string) bool {
	return hash != "" && h.GetHash() == hash && h.GetSource() == storev1.Head_EVENT && h.GetNumber() == 0
}

// personal tells the wishes of people for a certain release or commit.
func (a Request) personal() bool {
	return a.Trigger == deployerv1.Deployment_ROLLBACK || a.Pinned
}
