package e2e

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/prototext"

	"devpilot.io/bitbucket/pkg/testkit"
)

// receivedSpan is a span as the receiver of traces got it.
type receivedSpan struct {
	*tracev1.Span
	service string
}

// tracer receives traces by OTLP over gRPC, as any collector does. It is safe for concurrent use.
type tracer struct {
	collector.UnimplementedTraceServiceServer
	address string

	mu    sync.Mutex
	spans []receivedSpan
}

func openTracer(t *testing.T) *tracer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &tracer{address: l.Addr().String()}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, r)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// Export implements the collector's service.
func (r *tracer) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range req.GetResourceSpans() {
		service := attribute(of.GetResource().GetAttributes(), "service.name")
		for _, scope := range of.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				r.spans = append(r.spans, receivedSpan{s, service})
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func (r *tracer) all() []receivedSpan {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans)
}

func attribute(list []*commonv1.KeyValue, key string) string {
	for _, a := range list {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue() + strings.TrimPrefix(fmt.Sprint(a.GetValue().GetIntValue()), "0")
		}
	}
	return ""
}

// of are the spans of the trace in which an app's deployment was attempted.
func (r *tracer) of(app, deployment string) (spans []receivedSpan) {
	all := r.all()
	i := slices.IndexFunc(all, func(s receivedSpan) bool {
		return s.GetName() == "attempt" && attribute(s.GetAttributes(), "devpilot.app") == app && attribute(s.GetAttributes(), "devpilot.deployment") == deployment
	})
	if i < 0 {
		return nil
	}
	id := string(all[i].GetTraceId())
	return slices.DeleteFunc(all, func(s receivedSpan) bool { return string(s.GetTraceId()) != id })
}

// lacking is nil when a push's trace has all of these spans.
func lacking(spans []receivedSpan) error {
	there := map[string]bool{}
	for _, s := range spans {
		there[s.GetName()] = true
	}
	for _, name := range []string{"deliver webhook", "store in inbox", "route delivery", "decide push", "change lane", "attempt", "fetch", "checkout", "hook", "switch", "commit status"} {
		if !there[name] {
			return fmt.Errorf("the trace lacks %q: %v", name, slices.Sorted(maps.Keys(there)))
		}
	}
	return nil
}

