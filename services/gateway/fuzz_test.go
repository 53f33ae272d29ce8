package gateway_test

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
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/testkit/apifuzz"
	"devpilot.io/bitbucket/services/gateway/internal/openapi"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

// TestAPI_withstandsWhatNobodyMeant sends every request of apifuzz for every operation of the
// document: no answer is a 5xx, none is against the document, and none speaks of our insides.
func TestAPI_withstandsWhatNobodyMeant(t *testing.T) {
	g := start(t)
	g.deployer.onStream("ReadLog", endedLog)
	d := describe(t)
	bodies := map[string]string{}
	for _, r := range routes.All() {
		if id, _ := at(d.doc, "paths", r.Public(), strings.ToLower(r.Method), "operationId").(string); id != "" {
			bodies[id] = bodyOf(r)
		}
	}
	cases, err := apifuzz.Cases(openapi.Document(), apifuzz.Options{
		Variables: map[string]string{"workspace": "default", "app": "web", "webhook": "wh1", "repository": "0a1b2c3d-0000-4000-8000-000000000001", "apiKey": "0123456789abcdef"},
		Bodies:    bodies,
		Skip:      []string{"deliver"}, // the webhook service's, which answers Bitbucket in a form of its own
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
				a, err := fuzzed(g, c)
				mu.Lock()
				if err == nil {
					seen[a.status]++
					err = d.withstood(c, a)
				}
				if err != nil {
					t.Errorf("%s: %v", c.Name, err)
				}
				mu.Unlock()
			}
		})
	}
	for c := range cases {
		queue <- c
	}
	close(queue)
	wg.Wait()
	t.Logf("answers by status: %v", seen)
	if seen[http.StatusOK] < 100 || seen[http.StatusBadRequest] < 1000 || seen[http.StatusMethodNotAllowed] < 100 {
		t.Errorf("the requests do not reach what they are meant for: %v", seen)
	}
}

// fuzzed sends one request. Of a stream that goes on only the beginning is read.
func fuzzed(g *gate, c apifuzz.Case) (*answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, c.Send, g.url+c.URL, strings.NewReader(c.Body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	if c.Header[0] != "" {
		req.Header[http.CanonicalHeaderKey(c.Header[0])] = []string{c.Header[1]}
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	a := &answer{status: resp.StatusCode, header: resp.Header}
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		a.body, err = io.ReadAll(resp.Body)
	}
	return a, err
}

// withstood says what is wrong with the answer to a request of apifuzz.
func (d *description) withstood(c apifuzz.Case, a *answer) error {
	method := strings.ToLower(c.Send)
	if c.Send == http.MethodHead {
		method = "get"
	}
	op, _ := at(d.doc, "paths", c.Path, method).(object)
	media, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	switch {
	case a.status >= http.StatusInternalServerError:
		return fmt.Errorf("%d %s", a.status, a.body)
	case a.status >= http.StatusBadRequest:
		if op != nil && at(op, "responses", "default", "$ref") == nil {
			return nil // a page for people
		}
		return d.isProblem(c, a, media)
	case a.status == http.StatusOK && c.Send != http.MethodHead && len(a.body) > 0 && media != "application/x-ndjson" && media != "text/csv" && op != nil && !strings.Contains(c.Name, "address"):
		return d.check(a.body, "paths", c.Path, method, "responses", "200", "content", media, "schema")
	}
	return nil
}

func (d *description) isProblem(c apifuzz.Case, a *answer, media string) error {
	if c.Send == http.MethodHead {
		return nil
	}
	if media != "application/problem+json" {
		return fmt.Errorf("%d as %q: %s", a.status, media, a.body)
	}
	if err := d.check(a.body, "components", "responses", "Failure", "content", media, "schema"); err != nil {
		return err
	}
	var p problem
	if err := json.Unmarshal(a.body, &p); err != nil {
		return err
	}
	row, known := apierr.Lookup(apierr.Reason(p.Reason))
	switch {
	case !known || row.HTTPStatus != a.status || p.Status != a.status:
		return fmt.Errorf("reason %s with status %d", p.Reason, a.status)
	case c.Send == c.Method && !slices.Contains(c.Reasons, p.Reason):
		return fmt.Errorf("reason %s is not declared", p.Reason)
	case a.status == http.StatusMethodNotAllowed && a.header.Get("Allow") == "":
		return fmt.Errorf("405 without Allow")
	}
	for _, inside := range []string{"proto:", "syntax error", "grpc", "rpc error", "protoreflect", "json:", "strconv", "goroutine"} {
		if strings.Contains(p.Detail, inside) {
			return fmt.Errorf("speaks of our insides: %s", p.Detail)
		}
	}
	return nil
}
