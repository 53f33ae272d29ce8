package ingress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace/noop"

	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/inbox"
)

const (
	id     = "abcdefghijklmnopqrstuvwx26"
	repo   = "85d08b4e-571d-44e9-a507-fa476535aa98"
	secret = "It's a Secret to Everybody"
)

// world is everything around a handler.
type world struct {
	mu       sync.Mutex
	ready    error
	cache    map[string]*storev1.WebhookRecord
	leader   map[string]*storev1.WebhookRecord
	secrets  map[string]string // webhook → secret, as the leader knows it
	stale    map[string]string // webhook → secret, as the cache knows it
	readErr  error
	reads    int
	storeErr error
	stored   []*storev1.InboxDelivery
	refused  []*webhookv1.Delivery
	timeout  []time.Duration
}

func newWorld() *world {
	rec := &storev1.WebhookRecord{
		Id: id, Workspace: "acme-inc", Repository: repo, RepositoryFullName: "acme/web", State: webhookv1.Webhook_ACTIVE,
		Watches: []*webhookv1.Watch{{App: "web", Branch: "main"}, {App: "web2", Branch: "main"}},
	}
	return &world{
		cache: map[string]*storev1.WebhookRecord{id: rec}, leader: map[string]*storev1.WebhookRecord{id: rec},
		secrets: map[string]string{id: secret}, stale: map[string]string{id: secret},
	}
}

func (w *world) Ready(context.Context) error { return w.ready }

func (w *world) Find(id string) *storev1.WebhookRecord { return w.cache[id] }

func (w *world) GetByID(_ context.Context, id string) (*storev1.WebhookRecord, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reads++
	if w.readErr != nil {
		return nil, w.readErr
	}
	if rec := w.leader[id]; rec != nil {
		fresh := &storev1.WebhookRecord{Id: rec.GetId(), Workspace: rec.GetWorkspace(), Repository: rec.GetRepository(), Epoch: 1}
		return fresh, nil
	}
	return nil, fmt.Errorf("%w: %s", kv.ErrNotFound, id)
}

// Open tells the cache's record from the leader's by the epoch.
func (w *world) Open(rec *storev1.WebhookRecord, _ time.Time) ([]seal.Secret, []int32, error) {
	if rec.GetEpoch() == 1 {
		return []seal.Secret{seal.NewSecret(w.secrets[rec.GetId()])}, []int32{2}, nil
	}
	return []seal.Secret{seal.NewSecret(w.stale[rec.GetId()])}, []int32{1}, nil
}

func (w *world) Store(d *storev1.InboxDelivery, timeout time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timeout = append(w.timeout, timeout)
	if w.storeErr != nil {
		return w.storeErr
	}
	w.stored = append(w.stored, d)
	return nil
}

// FindHook implements Cache: the hook of a webhook has the webhook's id in these tests.
func (w *world) FindHook(uuid string) *storev1.WebhookRecord { return w.Find(uuid) }

func (w *world) Add(d *webhookv1.Delivery) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused = append(w.refused, d)
}

func (w *world) handler(t testing.TB, change ...func(*Config)) *Handler {
	t.Helper()
	codec, err := inbox.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Cache: w, Leader: w, Secrets: w, Inbox: w, Codec: codec, Refusals: w,
		Logger: logs.Discard(), TracerProvider: noop.NewTracerProvider(), Now: time.Now,
	}
	for _, c := range change {
		c(&cfg)
	}
	return New(cfg)
}

// body is a push of branches to the repository.
func body(branches ...string) string {
	var changes []string
	for _, b := range branches {
		changes = append(changes, fmt.Sprintf(`{"old":null,"new":{"type":"branch","name":%q,"target":{"hash":"c14c1bb0b1c14c1bb0b1c14c1bb0b1c14c1bb0b1"}},"created":true}`, b))
	}
	return `{"push":{"changes":[` + strings.Join(changes, ",") + `]},"repository":{"uuid":"{` + repo + `}","full_name":"acme/web"}}`
}

type reply struct {
	status  int
	message string
	raw     string
	header  http.Header
}

// send makes a signed request; change may spoil it.
func send(h http.Handler, content string, change ...func(*http.Request)) reply {
	r := httptest.NewRequest(http.MethodPost, PathPrefix+id, strings.NewReader(content))
	r.Header.Set(hook.HeaderEvent, hook.EventPush)
	r.Header.Set(hook.HeaderSignature, hook.Sign([]byte(content), seal.NewSecret(secret)))
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var a struct{ Message string }
	_ = json.Unmarshal(w.Body.Bytes(), &a)
	return reply{w.Code, a.Message, w.Body.String(), w.Header()}
}

