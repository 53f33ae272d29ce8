package notify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
)

// Limits of what waits for one target: its record stays far below what the store takes, whatever
// happens how often.
const (
	maxWaiting   = 100  // notifications; more are only counted
	maxWithLines = 10   // of these keep the lines of their logs
	maxSeen      = 500  // ids that are known again
	maxAttempts  = 100  // that the log shows
	maxTitle     = 200  // characters
	maxText      = 1000 // characters
	maxLine      = 300  // characters of a line
	maxLines     = 20   // of a log
	// gatherFrom is from how many on what waits is sent as one message.
	gatherFrom = 5
)

// How often a message is tried again, and for how long.
const (
	retryFirst = 10 * time.Second // after the first failure
	retryMost  = time.Hour        // after many
	giveUpFrom = 24 * time.Hour   // after the first attempt
	// takeOver is when another replica tries what one began to send and said no more about.
	takeOver = 2 * time.Minute
)

// idOf names what is told, the same whoever finds it and how often.
func idOf(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return "ntf_" + hex.EncodeToString(sum[:12])
}

// bounded is a notification within the limits.
func bounded(n *gatewaystorev1.Notification) *gatewaystorev1.Notification {
	n.Title, n.Text = clip(n.GetTitle(), maxTitle), clip(n.GetText(), maxText)
	n.Lines = n.GetLines()[max(0, len(n.GetLines())-maxLines):]
	for i, line := range n.GetLines() {
		if r := []rune(line); len(r) > maxLine {
			n.Lines[i] = string(r[:maxLine-1]) + "…"
		}
	}
	return n
}

// tell puts a notification into the queues of the targets that want it. It can be repeated.
func (s *Store) tell(ctx context.Context, workspace string, n *gatewaystorev1.Notification) error {
	list, err := s.read(ctx, workspace)
	if err != nil {
		return err
	}
	for _, t := range active(list) {
		p := t.GetPublic()
		if !wantsOne(p, n.GetApp(), n.GetEvent()) || n.GetTarget() != "" && n.GetTarget() != p.GetId() ||
			n.GetTime().AsTime().Before(p.GetCreateTime().AsTime().Add(-clockSkew)) {
			continue
		}
		dropped := false
		_, _, err := s.queues.Update(ctx, queueKey(workspace, p.GetId()), func(q *gatewaystorev1.NotificationQueue) (*gatewaystorev1.NotificationQueue, error) {
			before := q.GetDropped()
			q, err := enqueue(q, n)
			dropped = err == nil && q.GetDropped() > before
			return q, err
		})
		if err != nil {
			return err
		}
		if dropped {
			s.count(p.GetKind(), resultDropped)
		}
	}
	return nil
}

// clockSkew is how far the clocks of two servers may differ when the time of a thing decides whether a
// target is new to it.
const clockSkew = 5 * time.Second

// enqueue adds a notification that the queue has not had.
func enqueue(q *gatewaystorev1.NotificationQueue, n *gatewaystorev1.Notification) (*gatewaystorev1.NotificationQueue, error) {
	if q == nil {
		q = &gatewaystorev1.NotificationQueue{}
	}
	if slices.Contains(q.GetSeen(), n.GetId()) {
		return nil, kv.ErrSkip
	}
	q.Seen = append(q.GetSeen(), n.GetId())
	q.Seen = q.Seen[max(0, len(q.Seen)-maxSeen):]
	if len(q.GetWaiting()) >= maxWaiting {
		q.Dropped++
		return q, nil
	}
	kept := n
	if len(q.GetWaiting()) >= maxWithLines && len(n.GetLines()) > 0 {
		kept = cloneWithoutLines(n)
	}
	q.Waiting = append(q.GetWaiting(), kept)
	return q, nil
}

// due is when there is something to do for a queue; zero when there is nothing.
func due(q *gatewaystorev1.NotificationQueue) time.Time {
	switch {
	case q.GetSending() != nil:
		return q.GetSending().GetNextTime().AsTime()
	case len(q.GetWaiting()) > 0:
		return q.GetWaiting()[0].GetTime().AsTime()
	}
	return time.Time{}
}

