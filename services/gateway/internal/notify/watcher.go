package notify

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// Kinds of change events that are looked into, as their owners name them.
const (
	kindDeployment  = "deployment"
	kindIntegration = "integration"
	kindMembers     = "members"
	kindWebhook     = "webhook"
)

const (
	// durable is the consumer that all replicas share.
	durable = "gateway-notifications"
	// watchers is how many events a replica looks into at a time.
	watchers = 4
	// readTimeout bounds what is read for one event.
	readTimeout = 20 * time.Second
)

// Keys lists the API keys of a workspace.
type Keys interface {
	ListKeys(ctx context.Context, workspace, after string, limit int) (list []*gatewaystorev1.ApiKey, more bool, err error)
}

// WatcherConfig is what NewWatcher needs.
type WatcherConfig struct {
	Store    *Store
	JS       jetstream.JetStream
	Signer   *identity.Signer // reads the other services
	Auth     authv1.AuthServiceClient
	Webhook  webhookv1.WebhookServiceClient
	Deployer deployerv1.DeployerServiceClient
	Keys     Keys
	// PublicURL is where people and Bitbucket reach this installation; its certificate is watched.
	PublicURL string
	Logger    *slog.Logger
	Now       func() time.Time
}

// Watcher finds out what is to be told.
type Watcher struct {
	cfg  WatcherConfig
	cert *certificate
}

// NewWatcher makes a watcher; Run has it watch.
func NewWatcher(cfg WatcherConfig) *Watcher {
	return &Watcher{cfg: cfg, cert: newCertificate(cfg.PublicURL, cfg.Now)}
}

// Run looks into what changes, and at the clock, until ctx is done.
func (w *Watcher) Run(ctx context.Context) error {
	if _, err := stream.Ensure(ctx, w.cfg.JS, stream.Events, stream.Options{Logger: w.cfg.Logger}); err != nil {
		return err
	}
	var filters []string
	for _, f := range [][2]string{{"deployer", kindDeployment}, {"auth", kindIntegration}, {"gateway", kindMembers}, {"webhook", kindWebhook}} {
		subject, err := stream.EventsOfService(f[0], f[1])
		if err != nil {
			return err
		}
		filters = append(filters, subject)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return stream.Consume(ctx, stream.ConsumeConfig{
			JS: w.cfg.JS, Stream: stream.EventsStream, Durable: durable, Filters: filters, Slots: watchers,
			Handle: w.handle, Logger: w.cfg.Logger,
		})
	})
	group.Go(func() error { return w.clock(ctx) })
	return group.Wait()
}

// handle looks into one change. An event only says "look again": what is told is read now.
func (w *Watcher) handle(ctx context.Context, m stream.Msg) error {
	_, workspace, kind, err := stream.ParseEventSubject(m.Subject)
	if err != nil {
		return stream.Park(err.Error())
	}
	var e eventsv1.ChangeEvent
	if err := proto.Unmarshal(m.Data, &e); err != nil {
		return stream.Parkf("not a change event: %v", err)
	}
	since := w.cfg.Store.since(workspace)
	if e.GetDeleted() || since.IsZero() || m.Time.Before(since.Add(-clockSkew)) {
		return nil // nobody wanted to hear of it then
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	switch kind {
	case kindDeployment:
		return w.deployment(ctx, workspace, e.GetId())
	case kindIntegration, kindMembers: // who connected may be no member any more
		return w.integration(ctx, workspace)
	case kindWebhook:
		return w.webhook(ctx, workspace, e.GetId())
	}
	return nil
}

// as is a context in which the services are asked on behalf of nobody but Devpilot: as a member, who may
// read all but secrets.
func (w *Watcher) as(ctx context.Context, workspace string) (context.Context, error) {
	token, err := w.cfg.Signer.SignUser(identity.Identity{
		Subject: "system:notifications", SubjectKind: identity.SubjectLocal, Label: "Devpilot", Workspace: workspace, Role: identity.RoleMember,
	})
	if err != nil {
		return nil, err
	}
	return identity.WithUserToken(ctx, token), nil
}

// streak changes what is remembered about a thing and then tells what is in its outbox, also what a
// replica that died left there. fn adds to the outbox, and returns kv.ErrSkip when nothing is new.
func (w *Watcher) streak(ctx context.Context, workspace, key string, fn func(*gatewaystorev1.NotificationStreak) error) error {
	st := w.cfg.Store
	streak, _, err := st.streaks.Update(ctx, key, func(cur *gatewaystorev1.NotificationStreak) (*gatewaystorev1.NotificationStreak, error) {
		if cur == nil {
			cur = &gatewaystorev1.NotificationStreak{}
		}
		if err := fn(cur); err != nil {
			return nil, err
		}
		for _, n := range cur.GetOutbox() {
			bounded(n)
		}
		return cur, nil
	})
	if err != nil || len(streak.GetOutbox()) == 0 {
		return err
	}
	for _, n := range streak.GetOutbox() {
		if err := st.tell(ctx, workspace, n); err != nil {
			return err
		}
	}
	told := map[string]bool{}
	for _, n := range streak.GetOutbox() {
		told[n.GetId()] = true
	}
	_, _, err = st.streaks.Update(ctx, key, func(cur *gatewaystorev1.NotificationStreak) (*gatewaystorev1.NotificationStreak, error) {
		left := cur.GetOutbox()[:0]
		for _, n := range cur.GetOutbox() {
			if !told[n.GetId()] {
				left = append(left, n)
			}
		}
		if len(left) == len(cur.GetOutbox()) {
			return nil, kv.ErrSkip
		}
		cur.Outbox = left
		return cur, nil
	})
	return err
}

// look is how a thing stands: the name of the trouble that it is in, empty for none, and what is told when
// it begins or is over.
type look struct {
	trouble      string
	begins, ends *gatewaystorev1.Notification
}

// trouble tells that a thing is in a trouble or in none any more: each once. read is called between
// reading what was told and writing what is: of two replicas that read at once the one that saw less
// reads again, so that nothing old is told after something newer.
func (w *Watcher) trouble(ctx context.Context, workspace, key string, read func() (look, error)) error {
	return w.streak(ctx, workspace, key, func(s *gatewaystorev1.NotificationStreak) error {
		l, err := read()
		if isGone(err) {
			l, err = look{trouble: s.GetTrouble()}, nil
		}
		if err != nil {
			return err
		}
		if l.trouble == s.GetTrouble() {
			return kv.ErrSkip
		}
		n := l.ends
		if l.trouble != "" {
			s.Count++
			n = l.begins
			n.Id = idOf(key, "begins", strconv.FormatInt(s.GetCount(), 10))
		} else {
			n.Id, n.Resolved = idOf(key, "ends", strconv.FormatInt(s.GetCount(), 10)), true
		}
		s.Trouble, s.Outbox = l.trouble, append(s.GetOutbox(), n)
		return nil
	})
}

// pathOf is a page of the console.
func pathOf(workspace string, parts ...string) string {
	return "/w/" + workspace + "/" + strings.Join(parts, "/")
}

func settingsPath(workspace string) string { return pathOf(workspace, "settings", "notifications") }

func deploymentPath(workspace, app string, number int32) string {
	return pathOf(workspace, "apps", app, "deployments", fmt.Sprint(number))
}

// wanted is whether anybody wants to hear of one of the events about the app; an empty app is any.
func (w *Watcher) wanted(workspace, app string, events ...gatewayv1.NotificationTarget_Event) bool {
	return w.cfg.Store.wanting(workspace, app, events...)
}
