package emulator_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

// TestSignature_publishedVector is Atlassian's test vector of BITBUCKET.md#signature.
func TestSignature_publishedVector(t *testing.T) {
	t.Parallel()
	got := emulator.Signature("It's a Secret to Everybody", []byte("Hello World!"))
	if got != "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9" {
		t.Errorf("got %s", got)
	}
}

func commitOn(branch, message string) emulator.RefChange {
	return emulator.RefChange{Branch: branch, Commits: []emulator.CommitSpec{{Message: message, Files: map[string]string{"a.txt": message}}}}
}

func TestDelivery_headersAndSignatureOfSection7(t *testing.T) {
	t.Parallel()
	f := start(t)
	r := newReceiver(t, nil)
	hook := f.hook("acme/web", r.URL+"/webhooks/x", "s3cret")
	f.push("acme/web", commitOn("main", "Ünïcode <b>&"))
	got := r.wait(t, 1)[0]
	for name, want := range map[string]string{
		"X-Event-Key": "repo:push", "X-Hook-UUID": hook.UUID, "X-Attempt-Number": "1", "User-Agent": "Bitbucket-Webhooks/2.0",
		"Content-Type": "application/json", "Accept": "*/*", "X-Hub-Signature": emulator.Signature("s3cret", got.body),
	} {
		if have := got.header.Get(name); have != want {
			t.Errorf("%s is %q, want %q", name, have, want)
		}
	}
	if len(got.header.Get("X-Request-UUID")) != 36 || strings.Contains(hook.UUID, "{") {
		t.Errorf("X-Request-UUID %q, hook %q", got.header.Get("X-Request-UUID"), hook.UUID)
	}
	if _, err := time.Parse(http.TimeFormat, got.header.Get("X-Event-Time")); err != nil {
		t.Error(err)
	}
	var compact bytes.Buffer
	f.must(json.Compact(&compact, got.body))
	if !bytes.Equal(compact.Bytes(), got.body) || !bytes.Contains(got.body, []byte("Ünïcode <b>&")) {
		t.Error("the body is not compact, or its text is escaped")
	}
}

func TestDelivery_withoutSecretThereIsNoSignature(t *testing.T) {
	t.Parallel()
	f := start(t)
	r := newReceiver(t, nil)
	f.hook("acme/web", r.URL, "")
	f.push("acme/web", commitOn("main", "x"))
	if _, signed := r.wait(t, 1)[0].header["X-Hub-Signature"]; signed {
		t.Error("signed without a secret")
	}
}

// TestDelivery_retryRules is BITBUCKET.md#delivery-tries: up to three attempts, on 5xx only, at once, with growing number.
func TestDelivery_retryRules(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		reply    func(n int, w http.ResponseWriter)
		statuses string
	}{
		{"success", func(_ int, w http.ResponseWriter) { w.WriteHeader(http.StatusAccepted) }, "[202]"},
		{"5xx three times", func(_ int, w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }, "[503 503 503]"},
		{"5xx once", func(n int, w http.ResponseWriter) { w.WriteHeader([]int{500, 200}[n-1]) }, "[500 200]"},
		{"4xx", func(_ int, w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }, "[404]"},
		{"redirect", func(_ int, w http.ResponseWriter) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(http.StatusFound)
		}, "[302]"},
		{"connection cut", func(int, http.ResponseWriter) { panic(http.ErrAbortHandler) }, "[0]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := start(t)
			r := newReceiver(t, tc.reply)
			hook := f.hook("acme/web", r.URL, "s")
			f.push("acme/web", commitOn("main", "x"))
			f.must(f.control.WaitIdle(t.Context()))
			var statuses []int
			attempts := f.deliveries(hook.UUID)
			for i, attempt := range attempts {
				statuses = append(statuses, attempt.Status)
				if attempt.Number != i+1 || attempt.RequestUUID != attempts[0].RequestUUID || attempt.Body == "" {
					t.Errorf("attempt %d: %+v", i, attempt)
				}
			}
			if fmt.Sprint(statuses) != tc.statuses {
				t.Errorf("statuses %v, want %s", statuses, tc.statuses)
			}
			if len(attempts) == 3 && attempts[2].Time.Sub(attempts[0].Time) > 20*time.Second {
				t.Error("retries did not come back to back")
			}
		})
	}
}

