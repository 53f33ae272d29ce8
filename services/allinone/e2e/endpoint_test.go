package e2e

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

// handmade is a delivery as somebody sends it who is not Bitbucket.
type handmade struct {
	url, secret string // no signature without a secret
	body        []byte
	id          string // X-Request-UUID
}

// pushOf is the body of a push of one commit that no repository has.
func pushOf(repo repository, branch, hash string) []byte {
	body, err := json.Marshal(object{
		"repository": object{"uuid": "{" + repo.id + "}", "full_name": repo.name, "name": repo.name},
		"actor":      object{"display_name": "Jane Developer"},
		"push": object{"changes": []object{{
			"old": nil, "created": true, "closed": false, "forced": false,
			"new": object{"type": "branch", "name": branch, "target": object{
				"type": "commit", "hash": hash, "message": "from nowhere", "date": "2026-03-02T09:00:00+00:00",
			}},
		}}},
	})
	if err != nil {
		panic(err) // texts only
	}
	return body
}

// send posts the delivery and returns status and message of the answer.
func (h handmade) send(t *testing.T) (status int, message string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(h.body))
	if err != nil {
		t.Fatal(err)
	}
	if h.id == "" {
		h.id = uuid.NewString()
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "X-Event-Key": "repo:push", "X-Request-UUID": h.id,
		"X-Hook-UUID": uuid.NewString(), "X-Attempt-Number": "1", "User-Agent": "Bitbucket-Webhooks/2.0",
	} {
		req.Header.Set(name, value)
	}
	if h.secret != "" {
		mac := hmac.New(sha256.New, []byte(h.secret))
		mac.Write(h.body)
		req.Header.Set("X-Hub-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Message string `json:"message"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		t.Fatalf("status %d, not JSON: %q", resp.StatusCode, raw)
	}
	return resp.StatusCode, answer.Message
}

// nowhere is a commit that no repository has.
const nowhere = "00000000deadbeef00000000deadbeef00000000"

// reveal shows a webhook's secret and URL, and plants the secret.
func (n *tenant) reveal(webhook string) (secret, url string) {
	n.t.Helper()
	shown := n.api.must("POST", n.path("/webhooks/%s:revealSecret", webhook), object{})
	secret, _ = shown["secret"].(string)
	url, _ = shown["url"].(string)
	if secret == "" || !strings.HasPrefix(url, n.url()+"/webhooks/bitbucket/") {
		n.t.Fatalf("the webhook to add by hand: a secret of %d characters, URL %q", len(secret), url)
	}
	n.plant("revealed webhook secret", secret)
	return secret, url
}

// endpointAnswers sends what must be refused.
func endpointAnswers(t *testing.T, s *shared) {
	repo := s.site().repository(t, "answers", "site")
	n := s.tenant(t, "answers")
	webhook := fmt.Sprint(dig(n.app("web", repo, "main"), "webhook", "id"))
	secret, url := n.reveal(webhook)
	body := pushOf(repo, "main", nowhere)
	for _, one := range []struct {
		name   string
		send   handmade
		status int
		words  string
	}{
		{"wrong signature", handmade{url: url, secret: secret + "x", body: body}, http.StatusUnauthorized, "signature does not match"},
		{"missing signature", handmade{url: url, body: body}, http.StatusUnauthorized, "signature is missing"},
		{"unknown webhook", handmade{url: url[:len(url)-4] + "aaaa", secret: secret, body: body}, http.StatusNotFound, "no such webhook"},
		{"2 MiB", handmade{url: url, secret: secret, body: bytes.Repeat([]byte("x"), 2<<20)}, http.StatusRequestEntityTooLarge, "larger than 512 KiB"},
		{"broken JSON", handmade{url: url, secret: secret, body: body[:len(body)/2]}, http.StatusBadRequest, "not JSON"},
	} {
		if status, message := one.send.send(t); status != one.status || !strings.Contains(message, one.words) {
			t.Errorf("%s: %d %q, want %d with %q", one.name, status, message, one.status, one.words)
		}
	}
	// What is right is taken after all that, and takes the place after which the others would be.
	if _, err := s.site().Deliver(t.Context(), repo.name, "repo:push", nil); err != nil {
		t.Fatal(err)
	}
	n.delivery(webhook, 1, 1)
	for _, d := range n.deliveries(webhook) {
		if d["number"] != 1.0 {
			t.Errorf("a refused request became delivery %v", d)
		}
	}
	if list := n.settled("web"); len(list) != 0 {
		t.Errorf("refused requests made %s", brief(list))
	}
	refused := objects(n.api.get(n.path("/webhooks/%s/deliveries?refused=true", webhook))["deliveries"])
	if len(refused) != 2 {
		t.Errorf("the ring of refused requests has %d, want the two with a bad signature: %v", len(refused), refused)
	}
}

