package kube

import (
	"fmt"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/releaseutil"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// Render is what helm sends to a cluster that can do what capabilities say, in helm's order. A field that stands twice
// in a manifest is an error, as it is to the API server.
func Render(c *chart.Chart, values map[string]any, capabilities *chartutil.Capabilities) ([]*unstructured.Unstructured, error) {
	v, err := chartutil.ToRenderValues(c, values, chartutil.ReleaseOptions{Name: "devpilot", Namespace: "devpilot", IsInstall: true}, capabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(c, v)
	if err != nil {
		return nil, err
	}
	hooks, manifests, err := releaseutil.SortManifests(files, capabilities.APIVersions, releaseutil.InstallOrder)
	if err != nil {
		return nil, err
	}
	if len(hooks) > 0 {
		return nil, fmt.Errorf("%s is a hook of helm, which is not tried here", hooks[0].Path)
	}
	var objects []*unstructured.Unstructured
	for _, m := range manifests {
		object, err := Parse([]byte(m.Content))
		if err != nil {
			return nil, fmt.Errorf("%s: %w:\n%s", m.Name, err, m.Content)
		}
		objects = append(objects, object)
	}
	return objects, nil
}

// Parse reads one manifest.
func Parse(text []byte) (*unstructured.Unstructured, error) {
	json, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, err
	}
	object := &unstructured.Unstructured{}
	return object, object.UnmarshalJSON(json)
}