func TestDelivery_noAnswerInTimeIsAFailureWithoutRetry(t *testing.T) {
	t.Parallel()
	f := start(t, func(o *emulator.Options) { o.DeliveryTimeout = 50 * time.Millisecond })
	release := make(chan struct{})
	r := newReceiver(t, func(int, http.ResponseWriter) { <-release })
	defer close(release)
	hook := f.hook("acme/web", r.URL, "s")
	f.push("acme/web", commitOn("main", "x"))
	eventually(t, "the attempt", func() bool { return len(f.deliveries(hook.UUID)) == 1 })
	if attempt := f.deliveries(hook.UUID)[0]; attempt.Outcome != emulator.OutcomeError || attempt.Status != 0 || attempt.Error == "" {
		t.Errorf("got %+v", attempt)
	}
}

func TestDelivery_above256KiBNothingIsSent(t *testing.T) {
	t.Parallel()
	f := start(t)
	r := newReceiver(t, nil)
	hook := f.hook("acme/web", r.URL, "s")
	f.push("acme/web", commitOn("main", strings.Repeat("long ", 20_000)))
	f.push("acme/web", commitOn("develop", "short"))
	got := r.wait(t, 1)
	if dig(got[0].json, "push", "changes", 0, "new", "name") != "develop" {
		t.Errorf("delivered %s", got[0].body)
	}
	eventually(t, "both attempts", func() bool { return len(f.deliveries(hook.UUID)) == 2 })
	if dropped := f.deliveries(hook.UUID)[0]; dropped.Outcome != emulator.OutcomeDropped || len(dropped.Body) <= 256<<10 || dropped.Status != 0 {
		t.Errorf("outcome %s, %d bytes", dropped.Outcome, len(dropped.Body))
	}
}

func TestDelivery_onlyActiveHooksWithTheEventInOrder(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.tokens("jane-dev").AccessToken
	quiet, loud := newReceiver(t, nil), newReceiver(t, nil)
	f.call("POST", hooksPath, token, hookBody(set("url", quiet.URL), set("active", false))).want(t, 201)
	f.call("POST", hooksPath, token, hookBody(set("url", quiet.URL), set("events", []string{"repo:updated"}))).want(t, 201)
	f.hook("acme/api", quiet.URL, "s")
	f.hook("acme/web", loud.URL, "s")
	for i := range 8 {
		f.push("acme/web", commitOn("main", fmt.Sprint("push ", i)))
	}
	for i, got := range loud.wait(t, 8) {
		if message := dig(got.json, "push", "changes", 0, "new", "target", "message"); message != fmt.Sprintf("push %d\n", i) {
			t.Errorf("delivery %d is %v", i, message)
		}
	}
	if len(quiet.got()) != 0 {
		t.Errorf("%d deliveries to hooks that did not ask", len(quiet.got()))
	}
}

