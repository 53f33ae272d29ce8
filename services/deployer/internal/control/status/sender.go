package status

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
)

// Tokens hands out a workspace's access token; its errors are those of pkg/apierr.
type Tokens interface {
	Token(ctx context.Context, workspace, fullName string, rejected seal.Secret) (seal.Secret, error)
}

// Records stores deployment records; its errors are those of pkg/kv.
type Records interface {
	Get(ctx context.Context, key string) (*storev1.Deployment, uint64, error)
}

// Apps knows apps; App's error for one that is gone is APP_NOT_FOUND.
type Apps interface {
	App(ctx context.Context, k lane.Key) (*storev1.App, error)
	Index(ctx context.Context, workspace, repository string) (*storev1.RepositoryIndex, error)
}

// Connections knows how integrations stand.
type Connections interface {
	Get(ctx context.Context, workspace string) (*storev1.Connection, error)
}

// Config is what a Sender needs; the fields without a word about it are required.
type Config struct {
	Client      *bitbucket.Client
	Tokens      Tokens
	Records     Records
	Apps        Apps
	Connections Connections
	// PublicURL is where people reach the console; statuses link there.
	PublicURL string
	// Mask takes secrets out of what is sent; nil: nothing is known to take out.
	Mask func(string) string
	// Position keeps how far the events were handled, so that handling one costs no write; nil: the consumer
	// keeps it. Events that come again after a restart are known by what was sent.
	Position stream.Position
	// Retry is the pause before a status that met trouble is tried again; 30 s when zero.
	Retry      time.Duration
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics
	Metrics    *stream.Metrics       // nil: none
	Tracer     trace.Tracer          // records what is sent; may be nil
	Now        func() time.Time      // nil: time.Now
}

const (
	// Bucket remembers for a day what was sent, over processes.
	Bucket = "deployer-statuses"

	// Durable is the consumer that all replicas share.
	Durable = "deployer-statuses"
	slots   = 4                // statuses that are sent at a time
	timeout = 15 * time.Minute // for how long the end of a deployment is tried
	// shortTimeout is for how long any status is tried while the budget of calls is short.
	shortTimeout = 12 * time.Hour
	callLimit    = 15 * time.Second // for one call
	markLife     = 24 * time.Hour   // how long it is remembered what was sent
	remembered   = 4096             // statuses that are remembered in memory
	// maxNewer is how many newer deployments are searched for one of the same commit.
	maxNewer = 20
)

// Sender sends statuses. It is safe for concurrent use.
type Sender struct {
	cfg      Config
	why      string // why nothing is sent; empty when statuses are sent
	marks    *kv.Bucket[wrapperspb.StringValue, *wrapperspb.StringValue]
	sent     recent
	backoffs backoffs
	turns    turns
	counted  *prometheus.CounterVec
}

// New makes a Sender. It does no I/O.
func New(cfg Config) (*Sender, error) {
	for name, missing := range map[string]bool{
		"Client": cfg.Client == nil, "Tokens": cfg.Tokens == nil, "Records": cfg.Records == nil, "Apps": cfg.Apps == nil,
		"Connections": cfg.Connections == nil, "Logger": cfg.Logger == nil,
	} {
		if missing {
			return nil, fmt.Errorf("status: Config.%s is missing", name)
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Mask == nil {
		cfg.Mask = func(s string) string { return s }
	}
	if cfg.Retry == 0 {
		cfg.Retry = 30 * time.Second
	}
	s := &Sender{cfg: cfg, sent: recent{n: remembered}, counted: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "devpilot_deployer_statuses_total", Help: "Commit statuses, by what became of them: sent, waiting, refused, dropped.",
	}, []string{"result"})}
	var err error
	if s.why, err = unsendable(cfg.PublicURL, cfg.Client.Site().APIURL); err != nil {
		return nil, err
	}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(s.counted); err != nil {
			return nil, fmt.Errorf("status: %w", err)
		}
	}
	return s, nil
}

