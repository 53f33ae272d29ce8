package kube

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pmezard/go-difflib/difflib"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// released are the objects of the chart as last released.
func released(t *testing.T, values string) (objects []*unstructured.Unstructured) {
	t.Helper()
	raw, err := os.ReadFile("testdata/released/" + values + ".yaml")
	must(t, err)
	for _, text := range regexp.MustCompile(`(?m)^---\n`).Split(string(raw), -1)[1:] {
		o, err := Parse([]byte(text))
		must(t, err)
		objects = append(objects, o)
	}
	return objects
}

// upgrades: the server takes every object of the chart where those of the last release are. It prints what becomes
// different, what is new and what is gone. Once more, and nothing changes.
func (c *cluster) upgrades(t *testing.T) {
	for _, name := range []string{"defaults", "production"} {
		t.Run(name, func(t *testing.T) {
			namespace := "upgrade-" + name
			c.namespace(t, namespace, "privileged")
			old, err := c.apply(t.Context(), namespace, released(t, name)...)
			must(t, err)
			objects, err := Render(load(t), values(t, name), c.capabilities)
			must(t, err)
			now, err := c.apply(t.Context(), namespace, objects...)
			must(t, err)
			t.Logf("since the last release:\n%s", changes(t, old, now))

			again, err := c.apply(t.Context(), namespace, objects...)
			must(t, err)
			for name, o := range again {
				if was := now[name].GetResourceVersion(); o.GetResourceVersion() != was {
					t.Errorf("%s changes when it is applied once more:\n%s", name, diff(t, now[name], o))
				}
			}
			// helm removes what is not in the chart any more, unless it is told to keep it.
			for name, o := range old {
				if now[name] != nil || o.GetAnnotations()["helm.sh/resource-policy"] == "keep" {
					continue
				}
				at, err := c.of(namespace, o)
				must(t, err)
				must(t, at.Delete(t.Context(), o.GetName(), metav1.DeleteOptions{}))
			}
			if said := c.warnings.take(); len(said) > 0 {
				t.Errorf("the server warned of:\n%s", strings.Join(said, "\n"))
			}
		})
	}
}

// changes tells of each object what is different on the server.
func changes(t *testing.T, old, now map[string]*unstructured.Unstructured) string {
	t.Helper()
	all := maps.Clone(old)
	maps.Copy(all, now)
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		switch was, is := old[name], now[name]; {
		case was == nil:
			fmt.Fprintf(&out, "%s is new\n", name)
		case is == nil:
			fmt.Fprintf(&out, "%s is gone\n", name)
		default:
			out.WriteString(diff(t, was, is))
		}
	}
	return out.String()
}

// diff is what people decided of an object, line by line where it is different.
func diff(t *testing.T, old, now *unstructured.Unstructured) string {
	t.Helper()
	lines := func(o *unstructured.Unstructured) []string {
		o = o.DeepCopy()
		for _, field := range []string{"creationTimestamp", "generation", "managedFields", "resourceVersion", "uid"} {
			unstructured.RemoveNestedField(o.Object, "metadata", field)
		}
		unstructured.RemoveNestedField(o.Object, "status")
		text, err := yaml.Marshal(o.Object)
		must(t, err)
		return difflib.SplitLines(string(text))
	}
	text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{A: lines(old), B: lines(now), FromFile: id(old), ToFile: id(now), Context: 1})
	must(t, err)
	return text
}
