package chart

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/yaml"
)

const dir = "devpilot"

// render is what helm would send for values.
func render(t *testing.T, values map[string]any) (map[string]runtime.Object, error) {
	t.Helper()
	c, err := loader.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := chartutil.ToRenderValues(c, values, chartutil.ReleaseOptions{Name: "devpilot", Namespace: "team", IsInstall: true}, nil)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(c, v)
	if err != nil {
		return nil, err
	}
	return objects(t, files), nil
}

// objects reads manifests as the API server does: an unknown field, a wrong type and a field that stands twice
// are errors. What is no object of Kubernetes' own stays as it is.
func objects(t *testing.T, files map[string]string) map[string]runtime.Object {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, autoscalingv2.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	strict := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	out := map[string]runtime.Object{}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasSuffix(path, ".yaml") {
			continue
		}
		for _, text := range regexp.MustCompile(`(?m)^---$`).Split(files[path], -1) {
			if strings.TrimSpace(regexp.MustCompile(`(?m)^#.*$`).ReplaceAllString(text, "")) == "" {
				continue
			}
			var any unstructured.Unstructured
			if err := yaml.UnmarshalStrict([]byte(text), &any.Object); err != nil {
				t.Fatalf("%s: %v:\n%s", path, err, text)
			}
			var object runtime.Object = &any
			if !slices.Contains([]string{"cert-manager.io/v1", "keda.sh/v1alpha1", "monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1"}, any.GetAPIVersion()) {
				var err error
				if object, _, err = strict.Decode([]byte(text), nil, nil); err != nil {
					t.Fatalf("%s: %v:\n%s", path, err, text)
				}
			}
			name := any.GetKind() + "/" + any.GetName()
			if out[name] != nil {
				t.Errorf("%s is there twice", name)
			}
			out[name] = object
		}
	}
	return out
}