func TestDelivery_faults(t *testing.T) {
	t.Parallel()
	f := start(t)
	r := newReceiver(t, nil)
	f.hook("acme/web", r.URL, "s")
	n := 0
	push := func(kind emulator.FaultKind, count int) []received {
		t.Helper()
		f.server.Inject(emulator.Fault{Kind: kind, Repository: "acme/web", Times: 1})
		f.push("acme/web", commitOn("main", string(kind)))
		n += count
		return r.wait(t, n)[n-count:]
	}
	twice := push(emulator.FaultDuplicateDelivery, 2)
	if twice[0].header.Get("X-Request-UUID") != twice[1].header.Get("X-Request-UUID") || !bytes.Equal(twice[0].body, twice[1].body) {
		t.Error("duplicates differ")
	}
	if empty := push(emulator.FaultEmptyChanges, 1)[0]; !bytes.Contains(empty.body, []byte(`"changes":[]`)) {
		t.Errorf("got %s", empty.body)
	}
	many := push(emulator.FaultManyChanges, 1)[0]
	changes, _ := dig(many.json, "push", "changes").([]any)
	if len(changes) != 61 || dig(changes[60], "new", "name") != "main" || dig(changes[0], "new", "name") != "many/00" {
		t.Errorf("%d changes", len(changes))
	}
	if anonymous := push(emulator.FaultMissingAccountID, 1)[0]; has(anonymous.json["actor"], "account_id") || !has(anonymous.json["actor"], "uuid") {
		t.Errorf("actor %v", anonymous.json["actor"])
	}
	if nobody := push(emulator.FaultMissingActor, 1)[0]; nobody.json["actor"] != nil {
		t.Errorf("actor %v", nobody.json["actor"])
	}
	if unmapped := push(emulator.FaultMissingAuthorUser, 1)[0]; bytes.Contains(unmapped.body, []byte(`"user":`)) {
		t.Errorf("got %s", unmapped.body)
	}
	push(emulator.FaultDropDelivery, 0)
	push(emulator.FaultOutOfOrderDelivery, 0)
	f.push("acme/web", commitOn("main", "newer"))
	n += 2
	late := r.wait(t, n)[n-2:]
	if first := dig(late[0].json, "push", "changes", 0, "new", "target", "message"); first != "newer\n" {
		t.Errorf("first came %v", first)
	}
	push(emulator.FaultLateDelivery, 0)
	f.push("acme/web", commitOn("main", "newest"))
	n++
	if first := dig(r.wait(t, n)[n-1].json, "push", "changes", 0, "new", "target", "message"); first != "newest\n" {
		t.Errorf("first came %v", first)
	}
	if must(f.control.State(t.Context()))(t).Idle {
		t.Error("idle, though a delivery waits for its time")
	}
	f.server.Inject(emulator.Fault{Kind: emulator.FaultLateDelivery, Repository: "acme/web", Delay: 20 * time.Millisecond, Times: 1})
	f.push("acme/web", commitOn("main", "a little late"))
	n++
	r.wait(t, n)
	if len(must(f.control.State(t.Context()))(t).Faults) != 0 {
		t.Error("faults outlived their count")
	}
}

func must[T any](value T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func TestDelivery_rawEventsAndResend(t *testing.T) {
	t.Parallel()
	f := start(t)
	r := newReceiver(t, func(n int, w http.ResponseWriter) {
		if n == 2 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	hook := f.hook("acme/web", r.URL, "s")
	count := must(f.control.Deliver(t.Context(), "acme/web", "diagnostics:ping", []byte(`{"test":true}`)))(t)
	if got := r.wait(t, 1)[0]; count != 1 || got.header.Get("X-Event-Key") != "diagnostics:ping" || string(got.body) != `{"test":true}` {
		t.Errorf("got %s", got.body)
	}
	eventually(t, "the record", func() bool { return len(f.deliveries(hook.UUID)) == 1 })
	f.must(f.control.ResendDelivery(t.Context(), f.deliveries(hook.UUID)[0].ID))
	again := r.wait(t, 2)[1]
	if again.header.Get("X-Attempt-Number") != "2" || again.header.Get("X-Request-UUID") != r.got()[0].header.Get("X-Request-UUID") {
		t.Errorf("resent with %v", again.header)
	}
	must(f.control.Deliver(t.Context(), "acme/web", "", nil))(t)
	if empty := r.wait(t, 3)[2]; !bytes.Contains(empty.body, []byte(`"changes":[]`)) {
		t.Errorf("got %s", empty.body)
	}
}

func TestDelivery_concurrentPushesAllArrive(t *testing.T) {
	t.Parallel()
	f := start(t)
	r := newReceiver(t, nil)
	f.hook("acme/web", r.URL, "s")
	f.hook("acme/api", r.URL, "s")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			repository := []string{"acme/web", "acme/api"}[i%2]
			if _, err := f.control.Push(t.Context(), repository, "", commitOn(fmt.Sprintf("b%d", i), "x")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, got := range r.wait(t, 8) {
		seen[fmt.Sprint(dig(got.json, "repository", "full_name"), dig(got.json, "push", "changes", 0, "new", "name"))] = true
	}
	if len(seen) != 8 {
		t.Errorf("%d different deliveries", len(seen))
	}
}
