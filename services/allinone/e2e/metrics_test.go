package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"devpilot.io/bitbucket/pkg/testkit"
)

// told is a metric as services/METRICS.md tells of it, or as a scrape does.
type told struct{ kind, labels, help string }

var metricRow = regexp.MustCompile("(?m)^\\| `(devpilot_[a-z_]+)` \\| ([a-z]+) \\| [^|]+ \\| ([^|]+) \\| ([^|]+) \\| (.+) \\|$")

// metricsPage reads services/METRICS.md: the metrics, and those of them that one service alone tells.
func metricsPage(t *testing.T) (all map[string]told, owner map[string]string) {
	t.Helper()
	page, err := os.ReadFile("../../METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	all, owner = map[string]told{}, map[string]string{}
	for _, m := range metricRow.FindAllStringSubmatch(string(page), -1) {
		labels := strings.ReplaceAll(m[3], "`", "")
		if labels == "none" {
			labels = ""
		}
		all[m[1]] = told{kind: m[2], labels: labels, help: strings.ReplaceAll(m[5], `\|`, "|")}
		if slices.Contains(testkit.Services, m[4]) {
			owner[m[1]] = m[4]
		}
	}
	return all, owner
}

// scrape reads what a process tells at /metrics, as Prometheus does.
func scrape(t *testing.T, ops string) map[string]*dto.MetricFamily {
	t.Helper()
	body, err := text(t, ops+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func describe(f *dto.MetricFamily) told {
	var labels []string
	for _, l := range f.GetMetric()[0].GetLabel() {
		labels = append(labels, l.GetName())
	}
	slices.Sort(labels)
	return told{kind: strings.ToLower(f.GetType().String()), labels: strings.Join(labels, ", "), help: strings.Join(strings.Fields(f.GetHelp()), " ")}
}

// All services, with certificates, after a push went live, tell exactly the metrics of services/METRICS.md, each
// by the service that the page names, with its type, labels and meaning.
func TestMetrics_areThoseOfThePage(t *testing.T) {
	t.Parallel()
	certificates := filepath.Join(testkit.FastDir(t), "certificates")
	if out, err := exec.Command(program(t, "devpilot"), "certificates", certificates).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	running := startTopology(t, topology{count: 1, of: func(service string, _ int) []string {
		file := func(name string) string { return filepath.Join(certificates, service, name) }
		return []string{"DEVPILOT_TLS_CERT_FILE=" + file("tls.crt"), "DEVPILOT_TLS_KEY_FILE=" + file("tls.key"), "DEVPILOT_TLS_CA_FILE=" + file("ca.crt")}
	}})
	s := &shared{stack: running, planted: map[string]string{}}
	s.owner = newBrowser(t, s.url()).signIn(s.adminToken())
	mainPath(t, s)
	if _, err := text(t, s.liveURL()); err != nil { // a visitor
		t.Fatal(err)
	}

	want, owner := metricsPage(t)
	if len(want) < 80 {
		t.Fatalf("services/METRICS.md tells of %d metrics", len(want))
	}
	testkit.Eventually(t, timeout, func() error { return compare(want, owner, scrapes(t, running)) })
	testkit.Eventually(t, timeout, func() error { return counted(scrapes(t, running)["deployer"]) })
}

// counted makes sure that the push that went live was counted where an operator looks for it.
func counted(families map[string]*dto.MetricFamily) error {
	for _, c := range []struct {
		name, labels string
		at           float64
	}{
		{"devpilot_deployer_pushes_total", "by=delivery verdict=deploys", 1}, {"devpilot_deployer_pushes_total", "by=poll verdict=deploys", 0},
		{"devpilot_deployer_deployments_ended_total", "state=completed", 1}, {"devpilot_deployer_workers", "server=default", 1},
		{"devpilot_deployer_deployments", "server=default state=pending", 0}, {"devpilot_deployer_oldest_pending_seconds", "", 0},
		{"devpilot_stream_dead_letters", "consumer=deployer stream=DEVPILOT_PUSHES", 0}, {"devpilot_stream_consumer_lag_seconds", "consumer=deployer stream=DEVPILOT_PUSHES", 0},
		{"devpilot_nats_up", "", 1}, {"devpilot_redis_up", "", 1}, {"devpilot_ready", "", 1},
	} {
		there := false
		for _, m := range families[c.name].GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			slices.Sort(labels)
			if strings.Join(labels, " ") != c.labels {
				continue
			}
			if got := m.GetGauge().GetValue() + m.GetCounter().GetValue(); got != c.at {
				return fmt.Errorf("%s{%s} is %v, want %v", c.name, c.labels, got, c.at)
			}
			there = true
		}
		if !there {
			return fmt.Errorf("there is no %s{%s}", c.name, c.labels)
		}
	}
	return nil
}

// scrapes are what each service tells.
func scrapes(t *testing.T, running *processes) map[string]map[string]*dto.MetricFamily {
	t.Helper()
	all := map[string]map[string]*dto.MetricFamily{}
	for service, replicas := range running.replicas {
		all[service] = scrape(t, replicas[0].ops)
	}
	return all
}

func compare(want map[string]told, owner map[string]string, found map[string]map[string]*dto.MetricFamily) error {
	var wrong bytes.Buffer
	there := map[string]bool{}
	for service, families := range found {
		for name, f := range families {
			if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
				continue
			}
			there[name] = true
			w, known := want[name]
			switch got := describe(f); {
			case !known:
				fmt.Fprintf(&wrong, "%s tells of %s, and services/METRICS.md does not\n", service, name)
			case got != w:
				fmt.Fprintf(&wrong, "%s tells of %s %+v, and services/METRICS.md %+v\n", service, name, got, w)
			case owner[name] != "" && owner[name] != service:
				fmt.Fprintf(&wrong, "%s tells of %s, which services/METRICS.md says is of %s\n", service, name, owner[name])
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if !there[name] {
			fmt.Fprintf(&wrong, "services/METRICS.md tells of %s, and no service does\n", name)
		}
	}
	if wrong.Len() > 0 {
		return fmt.Errorf("%s", wrong.String())
	}
	return nil
}