func production(t *testing.T) map[string]any {
	t.Helper()
	values, err := chartutil.ReadValuesFile("examples/production.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// both renders with the defaults and as in production.
func both(t *testing.T) map[string]map[string]runtime.Object {
	t.Helper()
	out := map[string]map[string]runtime.Object{}
	for name, values := range map[string]map[string]any{"defaults": {}, "production": production(t)} {
		o, err := render(t, values)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = o
	}
	return out
}

// pods are the pods' templates by the name of what makes them.
func pods(objects map[string]runtime.Object) map[string]corev1.PodTemplateSpec {
	out := map[string]corev1.PodTemplateSpec{}
	for name, o := range objects {
		switch o := o.(type) {
		case *appsv1.Deployment:
			out[name] = o.Spec.Template
		case *appsv1.StatefulSet:
			out[name] = o.Spec.Template
		}
	}
	return out
}

func TestChart_lint(t *testing.T) {
	t.Parallel()
	for name, values := range map[string]map[string]any{"defaults": {}, "production": production(t)} {
		for _, m := range lint.All(dir, values, "team", true).Messages {
			if m.Severity > support.InfoSev {
				t.Errorf("%s: %s", name, m)
			}
		}
	}
}

func TestChart_objects(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{
		"defaults": {
			"ConfigMap/devpilot-settings", "ServiceAccount/devpilot",
			"Deployment/devpilot-auth", "Deployment/devpilot-deployer", "Deployment/devpilot-gateway", "Deployment/devpilot-repo", "Deployment/devpilot-webhook",
			"StatefulSet/devpilot-worker-default", "PersistentVolumeClaim/devpilot-worker-default-releases",
			"Service/devpilot-auth-grpc", "Service/devpilot-deployer-grpc", "Service/devpilot-repo-grpc", "Service/devpilot-webhook-grpc",
			"Service/devpilot-gateway", "Service/devpilot-webhook", "Service/devpilot-sites", "Service/devpilot-worker-default",
			"PodDisruptionBudget/devpilot-auth", "PodDisruptionBudget/devpilot-deployer", "PodDisruptionBudget/devpilot-gateway",
			"PodDisruptionBudget/devpilot-repo", "PodDisruptionBudget/devpilot-webhook", "PodDisruptionBudget/devpilot-worker-default",
			"NetworkPolicy/devpilot", "NetworkPolicy/devpilot-auth", "NetworkPolicy/devpilot-deployer", "NetworkPolicy/devpilot-gateway",
			"NetworkPolicy/devpilot-repo", "NetworkPolicy/devpilot-webhook", "NetworkPolicy/devpilot-workers",
		},
		"production": {
			"HorizontalPodAutoscaler/devpilot-repo", "HorizontalPodAutoscaler/devpilot-webhook", "HorizontalPodAutoscaler/devpilot-gateway",
			"HorizontalPodAutoscaler/devpilot-deployer", "HorizontalPodAutoscaler/devpilot-worker-eu", "ScaledObject/devpilot-worker-default",
			"StatefulSet/devpilot-worker-eu", "Certificate/devpilot-tls-auth", "Certificate/devpilot-tls-gateway", "Ingress/devpilot", "HTTPRoute/devpilot", "HTTPRoute/devpilot-sites", "ServiceMonitor/devpilot", "Service/devpilot-metrics",
			"PrometheusRule/devpilot", "ConfigMap/devpilot-dashboard-push-to-live",
		},
	} {
		have := both(t)[name]
		for _, w := range want {
			if have[w] == nil {
				t.Errorf("%s: no %s", name, w)
			}
		}
		if name == "defaults" && len(have) != len(want) {
			t.Errorf("defaults: %v", slices.Sorted(maps.Keys(have)))
		}
	}
}

// What a label selects must be there: a Service, policy or budget of nothing fails silently.
func TestChart_selectorsSelect(t *testing.T) {
	t.Parallel()
	for values, objects := range both(t) {
		for name, o := range objects {
			var selector map[string]string
			var ports []string
			switch o := o.(type) {
			case *corev1.Service:
				selector = o.Spec.Selector
				for _, p := range o.Spec.Ports {
					ports = append(ports, p.TargetPort.StrVal)
				}
			case *networkingv1.NetworkPolicy:
				selector = o.Spec.PodSelector.MatchLabels
				for _, rule := range o.Spec.Ingress {
					for _, p := range rule.Ports {
						ports = append(ports, p.Port.StrVal)
					}
					for _, from := range rule.From {
						if from.PodSelector != nil && !selects(objects, from.PodSelector.MatchLabels, "") {
							t.Errorf("%s: %s lets in what is not there: %v", values, name, from.PodSelector.MatchLabels)
						}
					}
				}
			case *policyv1.PodDisruptionBudget:
				selector = o.Spec.Selector.MatchLabels
			default:
				continue
			}
			if !selects(objects, selector, "") {
				t.Errorf("%s: %s selects nothing: %v", values, name, selector)
			}
			for _, port := range ports {
				if !selects(objects, selector, port) {
					t.Errorf("%s: %s means a port %s, which no pod of it has", values, name, port)
				}
			}
		}
	}
}

func selects(objects map[string]runtime.Object, selector map[string]string, port string) bool {
	for _, pod := range pods(objects) {
		fits := len(selector) > 0
		for k, v := range selector {
			fits = fits && pod.Labels[k] == v
		}
		if fits && (port == "" || slices.ContainsFunc(pod.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == port })) {
			return true
		}
	}
	return false
}

// Who calls whom is in services/README.md; a policy that lets more in guards nothing.
func TestChart_policiesAreTheCallGraph(t *testing.T) {
	t.Parallel()
	objects := both(t)["defaults"]
	for called, want := range map[string][]string{
		"auth": {"deployer", "gateway", "repo", "webhook", "workers"}, "repo": {"deployer", "gateway", "workers"},
		"webhook": {"deployer", "gateway", "workers"}, "deployer": {"gateway"},
	} {
		policy, ok := objects["NetworkPolicy/devpilot-"+called].(*networkingv1.NetworkPolicy)
		if !ok {
			t.Fatalf("no policy of %s", called)
		}
		var callers []string
		for _, rule := range policy.Spec.Ingress {
			if rule.Ports[0].Port.StrVal != "grpc" {
				continue
			}
			for _, from := range rule.From {
				if from.PodSelector.MatchLabels["devpilot.io/role"] == "worker" {
					callers = append(callers, "workers")
				} else {
					callers = append(callers, from.PodSelector.MatchLabels["app.kubernetes.io/component"])
				}
			}
		}
		if slices.Sort(callers); !slices.Equal(callers, want) {
			t.Errorf("%s is called by %v, not by %v", called, callers, want)
		}
	}
}

// The level of Pod Security, by its own words (Pod Security Standards).
func TestChart_podsAreRestrictedButForHooks(t *testing.T) {
	t.Parallel()
	for values, objects := range both(t) {
		for name, pod := range pods(objects) {
			hooks := values == "production" && strings.HasPrefix(name, "StatefulSet/")
			s, c := pod.Spec.SecurityContext, pod.Spec.Containers[0].SecurityContext
			if !*s.RunAsNonRoot || *s.RunAsUser != 65532 || *c.AllowPrivilegeEscalation || !*c.ReadOnlyRootFilesystem ||
				len(c.Capabilities.Add) > 0 || !slices.Equal(c.Capabilities.Drop, []corev1.Capability{"ALL"}) || *pod.Spec.AutomountServiceAccountToken {
				t.Errorf("%s: %s may more than it must: %+v %+v", values, name, s, c)
			}
			profile, devices := corev1.SeccompProfileTypeRuntimeDefault, 0
			if hooks {
				profile, devices = corev1.SeccompProfileTypeUnconfined, 1
				if *pod.Spec.HostUsers || *c.ProcMount != corev1.UnmaskedProcMount || s.AppArmorProfile.Type != corev1.AppArmorProfileTypeUnconfined {
					t.Errorf("%s: hooks cannot run in %s", values, name)
				}
			} else if pod.Spec.HostUsers != nil || c.ProcMount != nil || s.AppArmorProfile != nil {
				t.Errorf("%s: %s has what only hooks need", values, name)
			}
			for _, v := range pod.Spec.Volumes {
				if v.HostPath != nil {
					devices--
				}
			}
			if s.SeccompProfile.Type != profile || devices != 0 {
				t.Errorf("%s: %s: seccomp %s, volumes %+v", values, name, s.SeccompProfile.Type, pod.Spec.Volumes)
			}
		}
	}
}

func TestChart_everyPodSaysHowItIsAndWhatItTakes(t *testing.T) {
	t.Parallel()
	for values, objects := range both(t) {
		for name, pod := range pods(objects) {
			c := pod.Spec.Containers[0]
			if c.StartupProbe.HTTPGet.Path != "/livez" || c.LivenessProbe.HTTPGet.Path != "/livez" || c.ReadinessProbe.HTTPGet.Path != "/readyz" ||
				c.ReadinessProbe.HTTPGet.Port.StrVal != "ops" {
				t.Errorf("%s: %s: probes %v %v %v", values, name, c.StartupProbe, c.LivenessProbe, c.ReadinessProbe)
			}
			if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
				t.Errorf("%s: %s: resources %+v", values, name, c.Resources)
			}
			if len(pod.Spec.TopologySpreadConstraints) != 2 || *pod.Spec.TerminationGracePeriodSeconds != 120 {
				t.Errorf("%s: %s: spread %v, %d s to end", values, name, pod.Spec.TopologySpreadConstraints, *pod.Spec.TerminationGracePeriodSeconds)
			}
		}
	}
}

