package chart

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// never are settings that nobody needs in a pod: TLS ends at the ingress, or they are of the all-in-one
// process.
var never = []string{"listen-cert-file", "listen-key-file", "emulator", "emulator-listen", "emulator-scenario", "scenario", "scenario-time"}

// reference are the variables of all settings, by flag.
func reference(t *testing.T) map[string]string {
	t.Helper()
	raw, err := os.ReadFile("../../services/REFERENCE.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `--([a-z-]+)` \\| `([A-Z_]+)`").FindAllStringSubmatch(string(raw), -1) {
		out[m[1]] = m[2]
	}
	if len(out) < 40 {
		t.Fatalf("the reference has %d settings", len(out))
	}
	return out
}

// environments are what each pod is told, what is for all included.
func environments(t *testing.T, objects map[string]runtime.Object) map[string]map[string]string {
	t.Helper()
	all, ok := objects["ConfigMap/devpilot-settings"].(*corev1.ConfigMap)
	if !ok {
		t.Fatal("no settings for all")
	}
	out := map[string]map[string]string{}
	for name, pod := range pods(objects) {
		env := maps.Clone(all.Data)
		for _, e := range pod.Spec.Containers[0].Env {
			env[e.Name] = e.Value
		}
		out[name] = env
	}
	return out
}

func TestChart_everySettingIsReachableAndNoOtherIsSet(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("devpilot/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Defs map[string]struct{ Properties map[string]any } `json:"$defs"`
	}
	if err := json.Unmarshal(raw, &schema); err != nil {
		t.Fatal(err)
	}
	values := production(t)
	values["secrets"] = map[string]any{
		"smtpPassword": map[string]any{"name": "mail"}, "identityProviders": map[string]any{"name": "providers"},
	}
	withFiles, err := render(t, values)
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]bool{}
	for _, objects := range []map[string]runtime.Object{withFiles, both(t)["production"], both(t)["defaults"]} {
		for _, env := range environments(t, objects) {
			for name := range env {
				set[name] = true
			}
		}
	}
	known := map[string]bool{"POD_IP": true}
	for flag, variable := range reference(t) {
		known[variable], known[variable+"_FILE"] = true, true
		if want := "DEVPILOT_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_")); variable != want {
			t.Errorf("--%s is %s, and the chart makes %s of it", flag, variable, want)
		}
		_, configurable := schema.Defs["settings"].Properties[flag]
		decided := set[variable] || set[variable+"_FILE"]
		switch {
		case !configurable && !decided && !slices.Contains(never, flag):
			t.Errorf("--%s cannot be set with the chart", flag)
		case configurable && slices.Contains(never, flag):
			t.Errorf("--%s can be set with the chart", flag)
		}
	}
	for name := range set {
		if !known[name] {
			t.Errorf("the chart sets %s, which no program knows", name)
		}
	}
}

func TestChart_settingsArriveAsTheProgramsReadThem(t *testing.T) {
	t.Parallel()
	env := environments(t, both(t)["production"])
	for name, want := range map[string]map[string]string{
		"Deployment/devpilot-gateway": {
			"DEVPILOT_PUBLIC_URL": "https://devpilot.example.com", "DEVPILOT_NATS_REPLICAS": "3", "DEVPILOT_TRUSTED_PROXIES": "10.0.0.0/8", "DEVPILOT_LOCAL_OWNER": "off",
			"DEVPILOT_SMTP_HOST": "mail.example.com", "DEVPILOT_LISTEN": ":8080", "DEVPILOT_LOG_FORMAT": "json",
			"DEVPILOT_AUTH_ADDR": "devpilot-auth-grpc:7001", "DEVPILOT_REPO_ADDR": "devpilot-repo-grpc:7002",
			"DEVPILOT_WEBHOOK_ADDR": "devpilot-webhook-grpc:7003", "DEVPILOT_DEPLOYER_ADDR": "devpilot-deployer-grpc:7004",
		},
		"Deployment/devpilot-auth":     {"DEVPILOT_SMTP_HOST": "", "DEVPILOT_BITBUCKET_CLIENT_SECRET_FILE": "/etc/devpilot/bitbucket-client-secret"},
		"Deployment/devpilot-deployer": {"DEVPILOT_ROLES": "api", "DEVPILOT_LIVE_URL": "https://live.example.com", "DEVPILOT_WORKERS": ""},
		"StatefulSet/devpilot-worker-default": {
			"DEVPILOT_ROLES": "worker", "DEVPILOT_SERVER": "default", "DEVPILOT_WORKERS": "4", "DEVPILOT_LIVE_LISTEN": ":8083", "DEVPILOT_LIVE_ADVERTISE": "$(POD_IP):8083",
		},
		"StatefulSet/devpilot-worker-eu": {"DEVPILOT_SERVER": "eu", "DEVPILOT_WORKERS": ""},
	} {
		for variable, value := range want {
			if got := env[name][variable]; got != value {
				t.Errorf("%s: %s is %q, not %q", name, variable, got, value)
			}
		}
	}
	// Kubernetes puts in only what stands before.
	for name, pod := range pods(both(t)["production"]) {
		if strings.HasPrefix(name, "StatefulSet/") && pod.Spec.Containers[0].Env[0].Name != "POD_IP" {
			t.Errorf("%s: POD_IP is not the first variable", name)
		}
	}
}
