package reference

import (
	"os"
	"strings"
	"testing"
)

func TestMakeMetrics_thePageIsAsTheCodeIs(t *testing.T) {
	want, err := MakeMetrics(root)
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile(root + "/services/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != want {
		t.Error("services/METRICS.md is stale: run make generate")
	}
}

// A metric that the page cannot tell of is an error, whoever adds it.
func TestMetrics_areWrittenOut(t *testing.T) {
	const head = "package p\n\nimport \"github.com/prometheus/client_golang/prometheus\"\n\nconst name, help = \"devpilot_x_total\", \"What.\"\n\n"
	for text, want := range map[string]string{
		`var x = prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: prometheus.Labels{"use": "a"}}, []string{"b"})`: "devpilot_x_total counter [b use]",
		`var x = prometheus.NewDesc("devpilot_y", help, nil, nil)`:                                                                                    "devpilot_y gauge []",
		`func f(n string) any { return prometheus.NewGauge(prometheus.GaugeOpts{Name: n, Help: help}) }`:                                              "name or sentence",
		`func f(o prometheus.GaugeOpts) any { return prometheus.NewGauge(o) }`:                                                                        "options",
		`func f(l []string) any { return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, l) }`:                                   "labels",
		`var x, y = prometheus.NewDesc(name, help, nil, nil), prometheus.NewDesc(name, help, nil, nil)`:                                               "is made in",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/p.go", []byte(head+text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := parse(dir, durations())
		if err != nil {
			t.Fatal(err)
		}
		list, err := (&code{packages: []*source{s}}).metrics()
		var got string
		if err != nil {
			got = err.Error()
		} else {
			got = list[0].name + " " + list[0].kind + " [" + strings.Join(list[0].labels, " ") + "]"
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s\ngot %s, want %s", text, got, want)
		}
	}
}