// A service that is broken into must not hold another's key.
func TestChart_eachPodHasItsOwnSecretsOnly(t *testing.T) {
	t.Parallel()
	more := map[string][]string{"auth": {"client-secret"}, "gateway": {"admin.token", "providers.yaml"}}
	for name, pod := range pods(both(t)["production"]) {
		service := strings.TrimPrefix(name[strings.Index(name, "/")+1:], "devpilot-")
		if strings.HasPrefix(service, "worker-") {
			service = "deployer"
		}
		want := append([]string{"encryption-" + service + ".json", "identity-" + service + ".json", "url", "url", "tls.crt", "tls.key", "ca.crt"}, more[service]...)
		user := map[string]string{"auth": "auth", "webhook": "webhook", "gateway": "gateway", "deployer": "deployer-api"}[service]
		if strings.Contains(name, "-worker-") {
			user = "deployer-worker"
		}
		if user != "" { // repo keeps nothing in NATS
			want = append(want, "nats-"+user+".nk")
		}
		var have []string
		files := map[string]bool{}
		for _, v := range pod.Spec.Volumes {
			if v.Projected != nil {
				for _, s := range v.Projected.Sources {
					for _, item := range s.Secret.Items {
						have = append(have, item.Key)
						files["/etc/devpilot/"+item.Path] = true
						if item.Key == "tls.key" && s.Secret.Name != "devpilot-tls-"+service {
							t.Errorf("%s has the certificate of %s", name, s.Secret.Name)
						}
					}
				}
			}
		}
		slices.Sort(have)
		slices.Sort(want)
		if !slices.Equal(have, want) {
			t.Errorf("%s holds %v, not %v", name, have, want)
		}
		for _, e := range pod.Spec.Containers[0].Env {
			if strings.HasSuffix(e.Name, "_FILE") && !files[e.Value] {
				t.Errorf("%s: %s names %s, which is not there", name, e.Name, e.Value)
			}
		}
	}
}