// One push is one trace over the processes that had a hand in it, from the delivery to the commit's status, whole and
// without a secret; and so it is when the worker is killed in between.
func TestTrace_ofAPushOverAllProcesses(t *testing.T) {
	t.Parallel()
	r := openTracer(t)
	running := startTopology(t, topology{
		count: 1, deployers: 2, env: []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + r.address, "OTEL_BSP_SCHEDULE_DELAY=200", "DEVPILOT_WORKER_LEASE=" + lease.String()},
		of: func(service string, i int) []string {
			switch {
			case service != "deployer":
				return nil
			case i == 0:
				return []string{"DEVPILOT_ROLES=api"}
			}
			return []string{workerOnly}
		},
	})
	s := &shared{stack: running, planted: map[string]string{}}
	s.owner = newBrowser(t, s.url()).signIn(s.adminToken())
	n := s.tenant(t, "traced")
	repo := s.site().repository(t, "traced", "site")
	app := newApp("web", repo, "main")
	app["app"].(object)["hooks"] = []object{{"name": "build", "stage": "POST_SETUP", "command": "test ! -e slow || sleep 60", "timeoutSeconds": 120}}
	n.api.must("POST", n.path("/apps"), app)
	hooked := n.hooked("web")
	clone := s.site().clone(t, repo)

	n.live("web", push(clone, "index.html", "<h1>One</h1>\n"))
	testkit.Eventually(t, timeout, func() error { return lacking(r.of("web", "1")) })
	testkit.Eventually(t, timeout, func() error { return whole(r.of("web", "1")) })
	first := r.of("web", "1")
	t.Logf("the trace of one push, as it was received:\n%s", draw(first))
	services := map[string]bool{}
	for _, s := range first {
		services[s.service] = true
	}
	for _, want := range []string{"devpilot-webhook", "devpilot-deployer", "devpilot-auth"} {
		if !services[want] {
			t.Errorf("the trace has no span of %s", want)
		}
	}

	// From a bar of a histogram one comes to the trace.
	id := hex.EncodeToString(first[0].GetTraceId())
	for metric, ops := range map[string]string{
		"devpilot_webhook_ingest_seconds": running.replicas["webhook"][0].ops, "devpilot_webhook_router_lag_seconds": running.replicas["webhook"][0].ops,
		"devpilot_deployer_run_seconds": running.replicas["deployer"][1].ops, "devpilot_deployer_push_to_live_seconds": running.replicas["deployer"][1].ops,
	} {
		if !slices.ContainsFunc(slices.Collect(strings.Lines(openMetrics(t, ops))), func(line string) bool {
			return strings.HasPrefix(line, metric+"_bucket") && strings.Contains(line, `trace_id="`+id+`"`)
		}) {
			t.Errorf("%s has no exemplar of the push's trace", metric)
		}
	}

	push(clone, "slow", "yes\n")
	testkit.Eventually(t, timeout, func() error { // its hook runs
		if d := n.deployments("web")[0]; d["number"] != 2.0 || d["stage"] != "POST_SETUP" {
			return fmt.Errorf("%v at %v", d["number"], d["stage"])
		}
		return nil
	})
	worker := running.replicas["deployer"][1]
	worker.Kill()
	n.api.must("PATCH", n.path("/apps/web"), object{"hooks": []object{{"name": "build", "stage": "POST_SETUP", "command": "true"}}})
	worker.Start()
	testkit.Eventually(t, timeout, func() error { return lacking(r.of("web", "2")) })
	if string(r.of("web", "2")[0].GetTraceId()) == string(first[0].GetTraceId()) {
		t.Error("two pushes are one trace")
	}

	secrets := []string{running.admin, consumer.Secret, "/webhooks/bitbucket/" + fmt.Sprint(dig(hooked, "webhook", "id")), "x-token-auth", "Bearer "}
	for _, s := range r.all() {
		text := prototext.Format(s.Span)
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("span %s of %s holds a secret", s.GetName(), s.service)
			}
		}
	}
}

// openMetrics is what a process tells a scraper that asks for OpenMetrics.
func openMetrics(t *testing.T, ops string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, ops+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return readAll(t, resp)
}

// push commits a file and pushes it.
func push(clone *checkout, file, content string) (hash string) {
	hash = clone.commit(file, content)
	clone.git("push", "--quiet", "origin", "HEAD:main")
	return hash
}

// whole is nil when all spans but the delivery's have their parent in the trace.
func whole(spans []receivedSpan) error {
	ids := map[string]bool{}
	for _, s := range spans {
		ids[string(s.GetSpanId())] = true
	}
	for _, s := range spans {
		root := len(s.GetParentSpanId()) == 0
		if root != (s.GetName() == "deliver webhook") || !root && !ids[string(s.GetParentSpanId())] {
			return fmt.Errorf("span %q of %s has no parent in the trace (%s)", s.GetName(), s.service, hex.EncodeToString(s.GetParentSpanId()))
		}
	}
	return nil
}

// draw shows a trace as a tree.
func draw(spans []receivedSpan) string {
	slices.SortFunc(spans, func(a, b receivedSpan) int {
		return int(int64(a.GetStartTimeUnixNano()) - int64(b.GetStartTimeUnixNano()))
	})
	var b strings.Builder
	var below func(parent, indent string)
	below = func(parent, indent string) {
		for _, s := range spans {
			if string(s.GetParentSpanId()) == parent {
				fmt.Fprintf(&b, "%s%s (%s, %d ms)\n", indent, s.GetName(), s.service, (s.GetEndTimeUnixNano()-s.GetStartTimeUnixNano())/1e6)
				below(string(s.GetSpanId()), indent+"  ")
			}
		}
	}
	below("", "")
	return b.String()
}
