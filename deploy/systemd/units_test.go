package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// installed is a copy of the units whose programs are there, as systemd-analyze wants them.
func installed(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, path := range files(t) {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text := regexp.MustCompile(`/opt/devpilot/bin/[a-z]+`).ReplaceAllString(string(raw), "/bin/true")
		to := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func files(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"*.service", "*.target", "*.d/*.conf"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatal(pattern, found, err)
		}
		all = append(all, found...)
	}
	return all
}

func analyze(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("systemd-analyze", args...)
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
	said, err := cmd.CombinedOutput()
	return string(said), err
}

func TestUnits_systemdUnderstandsEveryLine(t *testing.T) {
	t.Parallel()
	dir := installed(t)
	for _, path := range files(t) {
		if strings.HasSuffix(path, ".conf") {
			continue // read with their units
		}
		if said, err := analyze(t, dir, "verify", "--man=no", filepath.Join(dir, path)); err != nil || said != "" {
			t.Errorf("%s: %v: %s", path, err, said)
		}
	}
	broken := filepath.Join(dir, "devpilot-.service.d/10-devpilot.conf")
	if err := os.WriteFile(broken, []byte("[Service]\nNoNewPrivilege=yes\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if said, _ := analyze(t, dir, "verify", "--man=no", filepath.Join(dir, "devpilot-auth.service")); !strings.Contains(said, "NoNewPrivilege") {
		t.Errorf("a misspelt line of the common file is not noticed: %s", said)
	}
}

// The exposure that systemd-analyze computes: 0 is the least. Where hooks run it must be more.
func TestUnits_areExposedNoMoreThanTheyMust(t *testing.T) {
	t.Parallel()
	dir := installed(t)
	for name, most := range map[string]float64{
		"devpilot": 3.8, "devpilot-deployer": 3.8,
		"devpilot-auth": 1.6, "devpilot-repo": 1.6, "devpilot-webhook": 1.6, "devpilot-gateway": 1.6,
	} {
		said, err := analyze(t, dir, "security", "--offline=yes", filepath.Join(dir, name+".service"))
		if err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		found := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindStringSubmatch(said)
		if found == nil {
			t.Fatal(said)
		}
		if got, err := strconv.ParseFloat(found[1], 64); err != nil || got > most {
			t.Errorf("%s: exposed by %v, more than %v: %s", name, found[1], most, said)
		}
	}
}

// effective are the lines that hold for a unit, the last of each name.
func effective(t *testing.T, paths ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(raw)) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
				out[name] = value
			}
		}
	}
	return out
}

// What hooks cannot run with (services/deployer/README.md).
func TestUnits_leaveHooksWhatTheyNeed(t *testing.T) {
	t.Parallel()
	off := []string{"", "no", "default", "all"}
	for name, lines := range map[string]map[string]string{
		"devpilot": effective(t, "devpilot.service"),
		"deployer": effective(t, "devpilot-deployer.service", "devpilot-.service.d/10-devpilot.conf", "devpilot-deployer.service.d/20-hooks.conf"),
	} {
		for _, setting := range []string{
			"RestrictNamespaces", "PrivateDevices", "PrivateUsers", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelTunables",
			"ProtectProc", "ProcSubset", "MemoryDenyWriteExecute", "RestrictSUIDSGID",
		} {
			if !slices.Contains(off, lines[setting]) {
				t.Errorf("%s: %s=%s keeps hooks from running", name, setting, lines[setting])
			}
		}
		for setting, want := range map[string]string{
			"DeviceAllow": "/dev/net/tun rw", "KillMode": "mixed", "OOMPolicy": "continue", "NoNewPrivileges": "yes", "ProtectSystem": "strict",
			"RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6 AF_NETLINK", "UMask": "0027",
		} {
			if lines[setting] != want {
				t.Errorf("%s: %s=%s, not %s", name, setting, lines[setting], want)
			}
		}
	}
}

// A service that is broken into must not hold another's key.
func TestUnits_eachServiceHasItsOwnKeysOnly(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"auth", "repo", "webhook", "deployer", "gateway"} {
		var have []string
		for _, path := range []string{"devpilot-.service.d/10-devpilot.conf", "devpilot-" + name + ".service"} {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^LoadCredential=\S+:/etc/devpilot/keys/((?:encryption|identity)\S+)$`).FindAllStringSubmatch(string(raw), -1) {
				have = append(have, m[1])
			}
		}
		if want := []string{"encryption-" + name + ".json", "identity-" + name + ".json"}; !slices.Equal(have, want) {
			t.Errorf("%s holds %v, not %v", name, have, want)
		}
	}
}

// Every variable that a unit or the sample of settings sets must be one that the programs know, or they
// do not start.
func TestUnits_setOnlyWhatProgramsKnow(t *testing.T) {
	t.Parallel()
	reference, err := os.ReadFile("../../services/REFERENCE.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(files(t), "devpilot.env") {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`DEVPILOT_[A-Z_]+`).FindAllString(string(raw), -1) {
			if !strings.Contains(string(reference), "`"+name+"`") {
				t.Errorf("%s sets %s, which no program knows", path, name)
			}
		}
	}
}
