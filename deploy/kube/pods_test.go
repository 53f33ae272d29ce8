package kube

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// pods are what the controllers of Deployments and StatefulSets would make: the first pod of each, after the claims that
// are its own.
func pods(t *testing.T, objects []*unstructured.Unstructured) (out []*unstructured.Unstructured) {
	t.Helper()
	for _, o := range objects {
		template, there, err := unstructured.NestedMap(o.Object, "spec", "template")
		must(t, err)
		if !there {
			continue
		}
		pod := &unstructured.Unstructured{Object: template}
		pod.SetAPIVersion("v1")
		pod.SetKind("Pod")
		pod.SetName(o.GetName() + "-0")
		claims, _, err := unstructured.NestedSlice(o.Object, "spec", "volumeClaimTemplates")
		must(t, err)
		volumes, _, err := unstructured.NestedSlice(pod.Object, "spec", "volumes")
		must(t, err)
		for _, c := range claims {
			claim := &unstructured.Unstructured{Object: c.(map[string]any)}
			volume := claim.GetName()
			claim.SetAPIVersion("v1")
			claim.SetKind("PersistentVolumeClaim")
			claim.SetName(volume + "-" + pod.GetName())
			out = append(out, claim)
			volumes = append(volumes, map[string]any{"name": volume, "persistentVolumeClaim": map[string]any{"claimName": claim.GetName()}})
		}
		must(t, unstructured.SetNestedSlice(pod.Object, volumes, "spec", "volumes"))
		out = append(out, pod)
	}
	return out
}