// notAdmin has an app on a repository where the account may not register webhooks.
func notAdmin(t *testing.T, s *shared) {
	site := s.site()
	repo := site.repository(t, "not-admin", "site")
	if err := site.SetPermission(t.Context(), repo.name, jane, "write"); err != nil {
		t.Fatal(err)
	}
	n := s.tenant(t, "not-admin")
	n.api.must("POST", n.path("/apps"), object{"appId": "web", "app": object{"repository": repo.id, "branch": "main", "autoDeploy": true}})
	app := n.webhookState("web", "NOT_REGISTERED")
	if dig(app, "webhook", "reason") != "NOT_REPOSITORY_ADMIN" || !strings.Contains(fmt.Sprint(dig(app, "webhook", "message")), "admin") {
		t.Errorf("the app's webhook: %v", app["webhook"])
	}
	webhook := fmt.Sprint(dig(app, "webhook", "id"))
	if steps := asList(n.api.get(n.path("/webhooks/%s", webhook))["manualSteps"]); len(steps) == 0 {
		t.Error("there are no steps for adding the webhook by hand")
	}

	// By hand, with what is shown.
	secret, url := n.reveal(webhook)
	if _, err := site.AddHook(t.Context(), repo.name, emulator.Hook{Description: "by hand", URL: url, Secret: secret}); err != nil {
		t.Fatal(err)
	}
	n.live("web", site.commit(t, repo, "main", "by hand"))
	n.webhookState("web", "MANUAL")

	// Still refused, in words, until the right is granted; then there is one webhook, not two.
	n.api.refused("POST", n.path("/webhooks/%s:register", webhook), object{}, "NOT_REPOSITORY_ADMIN")
	if err := site.SetPermission(t.Context(), repo.name, jane, "admin"); err != nil {
		t.Fatal(err)
	}
	if got := n.api.must("POST", n.path("/webhooks/%s:register", webhook), object{}); got["state"] != "ACTIVE" {
		t.Errorf("after :register the webhook is %v: %v", got["state"], got["message"])
	}
	hook := onlyHook(t, site, repo)
	if got := n.api.get(n.path("/webhooks/%s", webhook)); got["bitbucketUuid"] != hook {
		t.Errorf("Devpilot says the webhook is %v, Bitbucket has %s", got["bitbucketUuid"], hook)
	}
	n.live("web", site.commit(t, repo, "main", "registered"))
	if list := n.settled("web"); len(list) != 2 {
		t.Errorf("two pushes made %s", brief(list))
	}
}

// webhookState waits until an app's webhook is in a state.
func (n *tenant) webhookState(app, state string) object {
	n.t.Helper()
	return n.await(n.path("/apps/%s", app), func(o object) error {
		if got := dig(o, "webhook", "state"); got != state {
			return fmt.Errorf("the webhook is %v, want %s: %v", got, state, o["webhook"])
		}
		return nil
	})
}

