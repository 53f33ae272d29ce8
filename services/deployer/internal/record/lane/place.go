package lane

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// A push is known by what it did (repository, branch or tag, old commit, new commit) and by its
// place in the history of that branch or tag. The delivery that brings it does not matter:
// Bitbucket delivers twice, late, and under new ids. What was decided about a push holds for every
// delivery of it, also after a person has rolled back.

// Step is what a push did to its branch or tag. A hash is empty where it did not exist.
type Step struct{ Old, New string }

// Place is where a push stands in the history of its branch or tag.
type Place int

// The places.
const (
	// Next: it goes on from what was seen last, or nothing says otherwise.
	Next Place = iota
	// Past: the push was seen, or what was seen last came after it. It gets the decision made then,
	// and changes nothing.
	Past
	// Doubtful: the push may be new or past. Bitbucket can tell ([Request.Actual]). Without an answer
	// it is taken for new, and the worker, which fetches, sees whether anything moved.
	Doubtful
)

// ErrMoved says that the lane has changed since a push was found to be past.
var ErrMoved = errors.New("lane: the branch has moved meanwhile")

// PlaceOf returns the place of a push. For one that is past it also returns the number of the
// deployment that came of it or of what came after it, 0 when there is none.
func PlaceOf(l *storev1.Lane, a Request) (Place, int32) {
	if a.Found {
		// A poll saw the branch move away from where the lane had it. Where the lane has it elsewhere by
		// now, a delivery was decided about meanwhile, and the next poll compares anew.
		if head, known := a.seenHead(l); known && head != a.Old {
			return Past, HeadOf(l, a.Repository, a.ref()).GetNumber()
		}
		return Next, 0
	}
	if a.Step == nil || a.Replay || a.Trigger != deployerv1.Deployment_PUSH {
		return Next, 0
	}
	head, known := a.seenHead(l)
	if !known {
		return Next, 0
	}
	seen := HeadOf(l, a.Repository, a.ref())
	number, repeated := recall(l, stepID(a))
	was, passed := recall(l, commitID(a.Repository, a.ref(), a.Step.New))
	switch {
	case head == a.Step.Old && !repeated && !passed:
		return Next, 0
	case head == a.Step.Old:
		if number == 0 {
			number = was
		}
	case repeated:
		return Past, number
	case head == a.Step.New:
		// Not a push noted this head, but a poll, a deployment that fetched it, or another push
		// that led there too. A head that was only there when watching began, or that never went
		// live, is not a decision.
		switch source := seen.GetSource(); {
		case seen.GetNumber() > 0, source == storev1.Head_EVENT, source == storev1.Head_RECONCILED:
			return Past, seen.GetNumber()
		case seen == nil && passed:
			return Past, was
		}
		return Next, 0
	case passed:
		return Past, max(was, seen.GetNumber())
	default:
		number = seen.GetNumber()
	}
	switch {
	case a.Actual == nil:
		return Doubtful, number
	case *a.Actual == head && head != a.Step.New:
		return Past, number
	}
	return Next, 0
}

// seenHead is where the branch or tag of a wish was seen last.
func (a Request) seenHead(l *storev1.Lane) (hash string, known bool) {
	if h := l.GetHeads()[string(a.ref())]; h != nil && h.GetRepository() == a.Repository {
		return h.GetHash(), h.GetSource() != storev1.Head_FORGOTTEN
	}
	if a.Head != nil {
		return *a.Head, true
	}
	return "", false
}

// Repeat notes another delivery of a push that is past, and returns the decision made about it.
// ErrMoved when the push is past no longer.
func Repeat(l *storev1.Lane, a Request) (Decision, error) {
	if l.GetRetired() || l.GetGeneration() == 0 {
		return Decision{}, ErrRetired
	}
	id := eventID(a.Event)
	if number, seen := find(l, id); seen {
		return Decision{Number: number, Past: true}, ErrSkip
	}
	place, number := PlaceOf(l, a)
	if place != Past {
		return Decision{}, ErrMoved
	}
	d := Decision{Number: number, Past: true}
	if head := HeadOf(l, a.Repository, a.ref()); a.Step != nil && head.GetSource() == storev1.Head_RECONCILED && head.GetHash() == a.Step.New {
		head.Source, d.Reconciled = storev1.Head_EVENT, true
	}
	remember(l, id, number, a.ReceiveTime)
	noteStep(l, a, number)
	tellLater(l, number, a.Askers)
	return d, nil
}

// again is the deployment that a replay would only repeat: what waits, or else what runs, or else what is
// live, where that is of the same commit of the same branch or tag; 0 for none.
func again(l *storev1.Lane, a Request) int32 {
	if !a.Replay || a.Commit.GetHash() == "" {
		return 0
	}
	job := l.GetWaiting()
	if job == nil {
		job = l.GetRunning().GetJob()
	}
	switch live := l.GetLive(); {
	case job != nil && job.GetHash() == a.Commit.GetHash() && job.GetBranch() == a.Branch && job.GetTag() == a.Tag:
		return job.GetNumber()
	case job == nil && live.GetHash() == a.Commit.GetHash() && live.GetRef() == string(a.ref()):
		return live.GetNumber()
	}
	return 0
}

// An entry of Lane.history.
const (
	historyBytes = idBytes + 4
	// maxHistory is how many pushes and commits a lane remembers.
	maxHistory = 512
)

func stepID(a Request) []byte {
	return historyID("push", a.Repository, a.ref(), a.Step.Old, a.Step.New)
}

func commitID(repository string, r Ref, hash string) []byte {
	return historyID("commit", repository, r, hash)
}

func historyID(kind, repository string, r Ref, hashes ...string) []byte {
	h := sha256.New()
	for _, s := range append([]string{kind, repository, string(r)}, hashes...) {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	return h.Sum(nil)[:idBytes]
}

// recall returns what came of a push or a commit, and whether the lane remembers it.
func recall(l *storev1.Lane, id []byte) (number int32, known bool) {
	for b := l.GetHistory(); len(b) >= historyBytes; b = b[historyBytes:] {
		if bytes.Equal(b[:idBytes], id) {
			return int32(binary.BigEndian.Uint32(b[idBytes:])), true // written from an int32
		}
	}
	return 0, false
}

// note remembers what came of a push or a commit; 0 leaves a number that is there.
func note(l *storev1.Lane, id []byte, number int32) {
	out := make([]byte, 0, len(l.GetHistory())+historyBytes)
	for b := l.GetHistory(); len(b) >= historyBytes; b = b[historyBytes:] {
		if !bytes.Equal(b[:idBytes], id) {
			out = append(out, b[:historyBytes]...)
		} else if number == 0 {
			number = int32(binary.BigEndian.Uint32(b[idBytes:])) // written from an int32
		}
	}
	out = binary.BigEndian.AppendUint32(append(out, id...), uint32(number)) // read back as an int32
	l.History = out[max(0, len(out)-maxHistory*historyBytes):]
}

// noteStep remembers a push that was decided about.
func noteStep(l *storev1.Lane, a Request, number int32) {
	if a.Step == nil {
		return
	}
	note(l, stepID(a), number)
	if a.Step.Old != "" {
		note(l, commitID(a.Repository, a.ref(), a.Step.Old), 0)
	}
}

// noteCommit remembers that a branch or tag pointed to a commit.
func noteCommit(l *storev1.Lane, repository string, r Ref, hash string, number int32) {
	if hash != "" {
		note(l, commitID(repository, r, hash), number)
	}
}
