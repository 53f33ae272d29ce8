package ingress

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/tracing"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/inbox"
	"devpilot.io/bitbucket/services/webhook/internal/limit"
)

// PathPrefix is what precedes the webhook's id in the path.
const PathPrefix = hook.Path

var slashes = regexp.MustCompile(`//+`)

// MaxBody is the largest body that is read, in bytes. Bitbucket sends at most 256 KB
// (BITBUCKET.md#delivery-size).
const MaxBody = 512 << 10

// DefaultHold is how long a delivery waits for the store: Bitbucket gives up after 10 s, and the
// last attempt may take 2 s.
const DefaultHold = 7 * time.Second

// Cache is the copy of all webhooks in memory.
type Cache interface {
	// Ready is nil once the copy is complete.
	Ready(ctx context.Context) error
	// Find returns the webhook of an id, or nil. It is shared and not to be modified.
	Find(id string) *storev1.WebhookRecord
	// FindHook returns the webhook whose hook at Bitbucket has a UUID, or nil. It is shared, too.
	FindHook(uuid string) *storev1.WebhookRecord
}

// Leader reads a webhook that is certainly up to date. There is none: kv.ErrNotFound.
type Leader interface {
	GetByID(ctx context.Context, id string) (*storev1.WebhookRecord, error)
}

// Secrets opens the secrets that a webhook's deliveries may be signed with at a moment, and says
// which version each is.
type Secrets interface {
	Open(rec *storev1.WebhookRecord, now time.Time) (secrets []seal.Secret, versions []int32, err error)
}

// Inbox stores a delivery; see inbox.Writer.Store.
type Inbox interface {
	Store(d *storev1.InboxDelivery, timeout time.Duration) error
}

// Refusals keeps refused requests for people; see refusals.Ring.
type Refusals interface {
	Add(d *webhookv1.Delivery)
}

// Config is what a Handler needs.
type Config struct {
	Cache          Cache
	Leader         Leader
	Secrets        Secrets
	Installation   seal.Secret // see hook.InstallationSecret
	Inbox          Inbox
	Codec          *inbox.Codec
	Refusals       Refusals
	Logger         *slog.Logger
	Registerer     prometheus.Registerer // nil: no metrics
	TracerProvider trace.TracerProvider
	Now            func() time.Time

	Hold        time.Duration // DefaultHold when zero
	ReadTimeout time.Duration // of a body; 10 s when zero
	Memory      int64         // bytes of deliveries in flight; 64 MiB when zero
}

// Handler serves the webhooks' path. It is safe for concurrent use.
type Handler struct {
	cfg     Config
	memory  *memory
	unknown *rate.Limiter // leader reads for paths that the cache does not know
	wrong   *limit.Keyed  // leader reads for signatures that do not match, per webhook
	metrics *metrics
	tracer  trace.Tracer
}

// New makes a handler.
func New(cfg Config) *Handler {
	if cfg.Hold == 0 {
		cfg.Hold = DefaultHold
	}
	if cfg.ReadTimeout == 0 {
		cfg.ReadTimeout = 10 * time.Second
	}
	if cfg.Memory == 0 {
		cfg.Memory = 64 << 20
	}
	return &Handler{
		cfg: cfg, memory: newMemory(cfg.Memory),
		unknown: rate.NewLimiter(20, 40), wrong: limit.NewKeyed(1, 3, 20, 40),
		metrics: newMetrics(cfg.Registerer),
		tracer:  cfg.TracerProvider.Tracer("devpilot.io/bitbucket/services/webhook/internal/ingress"),
	}
}

// request is one request on its way through.
type request struct {
	http    *http.Request
	id      string // of the webhook, as the path says
	webhook *storev1.WebhookRecord
	body    []byte
	start   time.Time
	version int32 // of the secret that matched
	proof   string
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := h.cfg.Now()
	began := time.Now()
	requestID := rpc.NewRequestID()
	ctx, span := h.tracer.Start(rpc.WithRequestID(r.Context(), requestID), "deliver webhook", trace.WithSpanKind(trace.SpanKindServer))
	defer span.End()
	// Bitbucket follows no redirect: an address that was put together with a slash too many is served.
	path := r.URL.Path
	if strings.Contains(path, "//") {
		path = slashes.ReplaceAllLiteralString(path, "/")
	}
	id, _ := strings.CutPrefix(path, PathPrefix)
	req := &request{http: r.WithContext(ctx), id: id, start: start}
	// A body that trickles in must not hold a connection; the server's own limits are for headers.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(h.cfg.ReadTimeout)) // not every writer has one
	used := h.memory.begin()
	a := h.answer(ctx, w, req, used)
	a.write(w, requestID)
	used.release()

	took := time.Since(began)
	span.SetAttributes(attribute.Int("http.response.status_code", a.status))
	h.metrics.observe(ctx, a, took)
	attrs := []slog.Attr{slog.Int(logs.KeyHTTPStatus, a.status), logs.Duration(took), slog.String(logs.KeyReason, a.reason)}
	if req.webhook != nil {
		attrs = append(attrs, slog.String(logs.KeyWebhook, req.webhook.GetId()), slog.String(logs.KeyWorkspace, req.webhook.GetWorkspace()))
	}
	level := logs.LevelRequest
	if a.err != nil {
		level, attrs = slog.LevelWarn, append(attrs, logs.Err(a.err))
	}
	h.cfg.Logger.LogAttrs(ctx, level, "delivery answered", attrs...)
}