// natsAway takes NATS away for a moment and for too long.
func natsAway(t *testing.T, s *shared) {
	site := s.site()
	repo := site.repository(t, "nats-away", "site")
	n := s.tenant(t, "nats-away")
	webhook := fmt.Sprint(dig(n.app("web", repo, "main"), "webhook", "id"))
	secret, url := n.reveal(webhook)
	n.live("web", site.commit(t, repo, "main", "before"))
	hook := onlyHook(t, site, repo)

	// For a moment, which leaves a busy machine time to start it again: the delivery waits.
	s.stopNATS()
	hash := site.commit(t, repo, "main", "meanwhile")
	back := time.AfterFunc(1500*time.Millisecond, s.startNATS)
	defer back.Stop()
	if err := site.WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	attempts, err := site.Deliveries(t.Context(), hook, 0)
	if err != nil || len(attempts) != 2 {
		t.Fatalf("Bitbucket made %d requests for two pushes, %v: %v", len(attempts), err, attempts)
	}
	if a := attempts[1]; a.Status != http.StatusAccepted || a.Duration < time.Second {
		t.Errorf("a delivery during a short outage got %d after %v: %s", a.Status, a.Duration, a.Response)
	}
	n.live("web", hash)

	// Longer than a delivery can wait.
	s.stopNATS()
	refused := handmade{url: url, secret: secret, body: pushOf(repo, "main", nowhere), id: uuid.NewString()}
	began := time.Now()
	status, message := refused.send(t)
	t.Logf("without NATS a delivery was held for %v", time.Since(began).Round(time.Millisecond))
	s.startNATS()
	if status != http.StatusServiceUnavailable || message == "" {
		t.Errorf("without NATS a delivery got %d %q, want 503", status, message)
	}
	hash = site.commit(t, repo, "main", "after")
	n.live("web", hash)
	for _, d := range n.deliveries(webhook) {
		if d["requestUuid"] == refused.id {
			t.Errorf("a refused delivery appeared later: %v", d)
		}
	}
	for _, d := range n.settled("web") {
		if dig(d, "commit", "hash") == nowhere || d["state"] != "COMPLETED" {
			t.Errorf("deployment %v of %v is %v: %v", d["number"], dig(d, "commit", "hash"), d["state"], d["error"])
		}
	}
	s.owner.with(t).get("/v1/me")
}

// redisAway takes Redis away: what may be lost is lost, and nothing else.
func redisAway(t *testing.T, s *shared) {
	site := s.site()
	repo := site.repository(t, "redis-away", "site")
	n := s.tenant(t, "redis-away")
	other := s.unconnected(t, "redis-away-too")
	n.app("web", repo, "main")
	s.stopRedis()
	n.live("web", site.commit(t, repo, "main", "without Redis"))
	attempts, err := site.Deliveries(t.Context(), onlyHook(t, site, repo), 0)
	if err != nil || len(attempts) != 1 || attempts[0].Status != http.StatusAccepted {
		t.Errorf("without Redis Bitbucket's requests: %v, %v", attempts, err)
	}
	n.api.get("/v1/me")
	n.api.get(n.path("/integrations/bitbucket"))
	if got := objects(n.api.get(n.path("/repositories/%s/branches", repo.id))["branches"]); len(got) != 4 {
		t.Errorf("without Redis there are branches %v", got)
	}
	if got := objects(n.api.get(n.path("/repositories?query=redis-away"))["repositories"]); len(got) != 1 {
		t.Errorf("without Redis there are repositories %v", got)
	}
	p := other.api.do("POST", other.path("/integrations/bitbucket:connect"), object{}, nil)
	if p == nil || p.Status != http.StatusServiceUnavailable || p.Detail == "" {
		t.Errorf("connecting without Redis: %+v, want a 503 in words", p)
	}
	s.startRedis()
	other.await(other.path("/integrations/bitbucket"), func(object) error {
		if p, err := other.api.try("POST", other.path("/integrations/bitbucket:connect"), object{}, nil); err != nil || p != nil {
			return fmt.Errorf("connecting with Redis back: %+v, %w", p, err)
		}
		return nil
	})
	if at := other.api.connect(other.workspace, "grant"); at.Query().Get("bitbucket") != "connected" {
		t.Errorf("connecting with Redis back ended at %s", at)
	}
}