// unsendable says why statuses cannot link to us, as the end of a sentence; "" when they can.
func unsendable(publicURL, apiURL string) (string, error) {
	public, err := url.Parse(publicURL)
	if err != nil || public.Host == "" || public.Scheme != "http" && public.Scheme != "https" {
		return "", errors.New("status: the public URL is not an http or https URL")
	}
	api, err := url.Parse(apiURL)
	if err != nil {
		return "", errors.New("status: the API's address is not a URL")
	}
	if strings.EqualFold(strings.TrimSuffix(public.Hostname(), "."), "localhost") {
		return "is on localhost", nil // refused as a link even by a Bitbucket next door (BITBUCKET.md#build-statuses)
	}
	return bitbucket.Unreachable(public, api), nil
}

// ReasonNotSent is the reason of Reason.
const ReasonNotSent = "STATUS_NOT_SENT"

// Reason says why this installation sends no statuses at all; both are empty when it does.
func (s *Sender) Reason() (reason, message string) {
	if s.why == "" {
		return "", ""
	}
	return ReasonNotSent, fmt.Sprintf(
		"Deployments are not shown at the commits on Bitbucket: the link to them would not work, as Devpilot's public URL %s %s. Set DEVPILOT_PUBLIC_URL to an https address that everybody can reach.",
		s.cfg.PublicURL, s.why)
}

// Run sends statuses until ctx is done. Where none can be sent it only waits. A consumer that did
// not exist begins at the end of the events: what was deployed before is not told.
func (s *Sender) Run(ctx context.Context, js jetstream.JetStream) error {
	if s.why != "" {
		s.cfg.Logger.InfoContext(ctx, "no commit statuses: the public URL is not public", slog.String(logs.KeyReason, s.why))
		<-ctx.Done()
		return nil
	}
	if !s.openMarks(ctx, js) {
		return nil
	}
	filter, err := stream.EventsOfService("deployer", "deployment")
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	return stream.Consume(ctx, stream.ConsumeConfig{
		JS: js, Stream: stream.EventsStream, Durable: Durable, Filters: []string{filter}, DeliverNew: true, Position: s.cfg.Position,
		Slots: slots, MaxAttempts: -1, AckWait: s.cfg.Retry, Handle: s.handle, Logger: s.cfg.Logger, Metrics: s.cfg.Metrics,
	})
}

// openMarks makes sure of the bucket, waiting out trouble; false when ctx is done first.
func (s *Sender) openMarks(ctx context.Context, js jetstream.JetStream) bool {
	for {
		b, err := kv.Open[wrapperspb.StringValue](ctx, js, kv.Config{Name: Bucket, TTL: true, Logger: s.cfg.Logger})
		if err == nil {
			s.marks = b
			return true
		}
		s.cfg.Logger.WarnContext(ctx, "bucket of commit statuses not open yet", logs.Err(err))
		t := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			t.Stop()
			return false
		case <-t.C:
		}
	}
}

// handle reads the deployment that an event names and sends its status.
func (s *Sender) handle(ctx context.Context, m stream.Msg) error {
	e := &eventsv1.ChangeEvent{}
	if err := proto.Unmarshal(m.Data, e); err != nil {
		return stream.Parkf("cannot be decoded: %v", err)
	}
	app, number, ok := parseID(e.GetId())
	if !ok {
		return stream.Parkf("%q is not a deployment's id", e.GetId())
	}
	if e.GetDeleted() {
		return nil
	}
	l := update{Sender: s, key: lane.Key{Workspace: e.GetWorkspace(), App: app}, number: number, asked: m.Time}
	ctx = logs.WithAttrs(ctx, slog.String(logs.KeyWorkspace, l.key.Workspace), slog.String(logs.KeyApp, app), slog.Int(logs.KeyDeployment, int(number)))
	name := l.key.Record(number)
	if !s.turns.take(name) {
		return nil
	}
	mine := true
	defer func() {
		if mine { // after an error or a panic: the event comes again, for those too who came meanwhile
			s.turns.end(name)
		}
	}()
	for mine {
		if err := l.run(ctx); err != nil {
			return err
		}
		mine = s.turns.again(name)
	}
	return nil
}

func parseID(id string) (app string, number int32, ok bool) {
	app, rest, found := strings.Cut(id, "/")
	if !found || app == "" {
		return "", 0, false
	}
	_, err := fmt.Sscanf(rest, "%d", &number)
	return app, number, err == nil && number > 0 && fmt.Sprint(number) == rest
}

func (s *Sender) count(result string) { s.counted.WithLabelValues(result).Inc() }