// answer goes through the steps; each may end it.
func (h *Handler) answer(ctx context.Context, w http.ResponseWriter, req *request, used *share) *answer {
	proves := req.http.Header.Get(hook.HeaderEvent) == hook.EventProof
	if proves && req.id == hook.InstallationID && req.http.Method == http.MethodPost {
		return h.proveInstallation(w, req, used)
	}
	if !validID(req.id) && h.sender(req) == nil {
		return notFound()
	}
	if req.http.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return refuse(http.StatusMethodNotAllowed, "method", "This address takes deliveries of Bitbucket, by POST only.")
	}
	if err := h.cfg.Cache.Ready(ctx); err != nil {
		return trouble("starting", "Devpilot is starting and does not know its webhooks yet.", err)
	}
	// A request for an unknown webhook may use less memory than one for a known webhook. Its body
	// is read up to the limit before 404 is answered, so that the answer does not depend on whether
	// the webhook exists.
	req.webhook = h.cfg.Cache.Find(req.id)
	used.stranger = req.webhook == nil
	var a *answer
	if req.body, a = readBody(w, req.http, used); a != nil {
		return a
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // or waiting for the store would look like a lost client
	if a := h.find(ctx, req); a != nil {
		h.keepAstray(req, a)
		return a
	}
	if a := h.verify(ctx, req); a != nil {
		h.keepRefused(req, a)
		return a
	}
	if proves {
		return proof(req.proof)
	}
	a = decide(req.http.Header.Get(hook.HeaderEvent), req.body, req.webhook)
	return h.store(ctx, req, a)
}

// find finds the webhook; one that the cache does not know may be new, so that the leader is read too.
func (h *Handler) find(ctx context.Context, req *request) *answer {
	if req.webhook == nil || gone(req.webhook) {
		req.webhook = nil
		if !validID(req.id) || !h.unknown.Allow() {
			return notFound()
		}
		rec, err := h.leader(ctx, req.id)
		if err != nil {
			return trouble("store", "Devpilot cannot look the webhook up at the moment.", err)
		}
		req.webhook = rec
	}
	if req.webhook == nil || gone(req.webhook) {
		req.webhook = nil
		return notFound()
	}
	return nil
}

// gone reports whether the webhook is to be treated as if it did not exist: a person took it off
// the list and no app uses it.
func gone(rec *storev1.WebhookRecord) bool { return rec.GetDismissed() && len(rec.GetWatches()) == 0 }

// verify checks the signature with the secrets that the cache has, and if they do not fit, with
// those that the leader has.
func (h *Handler) verify(ctx context.Context, req *request) *answer {
	err := h.matches(req, req.webhook)
	if err == nil {
		return nil
	}
	if errors.Is(err, hook.ErrSignatureMismatch) && h.wrong.Allow(req.webhook.GetId(), h.cfg.Now()) {
		rec, readErr := h.leader(ctx, req.id)
		if readErr != nil {
			return trouble("store", cannotCheck, readErr)
		}
		if rec != nil {
			if err = h.matches(req, rec); err == nil {
				req.webhook = rec
				return nil
			}
		}
	}
	return badSignature(err)
}

func (h *Handler) matches(req *request, rec *storev1.WebhookRecord) error {
	secrets, versions, err := h.cfg.Secrets.Open(rec, req.start)
	if err != nil {
		return err
	}
	i, err := hook.Verify(req.body, req.http.Header.Get(hook.HeaderSignature), secrets...)
	if err != nil {
		return err
	}
	req.version = versions[i]
	if req.http.Header.Get(hook.HeaderEvent) == hook.EventProof {
		req.proof = hook.SignProof(req.body, secrets[i])
	}
	return nil
}

