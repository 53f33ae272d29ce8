package kube

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// What a platform team puts into a namespace: a quota, for which every container must say what it takes at most, and a
// limit of CPU for those that do not say it, which are those of the chart.
const (
	namespaceOf = `
apiVersion: v1
kind: Namespace
metadata:
  name: %s
  labels: {pod-security.kubernetes.io/enforce: %[2]s, pod-security.kubernetes.io/warn: %[2]s}
`
	account = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: default}
`
	hard  = `{"requests.cpu": "8", "requests.memory": "16Gi", "limits.cpu": "32", "limits.memory": "64Gi", "pods": "20", "persistentvolumeclaims": "10", "requests.storage": "1Ti"}`
	none  = `{"requests.cpu": "0", "requests.memory": "0", "limits.cpu": "0", "limits.memory": "0", "pods": "0", "persistentvolumeclaims": "0", "requests.storage": "0"}`
	quota = `
apiVersion: v1
kind: ResourceQuota
metadata: {name: team}
spec: {hard: %s}
`
	limits = `
apiVersion: v1
kind: LimitRange
metadata: {name: team}
spec:
  limits:
    - {type: Container, default: {cpu: "2"}}
    - {type: PersistentVolumeClaim, max: {storage: 500Gi}}
`
	probe = `
apiVersion: v1
kind: Pod
metadata: {name: probe}
spec:
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: probe
      image: probe
      resources: {requests: {cpu: 1m, memory: 1Mi}, limits: {memory: 1Mi}}
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`
)

// namespace makes one at a level of Pod Security, and waits until its quota and its limits hold.
func (c *cluster) namespace(t *testing.T, name, level string) {
	t.Helper()
	must(t, c.create(t.Context(), "", parse(t, namespaceOf, name, level)))
	must(t, c.create(t.Context(), name, parse(t, account)))
	team := parse(t, quota, hard)
	must(t, c.create(t.Context(), name, team))
	// The controller of quotas would say so.
	quotas, err := c.of(name, team)
	must(t, err)
	_, err = quotas.Patch(t.Context(), "team", types.MergePatchType, []byte(`{"status": {"hard": `+hard+`, "used": `+none+`}}`), metav1.PatchOptions{}, "status")
	must(t, err)
	eventually(t, func() string {
		if err := c.try(t, name); err == nil || !strings.Contains(err.Error(), "must specify limits.cpu") {
			return "the quota does not hold: " + message(err)
		}
		return ""
	})
	must(t, c.create(t.Context(), name, parse(t, limits)))
	eventually(t, func() string { return message(c.try(t, name)) })
	c.warnings.take()
}

// try asks whether a pod would be made that says all but how much CPU it takes at most.
func (c *cluster) try(t *testing.T, namespace string) error {
	pod := parse(t, probe)
	pods, err := c.of(namespace, pod)
	must(t, err)
	_, err = pods.Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// used is what the quota of a namespace has counted.
func (c *cluster) used(t *testing.T, namespace string) map[string]string {
	t.Helper()
	quotas, err := c.of(namespace, parse(t, quota, hard))
	must(t, err)
	team, err := quotas.Get(t.Context(), "team", metav1.GetOptions{})
	must(t, err)
	used, _, err := unstructured.NestedStringMap(team.Object, "status", "used")
	must(t, err)
	return used
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
