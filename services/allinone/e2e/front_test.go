package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// front is a balancer as any installation has one: gateways in turn, deliveries to the webhook
// services, and the next replica when one takes no connections.
type front struct {
	address string
	only    string // the service that all requests are for; else the path decides

	mu       sync.Mutex
	targets  map[string][]string
	unwell   map[string]bool // targets that are asked last
	next     atomic.Uint64
	upstream *http.Transport
}

func openFront(t *testing.T) *front {
	t.Helper()
	// A connection of its own for each request: none is found dead when it is used again.
	f := &front{targets: map[string][]string{}, unwell: map[string]bool{}, upstream: &http.Transport{DisableKeepAlives: true}}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", "replica", r.In.Host
		},
		Transport:     f,
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "no replica answered: "+err.Error(), http.StatusBadGateway)
		},
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	f.address = server.URL
	return f
}

func (f *front) add(service, target string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.targets[service] = append(f.targets[service], target)
}

// order is in which order replicas are asked: in turn, those that are well before the others.
func (f *front) order(service string) []string {
	first := f.next.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	var well, others []string
	targets := f.targets[service]
	for i := range targets {
		target := targets[(first+uint64(i))%uint64(len(targets))]
		if f.unwell[target] {
			others = append(others, target)
		} else {
			well = append(well, target)
		}
	}
	return append(well, others...)
}

// How often a watched replica is asked whether it is ready, and how long that may take: as platforms do, but sooner.
const (
	frontLooks   = 250 * time.Millisecond
	frontTimeout = time.Second
)

// watch asks a replica whether it is ready until the test ends, at the address at which the front would ask it: one look that fails takes
// it out, one that does not brings it back.
func (f *front) watch(t *testing.T, target, readyz string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	client := &http.Client{Timeout: frontTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	look := func() bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, readyz, http.NoBody)
		if err != nil {
			return false
		}
		resp, err := client.Do(req)
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	}
	var done sync.WaitGroup
	done.Go(func() {
		for every := time.NewTicker(frontLooks); ; {
			well := look()
			f.mu.Lock()
			f.unwell[target] = !well
			f.mu.Unlock()
			select {
			case <-ctx.Done():
				every.Stop()
				return
			case <-every.C:
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
}

// maxKept is the largest body that can be sent to a second replica.
const maxKept = 4 << 20

// RoundTrip implements http.RoundTripper.
func (f *front) RoundTrip(r *http.Request) (*http.Response, error) {
	service := "gateway"
	if strings.HasPrefix(r.URL.Path, "/webhooks/bitbucket/") {
		service = "webhook"
	}
	if f.only != "" {
		service = f.only
	}
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(io.LimitReader(r.Body, maxKept)); err != nil {
			return nil, err
		}
	}
	err := errors.New("there is no replica of " + service)
	for _, target := range f.order(service) {
		attempt := r.Clone(r.Context())
		attempt.URL.Host = target
		attempt.Body, attempt.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		if len(body) == 0 {
			attempt.Body = http.NoBody
		}
		var answer *http.Response
		if answer, err = f.upstream.RoundTrip(attempt); !errors.Is(err, syscall.ECONNREFUSED) {
			return answer, err
		}
	}
	return nil, err
}
