package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
)

// Limits of what one replica does at a time.
const (
	maxSends          = 16 // in all
	maxWorkspaceSends = 4  // of one workspace: slow receivers of one do not keep others waiting
	// tickWhileWaiting is how often messages that wait are considered; nothing ticks while none waits.
	tickWhileWaiting = time.Second
	// noteTimeout bounds noting what came of an attempt.
	noteTimeout = 5 * time.Second
	// testPause is the least time between two tests of a target.
	testPause = 2 * time.Second
)

// SenderConfig is what NewSender needs.
type SenderConfig struct {
	Store     *Store
	Addresses Addresses
	SMTP      SMTP
	PublicURL string // without a final slash
	Logger    *slog.Logger
	Now       func() time.Time
}

// Sender sends what is in the queues. Of several replicas one sends each message.
type Sender struct {
	cfg  SenderConfig
	post poster
	mail mailer

	mu      sync.Mutex
	due     map[string]time.Time // of each queue in which something is to be done
	busy    map[string]bool      // queues in hand
	byOwner map[string]int       // how many of a workspace's are in hand
	wake    chan struct{}
}

// NewSender makes a sender; Run has it send.
func NewSender(cfg SenderConfig) *Sender {
	return &Sender{
		cfg: cfg, post: newPoster(cfg.Addresses), mail: mailer{cfg.SMTP},
		due: map[string]time.Time{}, busy: map[string]bool{}, byOwner: map[string]int{}, wake: make(chan struct{}, 1),
	}
}

// Run sends what is due until ctx is done; what is being sent then is waited for.
func (s *Sender) Run(ctx context.Context) error {
	queues := kv.NewMirror(s.cfg.Store.queues)
	queues.OnChange(func(key string, q *gatewaystorev1.NotificationQueue) { s.set(key, due(q)) })
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return queues.Run(ctx) })
	group.Go(func() error {
		var sends sync.WaitGroup
		defer sends.Wait()
		for {
			var again <-chan time.Time
			if s.begin(ctx, &sends) {
				again = time.After(tickWhileWaiting)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-s.wake:
			case <-again:
			}
		}
	})
	return group.Wait()
}

// set notes when there is something to do for a queue; zero for nothing.
func (s *Sender) set(key string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.IsZero() {
		delete(s.due, key)
		return
	}
	s.due[key] = at
	s.rouse()
}

func (s *Sender) rouse() {
	select {
	case s.wake <- struct{}{}:
	default: // it looks anyway
	}
}

// begin starts the sends that are due and may, and tells whether any are left for later.
func (s *Sender) begin(ctx context.Context, sends *sync.WaitGroup) (left bool) {
	now := s.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, at := range s.due {
		workspace, target, ok := ofQueue(key)
		if !ok || s.busy[key] {
			continue
		}
		if at.After(now) || len(s.busy) >= maxSends || s.byOwner[workspace] >= maxWorkspaceSends {
			left = true
			continue
		}
		s.busy[key] = true
		s.byOwner[workspace]++
		sends.Go(func() {
			later, err := s.sendNext(ctx, workspace, target)
			if err != nil && ctx.Err() == nil {
				s.cfg.Logger.WarnContext(ctx, "notification not sent", slog.String(logs.KeyWorkspace, workspace), slog.String("target", target), logs.Err(err))
				later = s.cfg.Now().Add(retryFirst)
			}
			s.ended(key, workspace, later)
		})
	}
	return left
}

// ended gives a queue back. Until later, if that is set, there is nothing to do for it; else its record
// says when there is.
func (s *Sender) ended(key, workspace string, later time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, key)
	if s.byOwner[workspace]--; s.byOwner[workspace] == 0 {
		delete(s.byOwner, workspace)
	}
	if _, ok := s.due[key]; ok && !later.IsZero() {
		s.due[key] = later
	}
	s.rouse()
}

// sendNext makes one attempt to send what is next in a queue. later is when to come again for what the
// queue's record does not tell; zero when it does.
func (s *Sender) sendNext(ctx context.Context, workspace, target string) (later time.Time, err error) {
	st, key := s.cfg.Store, queueKey(workspace, target)
	stored, err := st.target(ctx, workspace, target)
	if apierr.Has(err, apierr.ReasonNotificationTargetNotFound) {
		return time.Time{}, st.forget(ctx, key)
	}
	if err != nil {
		return time.Time{}, err
	}
	if !stored.GetPublic().GetActive() {
		return time.Time{}, s.drop(ctx, key)
	}
	now := s.cfg.Now()
	if until := quietUntil(stored.GetPublic().GetQuietHours(), now); !until.IsZero() {
		return until, nil
	}
	t, err := st.open(stored)
	if err != nil {
		return time.Time{}, err
	}
	var m *gatewaystorev1.NotificationMessage
	q, _, err := st.queues.Update(ctx, key, func(q *gatewaystorev1.NotificationQueue) (*gatewaystorev1.NotificationQueue, error) {
		if m = claim(q, t.NotificationTarget, now); m == nil {
			return nil, kv.ErrSkip
		}
		return q, nil
	})
	if err != nil {
		return time.Time{}, err
	}
	if m == nil { // in another's hands, or done
		return due(q), nil
	}
	a, o := s.attempt(ctx, workspace, t, m)
	result := resultFailed
	if a.GetDelivered() {
		result = resultSent
	}
	st.count(t.GetKind(), result)
	if ctx.Err() != nil && !a.GetDelivered() { // we were stopped, the receiver did nothing wrong
		a.Message = "Interrupted: Devpilot was stopped meanwhile."
	}
	done, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancel()
	q, _, err = st.queues.Update(done, key, func(q *gatewaystorev1.NotificationQueue) (*gatewaystorev1.NotificationQueue, error) {
		if q == nil {
			return nil, kv.ErrSkip // the target was deleted
		}
		noteAttempt(q, m, a, o.retryAfter, s.cfg.Now())
		return q, nil
	})
	return due(q), err
}