// store stores the delivery. One from which nothing follows is answered with 200 even if it could not be
// stored: all that is lost is its line in the list.
func (h *Handler) store(ctx context.Context, req *request, a *answer) *answer {
	if a.status >= 400 {
		return a
	}
	d := h.delivery(ctx, req, a)
	a.Delivery = d.GetId()
	timeout := h.cfg.Hold
	if a.status == http.StatusOK {
		timeout = min(timeout, time.Second)
	}
	_, span := tracing.Start(ctx, h.tracer, "store in inbox", tracing.About{Workspace: d.GetWorkspace()})
	err := h.cfg.Inbox.Store(d, timeout)
	span.End(err)
	switch {
	case err == nil:
		return a
	case a.status == http.StatusOK:
		a.err, a.Delivery = err, ""
		return a
	default:
		return trouble("store", "Devpilot cannot store the delivery at the moment. Bitbucket sends it again; if that fails too, Devpilot finds the commit by itself within a few minutes.", err)
	}
}

// traceContext is the format in which the inbox keeps the trace.
var traceContext = propagation.TraceContext{}

func (h *Handler) delivery(ctx context.Context, req *request, a *answer) *storev1.InboxDelivery {
	header := req.http.Header
	carrier := propagation.MapCarrier{}
	traceContext.Inject(ctx, carrier)
	d := &storev1.InboxDelivery{
		Id: rpc.NewRequestID(), Webhook: req.webhook.GetId(), Workspace: req.webhook.GetWorkspace(),
		ReceiveTime: timestamp(req.start), EventKey: clip(header.Get(hook.HeaderEvent)), RequestUuid: clip(header.Get(hook.HeaderRequest)),
		Attempt: attempt(header), HookUuid: hookUUID(header), SecretVersion: req.version,
		AnswerStatus: int32(a.status), AnswerMessage: a.Message, RequestId: rpc.RequestID(ctx), Traceparent: carrier["traceparent"],
	}
	d.Push, d.Fingerprint = a.push, inbox.Fingerprint(d, req.body)
	h.cfg.Codec.Pack(d, req.body)
	return d
}

// keepRefused puts a refused request into the webhook's ring, for the person who wonders why
// nothing arrives.
func (h *Handler) keepRefused(req *request, a *answer) {
	if a.status == http.StatusUnauthorized {
		h.cfg.Refusals.Add(refused(req, req.webhook, a.status, a.Message))
	}
}

// sender is the webhook whose hook sent a request, as the request says; nil when it is none of ours.
func (h *Handler) sender(req *request) *storev1.WebhookRecord {
	uuid := hookUUID(req.http.Header)
	if uuid == "" || h.cfg.Cache.Ready(req.http.Context()) != nil {
		return nil
	}
	return h.cfg.Cache.FindHook(uuid)
}

const astray = "The request came to another address than this webhook's: somebody changed the webhook's URL on Bitbucket."

// keepAstray puts a request to an address that is none into the ring of the webhook whose hook sent it.
// Only a right signature proves that it did.
func (h *Handler) keepAstray(req *request, a *answer) {
	if rec := h.sender(req); a.status == http.StatusNotFound && rec != nil && !gone(rec) && h.matches(req, rec) == nil {
		h.cfg.Refusals.Add(refused(req, rec, a.status, astray))
	}
}

func refused(req *request, rec *storev1.WebhookRecord, status int, message string) *webhookv1.Delivery {
	header := req.http.Header
	return &webhookv1.Delivery{
		Webhook: rec.GetId(), Workspace: rec.GetWorkspace(), Repository: rec.GetRepository(),
		RepositoryFullName: rec.GetRepositoryFullName(), ReceiveTime: timestamp(req.start), Refused: true,
		EventKey: clip(header.Get(hook.HeaderEvent)), RequestUuid: clip(header.Get(hook.HeaderRequest)), Attempt: attempt(header), HookUuid: hookUUID(header),
		AnswerStatus: int32(status), AnswerMessage: message, BodyBytes: int32(len(req.body)),
	}
}

// hookUUID is the hook that sent a request, as the request says; empty when it does not.
func hookUUID(header http.Header) string {
	return hook.NormalizeUUID(clip(header.Get(hook.HeaderHook)))
}

// attempt is X-Attempt-Number; 0 when it is missing or odd.
func attempt(header http.Header) int32 {
	n, err := strconv.ParseInt(header.Get(hook.HeaderAttempt), 10, 32)
	if err != nil || n < 0 {
		return 0
	}
	return int32(n)
}
