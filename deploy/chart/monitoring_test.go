package chart

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// The chart brings the alerts that Prometheus' own tests fire, and no others.
func TestChart_rulesAreTheAlerts(t *testing.T) {
	t.Parallel()
	rule, ok := both(t)["production"]["PrometheusRule/devpilot"].(*unstructured.Unstructured)
	if !ok {
		t.Fatal("there is no PrometheusRule")
	}
	raw, err := os.ReadFile("../prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var alerts map[string]any
	if err := yaml.Unmarshal(raw, &alerts); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(rule.Object["spec"], alerts) {
		t.Errorf("the rules are not the alerts: %v", rule.Object["spec"])
	}
	if rule.GetLabels()["release"] != "prometheus" {
		t.Errorf("labels %v", rule.GetLabels())
	}
}

// The chart brings every dashboard, byte for byte, where Grafana's sidecar finds it.
func TestChart_dashboardsAreTheFiles(t *testing.T) {
	t.Parallel()
	objects := both(t)["production"]
	paths, err := filepath.Glob("../grafana/*.json")
	if err != nil || len(paths) < 5 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		m, ok := objects["ConfigMap/devpilot-dashboard-"+name].(*corev1.ConfigMap)
		if !ok {
			t.Errorf("%s is not there", name)
			continue
		}
		if m.Data["devpilot-"+name+".json"] != string(want) || m.Labels["grafana_dashboard"] != "1" || m.Annotations["grafana_folder"] != "Devpilot" {
			t.Errorf("%s: labels %v, annotations %v, or another dashboard", name, m.Labels, m.Annotations)
		}
	}
	n := 0
	for name := range objects {
		if strings.HasPrefix(name, "ConfigMap/devpilot-dashboard-") {
			n++
		}
	}
	if n != len(paths) {
		t.Errorf("%d dashboards of %d", n, len(paths))
	}
}
