package kube

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// TestChart tries the chart on one server, which takes longer to start than all of it to run.
func TestChart(t *testing.T) {
	c := startCluster(t)
	c.define(t)
	t.Logf("kube-apiserver %s", c.capabilities.KubeVersion.Version)
	if wants := load(t).Metadata.KubeVersion; !chartutil.IsCompatibleRange(wants, c.capabilities.KubeVersion.Version) {
		t.Errorf("the chart is for Kubernetes %s", wants)
	}
	t.Run("is accepted", c.accepts)
	t.Run("hooks", c.hooks)
	t.Run("is upgraded", c.upgrades)
	t.Run("is refused when broken", c.refuses)
}

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.Load("../chart/devpilot")
	must(t, err)
	return c
}

// values are those that the chart is tried with.
func values(t *testing.T, name string) map[string]any {
	t.Helper()
	if name == "defaults" {
		return map[string]any{}
	}
	v, err := chartutil.ReadValuesFile("../chart/examples/" + name + ".yaml")
	must(t, err)
	return v
}

// accepts: every object is made, without a warning, and so is a pod of each workload, in namespaces with a quota and
// limits. What the quota counts is what the chart's values say.
func (c *cluster) accepts(t *testing.T) {
	for name, want := range map[string]struct {
		level string
		used  map[string]string
	}{
		"defaults": {"restricted", map[string]string{
			"pods": "6", "requests.cpu": "1", "requests.memory": "1152Mi", "limits.cpu": "12", "limits.memory": "6656Mi", "persistentvolumeclaims": "2", "requests.storage": "40Gi",
		}},
		// Its workers run hooks, which no other level lets them.
		"production": {"privileged", map[string]string{
			"pods": "7", "requests.cpu": "1500m", "requests.memory": "1664Mi", "limits.cpu": "14", "limits.memory": "10752Mi", "persistentvolumeclaims": "3", "requests.storage": "270Gi",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c.namespace(t, name, want.level)
			objects, err := Render(load(t), values(t, name), c.capabilities)
			must(t, err)
			must(t, c.create(t.Context(), name, objects...))
			var sent []string
			for _, o := range objects {
				sent = append(sent, o.GetAPIVersion()+" "+id(o))
			}
			said := c.warnings.take()
			has := c.list(t, name)
			c.warnings.take() // of kinds that are asked for here alone
			if slices.Sort(sent); !slices.Equal(has, sent) {
				t.Errorf("the server has\n%s\nand was sent\n%s", strings.Join(has, "\n"), strings.Join(sent, "\n"))
			}
			t.Logf("%d objects, each of them accepted:\n%s", len(has), strings.Join(has, "\n"))

			must(t, c.create(t.Context(), name, pods(t, objects)...))
			if said = append(said, c.warnings.take()...); len(said) > 0 {
				t.Errorf("the server warned of:\n%s", strings.Join(said, "\n"))
			}
			for what, has := range c.used(t, name) {
				counted, want := resource.MustParse(has), want.used[what]
				if counted.Cmp(resource.MustParse(want)) != 0 {
					t.Errorf("%s: the quota counts %s, not %s", what, has, want)
				}
			}
		})
	}
}

// list is what the server has of the chart in a namespace, in order.
func (c *cluster) list(t *testing.T, namespace string) (names []string) {
	t.Helper()
	kinds, err := discovery.ServerPreferredNamespacedResources(c.discovery)
	must(t, err)
	for _, kind := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"create", "list"}}, kinds) {
		version, err := schema.ParseGroupVersion(kind.GroupVersion)
		must(t, err)
		for _, r := range kind.APIResources {
			found, err := c.client.Resource(version.WithResource(r.Name)).Namespace(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "helm.sh/chart"})
			must(t, err)
			for _, o := range found.Items {
				names = append(names, o.GetAPIVersion()+" "+id(&o))
			}
		}
	}
	slices.Sort(names)
	return names
}

