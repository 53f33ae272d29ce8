package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"devpilot.io/bitbucket/pkg/testkit/apifuzz"
)

// TestAPI_withstandsWhatNobodyMeant sends every request of apifuzz to the whole product: what a
// service makes of an odd value is no 5xx either. The gateway's own test holds the answers against
// the document.
func TestAPI_withstandsWhatNobodyMeant(t *testing.T) {
	t.Parallel()
	s := &shared{stack: startInProcess(t), planted: map[string]string{}}
	s.owner = newBrowser(t, s.url()).signIn(s.adminToken())
	n := s.tenant(t, "odd")
	repo := s.site().repository(t, "odd", "site")
	webhook := fmt.Sprint(dig(n.app("web", repo, "main"), "webhook", "id"))
	document, err := odd(s, apifuzz.Case{Send: http.MethodGet, URL: "/openapi.json"})
	if err != nil {
		t.Fatal(err)
	}
	cases, err := apifuzz.Cases(document.body, apifuzz.Options{
		Variables: map[string]string{"workspace": "odd", "app": "web", "webhook": webhook, "repository": repo.id},
		Bodies: map[string]string{
			"createApp":       `{"appId":"other","app":{"repository":"` + repo.id + `","branch":"main"}}`,
			"createWorkspace": `{"workspaceId":"odder"}`, "createApiKey": `{"label":"odd"}`, "checkPush": `{"branch":"main"}`,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	queue := make(chan apifuzz.Case)
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[int]int{}
	for range 8 {
		wg.Go(func() {
			for c := range queue {
				a, err := odd(s, c)
				mu.Lock()
				seen[a.status]++
				mu.Unlock()
				if err != nil {
					t.Errorf("%s: %v", c.Name, err)
				}
			}
		})
	}
	for c := range cases {
		queue <- c
	}
	close(queue)
	wg.Wait()
	t.Logf("answers by status: %v", seen)
	if seen[http.StatusBadRequest] < 1000 {
		t.Errorf("the requests do not reach what they are meant for: %v", seen)
	}
}

type oddAnswer struct {
	status int
	body   []byte
}

// odd sends one request and says what is wrong with its answer. Of a stream only the beginning is
// read.
func odd(s *shared, c apifuzz.Case) (a oddAnswer, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, c.Send, s.url()+c.URL, strings.NewReader(c.Body))
	if err != nil {
		return a, err
	}
	req.Header.Set("Authorization", "Bearer "+s.adminToken())
	if c.Header[0] != "" {
		req.Header[http.CanonicalHeaderKey(c.Header[0])] = []string{c.Header[1]}
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return a, err
	}
	defer func() { _ = resp.Body.Close() }()
	a.status = resp.StatusCode
	media, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if media == "text/event-stream" || media == "application/x-ndjson" {
		return a, nil
	}
	if a.body, err = io.ReadAll(resp.Body); err != nil {
		return a, err
	}
	var p struct{ Detail, Reason string }
	switch {
	case a.status >= http.StatusInternalServerError:
		return a, fmt.Errorf("%d %s", a.status, a.body)
	case a.status < http.StatusBadRequest || c.Send == http.MethodHead || !strings.HasPrefix(c.Path, "/v1/"):
		return a, nil
	case media != "application/problem+json" || json.Unmarshal(a.body, &p) != nil || p.Reason == "":
		return a, fmt.Errorf("%d as %q: %s", a.status, media, a.body)
	case c.Send == c.Method && !slices.Contains(c.Reasons, p.Reason):
		return a, fmt.Errorf("the reason %s is not declared", p.Reason)
	}
	for _, inside := range []string{"proto:", "syntax error", "rpc error", "nats:", "strconv"} {
		if strings.Contains(p.Detail, inside) {
			return a, fmt.Errorf("speaks of our insides: %s", p.Detail)
		}
	}
	return a, nil
}
