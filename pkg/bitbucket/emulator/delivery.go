package emulator

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// maxPayload is the size above which Bitbucket sends nothing, silently (BITBUCKET.md#delivery-size).
	maxPayload = 256 << 10
	// maxAttempts is the first try and two more, on 5xx only and without a pause (BITBUCKET.md#delivery-tries).
	maxAttempts = 3
	// attemptLimit is how many attempts are kept.
	attemptLimit = 10_000
	// keptBody is how much of a body is kept of each answer.
	keptBody = 64 << 10
)

// Outcomes of attempts.
const (
	OutcomeSucceeded = "succeeded" // 2xx
	OutcomeFailed    = "failed"    // any other status
	OutcomeError     = "error"     // no answer: see Attempt.Error
	OutcomeDropped   = "dropped"   // never sent: too large, or a fault
)

// Attempt is one try to deliver. All are recorded for tests; people see those of webhooks with history enabled.
type Attempt struct {
	ID          int64             `json:"id"`
	Hook        string            `json:"hook"`       // UUID without braces
	Repository  string            `json:"repository"` // UUID
	RequestUUID string            `json:"request_uuid"`
	Event       string            `json:"event"`
	Number      int               `json:"number"` // X-Attempt-Number
	URL         string            `json:"url"`
	Time        time.Time         `json:"time"`
	Duration    time.Duration     `json:"duration"`
	Headers     map[string]string `json:"headers"`
	Body        string            `json:"body"`
	Outcome     string            `json:"outcome"`
	Status      int               `json:"status"`
	Response    string            `json:"response"`
	Error       string            `json:"error"`
	// History tells that the webhook kept its request log at that time.
	History bool `json:"history"`
}

// delivery is a payload on its way to one webhook.
type delivery struct {
	hook        string
	requestUUID string
	event       string
	body        []byte
	number      int // of the first attempt
	drop        string
	hold        bool // wait until the next one was sent
	late        time.Duration
	once        bool // do not retry
}

// deliveryEngine sends deliveries: one goroutine per webhook that has something to send, in order.
type deliveryEngine struct {
	e      *Emulator
	client *http.Client
	ctx    context.Context //nolint:containedctx // the engine's life, ended by close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	queues   map[string][]*delivery // by hook; present while its goroutine runs
	held     map[string]*delivery
	late     int // deliveries that wait for their time
	attempts []Attempt
	nextID   int64
}