// hooks: what runs deployment hooks is refused below the level privileged, and nothing else is.
func (c *cluster) hooks(t *testing.T) {
	for level, want := range map[string][]string{
		"baseline":   {`volume "tun"`, "seccompProfile", "AppArmor profile"},
		"restricted": {`volume "tun"`, "seccompProfile", "AppArmor profile", "procMount"},
	} {
		t.Run(level, func(t *testing.T) {
			namespace := "hooks-" + level
			c.namespace(t, namespace, level)
			objects, err := Render(load(t), values(t, "production"), c.capabilities)
			must(t, err)
			must(t, c.create(t.Context(), namespace, objects...))
			refused := map[string]error{}
			for _, pod := range pods(t, objects) {
				if err := c.create(t.Context(), namespace, pod); err != nil {
					refused[id(pod)] = err
				}
			}
			if workers := []string{"Pod/devpilot-worker-default-0", "Pod/devpilot-worker-eu-0"}; !slices.Equal(slices.Sorted(maps.Keys(refused)), workers) {
				t.Errorf("refused: %v", refused)
			}
			for name, err := range refused {
				for _, words := range []string{`volume "tun"`, "seccompProfile", "AppArmor profile", "procMount"} {
					if strings.Contains(err.Error(), words) != slices.Contains(want, words) {
						t.Errorf("%s: %s: %v", name, words, err)
					}
				}
			}
		})
	}
}

// refuses: each of these charts is broken in one place, and the server says so.
func (c *cluster) refuses(t *testing.T) {
	for name, b := range map[string]struct {
		file, old, new string
		upgrade        bool
		want           string
	}{
		"a field nobody knows":         {"workers.yaml", "podManagementPolicy: Parallel", "podManagementPolicy: Parallel\n  podManagement: Parallel", false, `unknown field "spec.podManagement"`},
		"a field in a custom resource": {"doors.yaml", "timeouts: {request: 0s}", "timeouts: {requests: 0s}", false, `unknown field "spec.rules[1].timeouts.requests"`},
		"a rule of a custom resource":  {"doors.yaml", "value: /webhooks/bitbucket/", "value: webhooks", false, "must be an absolute path"},
		"a privileged container":       {"replicas.yaml", "allowPrivilegeEscalation: false", "privileged: true", false, `violates PodSecurity "restricted:latest": privileged`},
		"a pod of root":                {"_helpers.tpl", "runAsNonRoot: true", "runAsNonRoot: false", false, `violates PodSecurity "restricted:latest": runAsNonRoot != true`},
		"a pod that takes anything":    {"replicas.yaml", "resources: {{- toYaml $values.resources | nindent 12 }}", "resources: {}", false, "failed quota: team: must specify"},
		"another selector":             {"_helpers.tpl", "app.kubernetes.io/instance: {{ .root.Release.Name }}\n", "", true, "field is immutable"},
		"another volume of a worker":   {"workers.yaml", "{storage: {{ $values.mirrors.size }}}", "{storage: 21Gi}", true, "spec.volumeClaimTemplates: Invalid value"},
		"another access to releases":   {"workers.yaml", "accessModes: [{{ $values.releases.accessMode }}]", "accessModes: [ReadWriteOncePod]", true, "spec is immutable after creation"},
		"an address for a Service":     {"replicas.yaml", "clusterIP: None", "clusterIP: 10.0.0.77", true, "may not change once set"},
	} {
		t.Run(name, func(t *testing.T) {
			namespace := strings.ToLower(strings.ReplaceAll(name, " ", "-"))
			c.namespace(t, namespace, "restricted")
			broken := load(t)
			change(t, broken, "templates/"+b.file, b.old, b.new)
			v := values(t, "production")
			v["hooks"] = map[string]any{"enabled": false}
			objects, err := Render(broken, v, c.capabilities)
			must(t, err)
			if b.upgrade {
				_, err = c.apply(t.Context(), namespace, released(t, "production")...)
				must(t, err)
				_, err = c.apply(t.Context(), namespace, objects...)
			} else {
				err = errors.Join(c.create(t.Context(), namespace, objects...), c.create(t.Context(), namespace, pods(t, objects)...))
			}
			if err == nil || !strings.Contains(err.Error(), b.want) {
				t.Errorf("%v", err)
			}
		})
	}
}

// change has a chart say something else in one of its templates.
func change(t *testing.T, c *chart.Chart, file, old, changed string) {
	t.Helper()
	for _, f := range c.Templates {
		if f.Name == file && strings.Contains(string(f.Data), old) {
			f.Data = []byte(strings.ReplaceAll(string(f.Data), old, changed))
			return
		}
	}
	t.Fatalf("%s has no %q", file, old)
}