func header(key, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(key, value) }
}

func path(p string) func(*http.Request) { return func(r *http.Request) { r.URL.Path = p } }

func TestAnswers(t *testing.T) {
	tag := strings.ReplaceAll(body("v1"), `"branch"`, `"tag"`)
	deletion := `{"push":{"changes":[{"old":{"type":"branch","name":"old"},"new":null,"closed":true}]},"repository":{"uuid":"{` + repo + `}"}}`
	for name, tc := range map[string]struct {
		content string
		change  func(*http.Request)
		prepare func(*world)
		status  int
		says    string
		stored  int
		refused int
	}{
		"push":                  {body("main", "next"), nil, nil, 202, "branch main created, branch next created", 1, 0},
		"slashes too many":      {body("main", "next"), path("//webhooks///bitbucket//" + id), nil, 202, "branch main created", 1, 0},
		"deletion":              {deletion, nil, nil, 202, "branch old deleted", 1, 0},
		"empty change list":     {`{"push":{"changes":[]}}`, nil, nil, 202, "asks Bitbucket for its branches", 1, 0},
		"unreadable change":     {`{"push":{"changes":[7]}}`, nil, nil, 202, "1 unreadable", 1, 0},
		"tags only":             {tag, nil, nil, 202, "tag v1 created", 1, 0},
		"ping":                  {`{"test":true}`, header(hook.HeaderEvent, hook.EventPing), nil, 200, "works", 1, 0},
		"other event":           {`not json`, header(hook.HeaderEvent, "issue:created"), nil, 200, "issue:created", 1, 0},
		"no event":              {body("main"), header(hook.HeaderEvent, ""), nil, 400, "X-Event-Key", 0, 0},
		"another repository":    {strings.Replace(body("main"), repo, "00000000-571d-44e9-a507-fa476535aa98", 1), nil, nil, 200, "This webhook is for acme/web", 1, 0},
		"broken JSON":           {`{"push":`, nil, nil, 400, "not JSON", 0, 0},
		"JSON of another kind":  {`[1]`, nil, nil, 400, "not JSON", 0, 0},
		"push of another kind":  {`{"push":[]}`, nil, nil, 400, "not a push", 0, 0},
		"empty body":            {``, nil, nil, 400, "not JSON", 0, 0},
		"wrong signature":       {body("main"), header(hook.HeaderSignature, hook.Sign([]byte("x"), seal.NewSecret(secret))), nil, 401, "does not match", 0, 1},
		"no signature":          {body("main"), header(hook.HeaderSignature, ""), nil, 401, "missing", 0, 1},
		"other algorithm":       {body("main"), header(hook.HeaderSignature, "sha1=da39a3ee5e6b4b0d3255bfef95601890afd80709"), nil, 401, "does not match", 0, 1},
		"broken and unsigned":   {`{"push":`, header(hook.HeaderSignature, ""), nil, 401, "missing", 0, 1},
		"unknown webhook":       {body("main"), path(PathPrefix + strings.Repeat("z", 26)), nil, 404, "no such webhook", 0, 0},
		"odd id":                {body("main"), path(PathPrefix + "../x"), nil, 404, "no such webhook", 0, 0},
		"no id":                 {body("main"), path(PathPrefix), nil, 404, "no such webhook", 0, 0},
		"trailing slash":        {body("main"), path(PathPrefix + id + "/"), nil, 404, "no such webhook", 0, 0},
		"other method":          {body("main"), func(r *http.Request) { r.Method = http.MethodPut }, nil, 405, "by POST only", 0, 0},
		"too large":             {strings.Repeat("x", MaxBody+1), nil, nil, 413, "512 KiB", 0, 0},
		"too large, unsaid":     {strings.Repeat("x", MaxBody+1), func(r *http.Request) { r.ContentLength = -1 }, nil, 413, "512 KiB", 0, 0},
		"as large as it may be": {`{"x":"` + strings.Repeat("x", MaxBody-8) + `"}`, func(r *http.Request) { r.ContentLength = -1 }, nil, 202, "asks Bitbucket", 1, 0},
		"body cut short":        {body("main"), func(r *http.Request) { r.Body = io.NopCloser(io.MultiReader(strings.NewReader("{"), brokenReader{})) }, nil, 503, "completely", 0, 0},
		"cache not ready":       {body("main"), nil, func(w *world) { w.ready = kv.ErrNotReady }, 503, "starting", 0, 0},
		"store trouble":         {body("main"), nil, func(w *world) { w.storeErr = inbox.ErrNotStored }, 503, "sends it again", 0, 0},
		"store trouble, ping":   {`{}`, header(hook.HeaderEvent, hook.EventPing), func(w *world) { w.storeErr = inbox.ErrNotStored }, 200, "works", 0, 0},
		"too many wait":         {body("main"), nil, func(w *world) { w.storeErr = inbox.ErrBusy }, 503, "sends it again", 0, 0},
		"unknown, store away":   {body("main"), path(PathPrefix + strings.Repeat("z", 26)), func(w *world) { w.readErr = kv.ErrUnavailable }, 503, "look the webhook up", 0, 0},
		"wrong, store away":     {body("main"), header(hook.HeaderSignature, hook.Sign([]byte("x"), seal.NewSecret(secret))), func(w *world) { w.readErr = kv.ErrUnavailable }, 503, "check the signature", 0, 0},
		"disconnected": {body("main"), nil, func(w *world) {
			w.cache[id].State = webhookv1.Webhook_LEFT_ON_BITBUCKET
		}, 200, "disconnected", 1, 0},
		"dismissed until a moment ago": {body("main"), nil, func(w *world) {
			w.cache[id] = &storev1.WebhookRecord{Id: id, Workspace: "acme-inc", Repository: repo, Dismissed: true}
		}, 202, "branch main", 1, 0},
		"dismissed": {body("main"), nil, func(w *world) {
			w.cache[id].Dismissed, w.cache[id].Watches = true, nil
			delete(w.leader, id)
		}, 404, "no such webhook", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			if tc.prepare != nil {
				tc.prepare(w)
			}
			change := tc.change
			if change == nil {
				change = func(*http.Request) {}
			}
			got := send(w.handler(t), tc.content, change)
			if got.status != tc.status || !strings.Contains(got.message, tc.says) {
				t.Errorf("answered %d %q, want %d %q", got.status, got.message, tc.status, tc.says)
			}
			if len(w.stored) != tc.stored || len(w.refused) != tc.refused {
				t.Errorf("%d stored, %d refused, want %d, %d", len(w.stored), len(w.refused), tc.stored, tc.refused)
			}
			if ct := got.header.Get("Content-Type"); ct != "application/json" || got.header.Get("X-Request-Id") == "" {
				t.Errorf("header %v", got.header)
			}
			if strings.Contains(got.raw, secret) {
				t.Error("the answer holds the secret")
			}
		})
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

func TestStored_isWhatCame(t *testing.T) {
	w := newWorld()
	h := w.handler(t)
	content := body("main") + strings.Repeat(" ", 2000)
	got := send(h, content, header(hook.HeaderRequest, "e7a1daa7"), header(hook.HeaderAttempt, "2"), header(hook.HeaderHook, "{79492EFB-32B4-4F69-A469-606B58D2F8B5}"))
	if got.status != 202 {
		t.Fatalf("answered %d %s", got.status, got.raw)
	}
	d := w.stored[0]
	raw, err := h.cfg.Codec.Body(d)
	if err != nil || string(raw) != content {
		t.Errorf("the body came back as %d bytes of %d, %v", len(raw), len(content), err)
	}
	if d.GetRequestUuid() != "e7a1daa7" || d.GetAttempt() != 2 || d.GetHookUuid() != "79492efb-32b4-4f69-a469-606b58d2f8b5" || d.GetSecretVersion() != 1 ||
		d.GetWorkspace() != "acme-inc" || d.GetAnswerStatus() != 202 || d.GetId() == "" || d.GetRequestId() == "" {
		t.Errorf("stored %v", d)
	}
	var a struct {
		Delivery          string
		Branches, Watched []string
	}
	if err := json.Unmarshal([]byte(got.raw), &a); err != nil || a.Delivery != d.GetId() || strings.Join(a.Branches, " ") != "main" || strings.Join(a.Watched, " ") != "main" {
		t.Errorf("answered %s, %v", got.raw, err)
	}
	if w.timeout[0] != DefaultHold {
		t.Errorf("held for %v", w.timeout[0])
	}
}