func newDeliveryEngine(e *Emulator) *deliveryEngine {
	ctx, cancel := context.WithCancel(context.Background())
	return &deliveryEngine{
		e: e, ctx: ctx, cancel: cancel, queues: map[string][]*delivery{}, held: map[string]*delivery{},
		client: &http.Client{
			Transport: e.opts.DeliveryTransport, Timeout: e.opts.DeliveryTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func (d *deliveryEngine) close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.cancel()
	d.wg.Wait()
}

// deliverPush builds the payload once and queues it for every active webhook that wants pushes.
func (e *Emulator) deliverPush(ctx context.Context, repoID string, actor *Account, dir string, results []RefResult, before, after map[string]ref) error {
	e.mu.RLock()
	repo := e.st.repositories[repoID]
	wanted := repo != nil && len(e.st.hooksOf(repoID)) > 0
	e.mu.RUnlock()
	if !wanted {
		return nil
	}
	changes, err := e.git.collectChanges(ctx, dir, results, before, after)
	if err != nil {
		return err
	}
	e.mu.RLock()
	repo = e.st.repositories[repoID]
	if repo == nil {
		e.mu.RUnlock()
		return nil
	}
	faults := e.faults.takeDelivery(e.st.fullName(repo), repo.UUID)
	payload := e.pushPayload(repo, actor, changes, faults)
	e.mu.RUnlock()
	body, err := compactJSON(payload)
	if err != nil {
		return err
	}
	e.deliver(repoID, "repo:push", body, faults)
	return nil
}

// deliver queues a body for every active webhook of the repository that subscribed to the event, and returns how many.
func (e *Emulator) deliver(repoID, event string, body []byte, faults deliveryFaults) int {
	e.mu.RLock()
	hooks := e.st.hooksOf(repoID)
	e.mu.RUnlock()
	count := 0
	for _, hook := range hooks {
		subscribed := slices.Contains(hook.Events, event) || strings.HasPrefix(event, "diagnostics:")
		if !hook.Active || !subscribed {
			continue
		}
		one := &delivery{hook: hook.UUID, requestUUID: newUUID(), event: event, body: body, number: 1,
			hold: faults.has(FaultOutOfOrderDelivery), late: faults[FaultLateDelivery].Delay}
		switch {
		case len(body) > maxPayload:
			one.drop = fmt.Sprintf("the payload has %d bytes, more than %d", len(body), maxPayload)
		case faults.has(FaultDropDelivery):
			one.drop = "dropped by a fault"
		}
		e.deliveries.enqueue(one)
		if faults.has(FaultDuplicateDelivery) {
			again := *one
			e.deliveries.enqueue(&again)
		}
		count++
	}
	return count
}

// enqueue hands a delivery to its webhook's goroutine. One with hold waits for the next of that webhook.
func (d *deliveryEngine) enqueue(one *delivery) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	if one.late > 0 {
		d.late++
		d.wg.Go(func() { d.enqueueLate(one) })
		return
	}
	if one.hold && d.held[one.hook] == nil {
		d.held[one.hook] = one
		return
	}
	batch := []*delivery{one}
	if held := d.held[one.hook]; held != nil {
		delete(d.held, one.hook)
		batch = append(batch, held)
	}
	queue, running := d.queues[one.hook]
	d.queues[one.hook] = append(queue, batch...)
	if !running {
		d.wg.Go(func() { d.drain(one.hook) })
	}
}

// enqueueLate queues a delivery when its time has come, past those that were queued in between.
func (d *deliveryEngine) enqueueLate(one *delivery) {
	inTime := pause(d.ctx, one.late)
	one.late = 0
	if inTime {
		d.enqueue(one)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.late--
}

// drain sends what is queued for a webhook, then ends.
func (d *deliveryEngine) drain(hook string) {
	for {
		d.mu.Lock()
		queue := d.queues[hook]
		if len(queue) == 0 || d.closed {
			delete(d.queues, hook)
			d.mu.Unlock()
			return
		}
		next := queue[0]
		d.queues[hook] = queue[1:]
		d.mu.Unlock()
		d.send(next)
	}
}

// send makes up to three attempts.
func (d *deliveryEngine) send(one *delivery) {
	for attempt := range maxAttempts {
		d.e.mu.RLock()
		hook := d.e.st.hooks[one.hook]
		if hook == nil {
			d.e.mu.RUnlock()
			return // deleted meanwhile
		}
		target := *hook
		now := d.e.nowLocked()
		d.e.mu.RUnlock()
		record := Attempt{
			Hook: target.UUID, Repository: target.Repository, RequestUUID: one.requestUUID, Event: one.event,
			Number: one.number + attempt, URL: target.URL, Time: now, Body: string(one.body), History: target.HistoryEnabled,
		}
		if one.drop != "" {
			record.Outcome, record.Error = OutcomeDropped, one.drop
			d.record(record)
			return
		}
		d.attempt(&target, one, &record)
		d.record(record)
		if record.Status < 500 || one.once || d.ctx.Err() != nil {
			return
		}
	}
}

// attempt sends once and fills in the record.
func (d *deliveryEngine) attempt(hook *Hook, one *delivery, record *Attempt) {
	request, err := http.NewRequestWithContext(d.ctx, http.MethodPost, hook.URL, bytes.NewReader(one.body))
	if err != nil {
		record.Outcome, record.Error = OutcomeError, err.Error()
		return
	}
	record.Headers = deliveryHeaders(hook, one, record)
	for name, value := range record.Headers {
		request.Header.Set(name, value)
	}
	started := time.Now()
	answer, err := d.client.Do(request)
	if err == nil {
		var body []byte
		body, err = io.ReadAll(io.LimitReader(answer.Body, keptBody))
		err = errors.Join(err, answer.Body.Close())
		record.Status, record.Response = answer.StatusCode, string(body)
	}
	record.Duration = time.Since(started)
	switch {
	case record.Status == 0 || (err != nil && record.Status < 300):
		record.Outcome, record.Error, record.Status = OutcomeError, errorText(err), 0
	case record.Status < 300:
		record.Outcome = OutcomeSucceeded
	default:
		record.Outcome = OutcomeFailed
	}
}

// deliveryHeaders are those of BITBUCKET.md#delivery-headers; the hook's UUID has no braces here.
func deliveryHeaders(hook *Hook, one *delivery, record *Attempt) map[string]string {
	headers := map[string]string{
		"X-Event-Key":      one.event,
		"X-Hook-UUID":      hook.UUID,
		"X-Request-UUID":   one.requestUUID,
		"X-Attempt-Number": strconv.Itoa(record.Number),
		"X-Event-Time":     record.Time.Format(http.TimeFormat),
		"User-Agent":       "Bitbucket-Webhooks/2.0",
		"Content-Type":     "application/json",
		"Accept":           "*/*",
		"X-B3-TraceId":     randomHex(16),
		"X-B3-SpanId":      randomHex(8),
		"X-B3-Sampled":     "1",
	}
	if hook.Secret != "" {
		headers["X-Hub-Signature"] = Signature(hook.Secret, one.body)
	}
	return headers
}

// Signature is the X-Hub-Signature of a body (BITBUCKET.md#signature).
func Signature(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func (d *deliveryEngine) record(attempt Attempt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nextID++
	attempt.ID = d.nextID
	if len(d.attempts) >= attemptLimit {
		d.attempts = append([]Attempt(nil), d.attempts[attemptLimit/10:]...)
	}
	d.attempts = append(d.attempts, attempt)
}

// list returns attempts with an id above after, of one webhook unless hook is empty.
func (d *deliveryEngine) list(hook string, after int64) []Attempt {
	d.mu.Lock()
	defer d.mu.Unlock()
	found := []Attempt{}
	for _, attempt := range d.attempts {
		if attempt.ID > after && (hook == "" || attempt.Hook == hook) {
			attempt.Headers = maps.Clone(attempt.Headers)
			found = append(found, attempt)
		}
	}
	return found
}

// resend delivers an earlier attempt again, as the button in the request log does: the attempt number grows.
func (d *deliveryEngine) resend(id int64) error {
	attempts := d.list("", 0)
	i := slices.IndexFunc(attempts, func(a Attempt) bool { return a.ID == id })
	if i < 0 {
		return fmt.Errorf("%w: attempt %d", errNotFound, id)
	}
	again := attempts[i]
	highest := again.Number
	for _, other := range attempts {
		if other.Hook == again.Hook && other.RequestUUID == again.RequestUUID {
			highest = max(highest, other.Number)
		}
	}
	d.enqueue(&delivery{
		hook: again.Hook, requestUUID: again.RequestUUID, event: again.Event, body: []byte(again.Body), number: highest + 1, once: true,
	})
	return nil
}

func (d *deliveryEngine) clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.attempts = nil
}

// idle reports whether nothing is queued or under way (held deliveries do not count).
func (d *deliveryEngine) idle() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.queues) == 0 && d.late == 0
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func htmlText(text string) string { return html.EscapeString(strings.TrimSpace(text)) }