// drop forgets what waits for a target that is switched off.
func (s *Sender) drop(ctx context.Context, key string) error {
	_, _, err := s.cfg.Store.queues.Update(ctx, key, func(q *gatewaystorev1.NotificationQueue) (*gatewaystorev1.NotificationQueue, error) {
		if due(q).IsZero() {
			return nil, kv.ErrSkip
		}
		q.Waiting, q.Sending, q.Dropped = nil, nil, 0
		return q, nil
	})
	return err
}

// attempt sends a message once.
func (s *Sender) attempt(ctx context.Context, workspace string, t opened, m *gatewaystorev1.NotificationMessage) (*gatewayv1.NotificationAttempt, outcome) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	start, at := time.Now(), s.cfg.Now()
	r := rendering{workspace: workspace, publicURL: s.cfg.PublicURL, msg: m}
	o := s.deliver(ctx, r, t, at)
	return &gatewayv1.NotificationAttempt{
		Time: timestamppb.New(at), Notification: m.GetId(), Title: r.title(), Attempt: m.GetAttempts(),
		Delivered: o.problem == "", Status: int32(o.status), Message: o.problem, DurationMs: int32(time.Since(start).Milliseconds()),
	}, o
}

func (s *Sender) deliver(ctx context.Context, r rendering, t opened, at time.Time) outcome {
	var body []byte
	var err error
	switch t.GetKind() {
	case gatewayv1.NotificationTarget_WEBHOOK:
		body, err = r.webhook()
	case gatewayv1.NotificationTarget_SLACK:
		body, err = r.slack()
	case gatewayv1.NotificationTarget_EMAIL:
		return s.mail.send(ctx, r, t.GetRecipients())
	case gatewayv1.NotificationTarget_KIND_UNSPECIFIED:
		err = errors.New("a target without a kind")
	default:
		err = fmt.Errorf("a target of an unknown kind %d", t.GetKind())
	}
	if err != nil {
		s.cfg.Logger.ErrorContext(ctx, "notification cannot be written", logs.Err(err))
		return outcome{problem: "The notification could not be written."}
	}
	return s.post.post(ctx, t.url, r.msg.GetId(), body, at, t.secrets)
}

// Test sends a test to a target at once, also in quiet hours and when it is switched off, and notes what
// came of it. nonce tells tests apart.
func (s *Sender) Test(ctx context.Context, workspace, target, nonce, who string) (*gatewayv1.NotificationAttempt, error) {
	st := s.cfg.Store
	stored, err := st.target(ctx, workspace, target)
	if err != nil {
		return nil, err
	}
	t, err := st.open(stored)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Now()
	id := idOf("test", workspace, target, nonce)
	m := &gatewaystorev1.NotificationMessage{Id: id, Attempts: 1, FirstTime: timestamppb.New(now), Notifications: []*gatewaystorev1.Notification{{
		Id: id, Title: fmt.Sprintf("A test of %q", t.GetLabel()), Text: fmt.Sprintf("%s asked for it. Notifications of workspace %s arrive here.", who, workspace),
		Path: settingsPath(workspace), Time: timestamppb.New(now),
	}}}
	if q, _, err := st.queues.Get(ctx, queueKey(workspace, target)); err == nil && testedSince(q, now.Add(-testPause)) {
		return nil, apierr.New(apierr.ReasonRateLimited, "The target was tested a moment ago. Wait two seconds.", apierr.WithRetryAfter(testPause))
	}
	a, _ := s.attempt(ctx, workspace, t, m)
	_, _, err = st.queues.Update(ctx, queueKey(workspace, target), func(q *gatewaystorev1.NotificationQueue) (*gatewaystorev1.NotificationQueue, error) {
		if q == nil {
			q = &gatewaystorev1.NotificationQueue{}
		}
		note(q, a)
		return q, nil
	})
	return a, kv.ToAPI(err)
}

func testedSince(q *gatewaystorev1.NotificationQueue, at time.Time) bool {
	list := q.GetAttempts()
	return len(list) > 0 && list[len(list)-1].GetTime().AsTime().After(at)
}

// Attempts returns the last attempts to send something to a target, newest first, and how much waits.
func (s *Store) Attempts(ctx context.Context, workspace, target string) (list []*gatewayv1.NotificationAttempt, waiting int, err error) {
	if _, err := s.target(ctx, workspace, target); err != nil {
		return nil, 0, err
	}
	q, _, err := s.queues.Get(ctx, queueKey(workspace, target))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, kv.ToAPI(err)
	}
	for i := len(q.GetAttempts()) - 1; i >= 0; i-- {
		list = append(list, q.GetAttempts()[i])
	}
	return list, len(q.GetWaiting()) + int(q.GetDropped()) + len(q.GetSending().GetNotifications()), nil
}
