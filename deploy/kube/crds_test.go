package kube

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// definitions are the files of those of the chart's custom resources, by the module that publishes them.
var definitions = map[string][]string{
	"github.com/cert-manager/cert-manager": {"deploy/crds/cert-manager.io_certificates.yaml"},
	"github.com/kedacore/keda/v2":          {"config/crd/bases/keda.sh_scaledobjects.yaml"},
	"github.com/prometheus-operator/prometheus-operator": {
		"example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
		"example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
	},
	"sigs.k8s.io/gateway-api": {"config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"},
}

// define makes the custom resources known to the server, and waits until it serves them.
func (c *cluster) define(t *testing.T) {
	t.Helper()
	for module, files := range definitions {
		dir := download(t, module)
		for _, file := range files {
			raw, err := os.ReadFile(filepath.Join(dir, file))
			must(t, err)
			crd, err := Parse(raw)
			must(t, err)
			must(t, c.create(t.Context(), "", crd))
			eventually(t, func() string { return c.serves(t, crd) })
		}
	}
	c.mapper.Reset()
}

// serves is empty once the server has objects of all versions of a definition.
func (c *cluster) serves(t *testing.T, crd *unstructured.Unstructured) string {
	group, _, err := unstructured.NestedString(crd.Object, "spec", "group")
	must(t, err)
	plural, _, err := unstructured.NestedString(crd.Object, "spec", "names", "plural")
	must(t, err)
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	must(t, err)
	for _, v := range versions {
		v := v.(map[string]any)
		if v["served"] != true {
			continue
		}
		resource := schema.GroupVersionResource{Group: group, Version: v["name"].(string), Resource: plural}
		if _, err := c.client.Resource(resource).List(t.Context(), metav1.ListOptions{}); err != nil {
			return err.Error()
		}
		if _, err := c.discovery.ServerResourcesForGroupVersion(resource.GroupVersion().String()); err != nil {
			c.discovery.Invalidate()
			return err.Error()
		}
	}
	return ""
}

// download is the directory of a module at the version that crds/go.mod pins.
func download(t *testing.T, module string) string {
	t.Helper()
	cmd := exec.Command("go", "mod", "download", "-json", module)
	cmd.Dir, cmd.Env = "crds", append(os.Environ(), "GOWORK=off")
	raw, err := cmd.Output()
	if err != nil {
		t.Fatalf("download %s: %v:\n%s", module, err, raw)
	}
	var out struct{ Dir string }
	must(t, json.Unmarshal(raw, &out))
	return out.Dir
}