func TestChart_refusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ values, want string }{
		"a setting nobody knows": {"config: {reconcile-intervall: 30s}", "reconcile-intervall"},
		"a number out of bounds": {"config: {nats-replicas: 7}", "nats-replicas"},
		"a word not in the list": {"config: {log-level: loud}", "log-level"},
		"what the chart decides": {"config: {roles: api}", "roles"},
		"a value misspelt":       {"gateway: {replica: 3}", "replica"},
		"workers without a share": {
			"deployer: {servers: {default: {replicas: 2}}}", "deployer.servers.default has more than one worker, which share the volume of its releases",
		},
		"a name that is none":        {"deployer: {servers: {Eu_1: {}}}", "Eu_1"},
		"certificates of nobody":     {"tls: {certManager: {enabled: true}}", "set tls.certManager.issuer.name"},
		"a word for plain text":      {"tls: {plaintext: [all]}", "plaintext"},
		"what the chart encrypts by": {"config: {tls-cert-file: /x}", "tls-cert-file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var values map[string]any
			if err := yaml.Unmarshal([]byte(c.values), &values); err != nil {
				t.Fatal(err)
			}
			if _, err := render(t, values); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
		})
	}
}

// The archive of a chart must be loadable by who downloads it, and hold nothing else.
func TestChart_holdsOnlyWhatBelongs(t *testing.T) {
	t.Parallel()
	c, err := loader.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range slices.Concat(c.Raw, []*chart.File{}) {
		if ext := filepath.Ext(f.Name); !slices.Contains([]string{".yaml", ".tpl", ".json", ".helmignore"}, ext) {
			t.Errorf("%s", f.Name)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "charts")); err == nil {
		t.Error("the chart has charts within")
	}
}

// What is encrypted is so from the start, and what is not is said in the values.
func TestChart_servicesAreEncrypted(t *testing.T) {
	t.Parallel()
	objects := both(t)
	for values, plaintext := range map[string]string{"defaults": "nats,redis", "production": ""} {
		for name, env := range environments(t, objects[values]) {
			for variable, want := range map[string]string{
				"DEVPILOT_TLS_CERT_FILE": "/etc/devpilot/tls/tls.crt", "DEVPILOT_TLS_KEY_FILE": "/etc/devpilot/tls/tls.key",
				"DEVPILOT_TLS_CA_FILE": "/etc/devpilot/tls/ca.crt", "DEVPILOT_ALLOW_PLAINTEXT": plaintext,
			} {
				if got := env[variable]; got != want {
					t.Errorf("%s: %s: %s is %q, not %q", values, name, variable, got, want)
				}
			}
			// Without an address of all the pod's, neither probes nor callers reach it.
			if got := env["DEVPILOT_OPS_LISTEN"]; !strings.HasPrefix(got, ":71") {
				t.Errorf("%s: %s: probes do not reach %q", values, name, got)
			}
			if got := env["DEVPILOT_GRPC_LISTEN"]; !strings.HasSuffix(name, "gateway") && !strings.HasPrefix(got, ":70") {
				t.Errorf("%s: %s: callers do not reach %q", values, name, got)
			}
		}
	}
	for _, service := range []string{"auth", "repo", "webhook", "deployer", "gateway"} {
		c, ok := objects["production"]["Certificate/devpilot-tls-"+service].(*unstructured.Unstructured)
		if !ok {
			t.Fatalf("no certificate of %s", service)
		}
		names, _, err := unstructured.NestedStringSlice(c.Object, "spec", "dnsNames")
		usages, _, err2 := unstructured.NestedStringSlice(c.Object, "spec", "usages")
		if err != nil || err2 != nil || !slices.Equal(names, []string{service + ".devpilot.internal"}) || !slices.Contains(usages, "client auth") || !slices.Contains(usages, "server auth") {
			t.Errorf("%s: %v for %v, %v %v", service, names, usages, err, err2)
		}
	}
	plain, err := render(t, map[string]any{"tls": map[string]any{"enabled": false, "plaintext": []any{"services", "nats", "redis"}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, env := range environments(t, plain) {
		if env["DEVPILOT_TLS_CERT_FILE"] != "" || env["DEVPILOT_ALLOW_PLAINTEXT"] != "services,nats,redis" {
			t.Errorf("%s: %v", name, env)
		}
	}
}