// claim takes what is to be sent now, for one attempt; nil when there is nothing to do, or another
// replica does it. A message stays what it was at its first attempt, and so keeps its id.
func claim(q *gatewaystorev1.NotificationQueue, t *gatewayv1.NotificationTarget, now time.Time) *gatewaystorev1.NotificationMessage {
	m := q.GetSending()
	if m == nil {
		if m = next(q, t); m == nil {
			return nil
		}
		m.FirstTime = timestamppb.New(now)
		q.Sending = m
	} else if now.Before(m.GetNextTime().AsTime()) {
		return nil
	}
	m.Attempts++
	m.NextTime = timestamppb.New(now.Add(takeOver))
	return m
}

// next moves what is sent next out of what waits: one notification, or all when they are many or came in
// quiet hours.
func next(q *gatewaystorev1.NotificationQueue, t *gatewayv1.NotificationTarget) *gatewaystorev1.NotificationMessage {
	waiting := q.GetWaiting()
	if len(waiting) == 0 {
		return nil
	}
	quiet := func(n *gatewaystorev1.Notification) bool {
		return !quietUntil(t.GetQuietHours(), n.GetTime().AsTime()).IsZero()
	}
	if len(waiting) < gatherFrom && !slices.ContainsFunc(waiting, quiet) {
		q.Waiting = waiting[1:]
		return &gatewaystorev1.NotificationMessage{Id: waiting[0].GetId(), Notifications: waiting[:1]}
	}
	m := &gatewaystorev1.NotificationMessage{Id: waiting[0].GetId(), Notifications: waiting, Dropped: q.GetDropped()}
	if len(waiting) > 1 || m.GetDropped() > 0 {
		m.Id = idOf("several", waiting[0].GetId(), waiting[len(waiting)-1].GetId())
	}
	q.Waiting, q.Dropped = nil, 0
	return m
}

// noteAttempt notes what came of an attempt. A message that went on meanwhile, in another's hands, is left
// alone; the attempt is noted all the same.
func noteAttempt(q *gatewaystorev1.NotificationQueue, m *gatewaystorev1.NotificationMessage, a *gatewayv1.NotificationAttempt, retryAfter time.Duration, now time.Time) {
	if cur := q.GetSending(); cur.GetId() == m.GetId() && (a.GetDelivered() || cur.GetAttempts() == m.GetAttempts()) {
		again := now.Add(max(retryPause(int(m.GetAttempts())), retryAfter))
		switch {
		case a.GetDelivered():
			q.Sending = nil
		case again.Sub(m.GetFirstTime().AsTime()) > giveUpFrom:
			a.Message += " Given up after a day."
			q.Sending = nil
		default:
			cur.NextTime = timestamppb.New(again)
			a.RetryTime = cur.GetNextTime()
		}
	}
	note(q, a)
}

func note(q *gatewaystorev1.NotificationQueue, a *gatewayv1.NotificationAttempt) {
	q.Attempts = append(q.GetAttempts(), a)
	q.Attempts = q.Attempts[max(0, len(q.Attempts)-maxAttempts):]
}

// retryPause is the pause after a failed attempt (1, 2, …): 10 s doubling to an hour, less up to a
// quarter at random. It follows from the attempt alone, because any replica may make the next one.
func retryPause(attempt int) time.Duration {
	d := min(retryFirst<<min(attempt-1, 10), retryMost)
	return d - rand.N(d/4)
}

func cloneWithoutLines(n *gatewaystorev1.Notification) *gatewaystorev1.Notification {
	return &gatewaystorev1.Notification{
		Id: n.GetId(), Event: n.GetEvent(), Resolved: n.GetResolved(), App: n.GetApp(), Deployment: n.GetDeployment(), Branch: n.GetBranch(),
		Commit: n.GetCommit(), Reason: n.GetReason(), Title: n.GetTitle(), Text: n.GetText(), Path: n.GetPath(), Time: n.GetTime(),
	}
}
