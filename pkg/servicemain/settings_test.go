package servicemain_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
)

const planted = "planted-s3cr3t"

// everything has every group of flags, as the all-in-one process has most of them.
type everything struct {
	servicemain.LogFlags          `embed:""`
	servicemain.OpsFlags          `embed:""`
	servicemain.HTTPListenFlags   `embed:""`
	servicemain.GRPCListenFlags   `embed:""`
	servicemain.TLSFlags          `embed:""`
	servicemain.PlaintextFlags    `embed:""`
	servicemain.StoreFlags        `embed:""`
	servicemain.InstallationFlags `embed:""`
	servicemain.KeyFlags          `embed:""`
	servicemain.AuthAddrFlag      `embed:""`
	servicemain.RepoAddrFlag      `embed:""`
	servicemain.WebhookAddrFlag   `embed:""`
	servicemain.DeployerAddrFlag  `embed:""`
	servicemain.BitbucketFlags    `embed:""`
	servicemain.PublicFlags       `embed:""`
	servicemain.WebFlags          `embed:""`
	servicemain.DataFlags         `embed:""`
	servicemain.WorkerFlags       `embed:""`
	servicemain.EmulatorFlags     `embed:""`
}

// parsed reads settings; out is what was printed.
func parsedAs[T any](args, environ []string, required ...string) (cfg T, out string, err error) {
	var b bytes.Buffer
	_, err = servicemain.Parse(
		servicemain.Process{Args: args, Environ: environ, Stdout: &b, Stderr: &b},
		servicemain.Settings{
			Name: "devpilot", Description: "Deploys code from Git.", Grammar: &cfg, Required: required,
			Vars: map[string]string{"listen": "127.0.0.1:8080", "grpc_listen": ":7001", "ops_listen": "127.0.0.1:8090", "drain_delay": "0s"},
		})
	return cfg, b.String(), err
}

func parsed(args, env []string, required ...string) (everything, string, error) {
	return parsedAs[everything](args, env, required...)
}

// whole are all settings of the product.
type whole struct {
	everything                 `embed:""`
	servicemain.SignInFlags    `embed:""`
	servicemain.PeopleFlags    `embed:""`
	servicemain.HookFlags      `embed:""`
	servicemain.LiveFlags      `embed:""`
	servicemain.ReconcileFlags `embed:""`
	servicemain.WebhookFlags   `embed:""`
	servicemain.NotifyFlags    `embed:""`
	servicemain.ActivityFlags  `embed:""`
	servicemain.ProgramFlags   `embed:""`
}

func TestParse_defaults(t *testing.T) {
	cfg, _, err := parsed(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"listen", cfg.Listen, "127.0.0.1:8080"},
		{"ops-listen", cfg.OpsListen, "127.0.0.1:8090"},
		{"data-dir", cfg.DataDir, ".devpilot"},
		{"cache-dir", cfg.Cache(), filepath.Join(".devpilot", "cache")},
		{"site", cfg.BitbucketSiteURL, "https://bitbucket.org"},
		{"api", cfg.BitbucketAPIURL, "https://api.bitbucket.org/2.0"},
		{"server", cfg.Server, "default"},
		{"roles", cfg.Roles, []string{"api", "worker"}},
		{"log level", cfg.LogLevel, "info"},
		{"log format elsewhere than on a terminal", cfg.Format(&bytes.Buffer{}), logs.FormatJSON},
		{"emulator", cfg.Emulator, false},
		{"client secret", cfg.BitbucketClientSecret.IsZero(), true},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: %v, not %v", c.name, c.got, c.want)
		}
	}
	if cfg.Slots() < 1 || !cfg.Has("worker") {
		t.Errorf("%d slots, roles %v", cfg.Slots(), cfg.Roles)
	}
}

func TestParse_flagOverEnvironmentOverDefault(t *testing.T) {
	env := []string{"DEVPILOT_LISTEN=127.0.0.1:1", "DEVPILOT_DATA_DIR=/env", "DEVPILOT_CACHE_DIR=/c", "DEVPILOT_WORKERS=3", "DEVPILOT_ROLES=worker",
		"DEVPILOT_EMULATOR=true", "DEVPILOT_ALLOWED_ORIGINS=https://a.example,https://b.example", "DEVPILOT_SERVER=", "DEVPILOT_LOG_LEVEL=", "HOME=/root"}
	cfg, _, err := parsed([]string{"--data-dir=/flag", "--workers", "5"}, env)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Listen != "127.0.0.1:1" || cfg.DataDir != "/flag" || cfg.Slots() != 5 || cfg.Has("api") || !cfg.Emulator || len(cfg.AllowedOrigins) != 2 || cfg.Cache() != "/c" {
		t.Errorf("%+v", cfg)
	}
	if cfg.Server != "default" || cfg.LogLevel != "info" {
		t.Errorf("an empty variable counts as set: server %q, level %q", cfg.Server, cfg.LogLevel)
	}
}

// A setting that is given empty, by flag or variable, means none where there can be none, and is else as
// if it were not given.
func TestParse_givenEmpty(t *testing.T) {
	none, _, err := parsedAs[whole](nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	src, err := os.ReadFile("flags.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`name:"([a-z-]+)" env:"([A-Z_]+)"`).FindAllStringSubmatch(string(src), -1) {
		want := none
		if m[1] == "live-listen" {
			want.LiveListen = ""
		}
		for what, give := range map[string]struct{ args, env []string }{
			"variable": {env: []string{m[2] + "="}}, "blank variable": {env: []string{m[2] + "= \r\n"}}, "flag": {args: []string{"--" + m[1] + "="}},
		} {
			if got, _, err := parsedAs[whole](give.args, give.env); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s of %s: %v, %+v", what, m[1], err, got)
			}
		}
	}
	if got, _, err := parsedAs[whole]([]string{"--listen", "", "--live-listen", ""}, nil); err != nil || got.Listen != none.Listen || got.LiveListen != "" {
		t.Errorf("%v, %+v", err, got)
	}
}

// What was copied along with a value is no part of it.
func TestParse_pasted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	for _, content := range []string{planted + "\n", planted + "\r\n\r\n", "\ufeff" + planted + "\r\n", " " + planted + "\t\u00a0"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		for what, env := range map[string][]string{
			"variable": {"DEVPILOT_BITBUCKET_CLIENT_SECRET=" + content}, "file": {"DEVPILOT_BITBUCKET_CLIENT_SECRET_FILE=" + file + "\n"},
		} {
			cfg, _, err := parsed(nil, append(env, "DEVPILOT_BITBUCKET_CLIENT_ID=\ufeffkey\r\n", "DEVPILOT_WORKERS= 3\n", "DEVPILOT_ROLES=api, worker,", "DEVPILOT_LOG_LEVEL=debug\r"))
			if err != nil || cfg.BitbucketClientSecret.Reveal() != planted || cfg.BitbucketClientID != "key" || cfg.Slots() != 3 || len(cfg.Roles) != 2 || !cfg.Has("worker") || cfg.LogLevel != "debug" {
				t.Errorf("%s %q: %v %+v", what, content, err, cfg)
			}
		}
	}
	cfg, _, err := parsed([]string{"--data-dir", "/srv \n", "--allowed-origins=https://a.example, https://b.example"}, nil)
	if err != nil || cfg.DataDir != "/srv" || fmt.Sprint(cfg.AllowedOrigins) != "[https://a.example https://b.example]" {
		t.Errorf("%v %+v", err, cfg)
	}
	if err := os.WriteFile(file, []byte("\xff\xfes\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args, env []string
		want      string
	}{
		{env: []string{"DEVPILOT_BITBUCKET_CLIENT_SECRET=" + planted + "\nmore"}, want: "DEVPILOT_BITBUCKET_CLIENT_SECRET has a line end"},
		{env: []string{"DEVPILOT_LISTEN=127.0.0.1:1\n127.0.0.1:2"}, want: "DEVPILOT_LISTEN has a line end"},
		{args: []string{"--listen=127.0.0.1:1\n127.0.0.1:2"}, want: "--listen has a line end"},
		{env: []string{"DEVPILOT_BITBUCKET_CLIENT_SECRET_FILE=" + file}, want: "is no text in UTF-8"},
	} {
		if _, _, err := parsed(c.args, c.env); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), planted) {
			t.Errorf("%q: %v", c.want, err)
		}
	}
}

// Browsers compare addresses in the form in which they write them.
func TestPublicURL_asBrowsersWriteIt(t *testing.T) {
	for given, want := range map[string]string{
		"https://devpilot.example.com/": "https://devpilot.example.com", "https://Bücher.Example": "https://xn--bcher-kva.example",
		"https://xn--bcher-kva.example": "https://xn--bcher-kva.example", "https://bücher.example:8443": "https://xn--bcher-kva.example:8443",
		"https://faß.de": "https://xn--fa-hia.de", "https://例え.テスト": "https://xn--r8jz45g.xn--zckzah", "https://a。example": "https://a.example",
		"https://a.example:443": "https://a.example", "http://a.example:80": "http://a.example", "http://a.example:443": "http://a.example:443",
		"HTTP://[::1]:8080": "http://[::1]:8080", "http://[::1]:80": "http://[::1]", "https://b%C3%BCcher.example": "https://xn--bcher-kva.example",
	} {
		got, err := servicemain.PublicFlags{PublicURL: given}.URL(nil, false)
		if err != nil || got != want {
			t.Errorf("%s: %q %v", given, got, err)
		}
		if origins, err := (servicemain.WebFlags{AllowedOrigins: []string{given}}).Origins(); err != nil || len(origins) != 1 || origins[0] != want {
			t.Errorf("%s: %q %v", given, origins, err)
		}
		live, err := servicemain.LiveFlags{LiveListen: "127.0.0.1:1", LiveURL: given}.ListenLive(t.Context(), false)
		if err != nil || live.URL != want {
			t.Errorf("%s: %q %v", given, live.URL, err)
		}
	}
	for _, given := range []string{"https://bü cher.example", "https://-ü.example", "https://:443", "https://ü\u200d.example"} {
		if got, err := (servicemain.PublicFlags{PublicURL: given}).URL(nil, false); err == nil || !strings.Contains(err.Error(), "DEVPILOT_PUBLIC_URL") {
			t.Errorf("%q: %q %v", given, got, err)
		}
	}
}

func TestParse_secretsComeFromTheVariableOrAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(planted+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, env := range map[string]string{"variable": "DEVPILOT_BITBUCKET_CLIENT_SECRET=" + planted, "file": "DEVPILOT_BITBUCKET_CLIENT_SECRET_FILE=" + file} {
		cfg, _, err := parsed(nil, []string{env}, "DEVPILOT_BITBUCKET_CLIENT_SECRET")
		if err != nil || cfg.BitbucketClientSecret.Reveal() != planted {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParse_refuses(t *testing.T) {
	dir := t.TempDir()
	file, empty := filepath.Join(dir, "secret"), filepath.Join(dir, "empty")
	for path, content := range map[string]string{file: planted, empty: "\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		args, env, required []string
		want                []string
	}{
		"unknown flag":                   {args: []string{"--lisen=:1"}, want: []string{"--lisen", "--listen"}},
		"unknown variable":               {env: []string{"DEVPILOT_LISSEN=:1"}, want: []string{"DEVPILOT_LISSEN", "did you mean DEVPILOT_LISTEN?"}},
		"unknown variable, nothing near": {env: []string{"DEVPILOT_XYZZY_PLUGH=1"}, want: []string{"unknown setting DEVPILOT_XYZZY_PLUGH"}},
		"file of what is no secret":      {env: []string{"DEVPILOT_LISTEN_FILE=/x"}, want: []string{"unknown setting DEVPILOT_LISTEN_FILE"}},
		"two unknown variables":          {env: []string{"DEVPILOT_AAAAAAAA=1", "DEVPILOT_BBBBBBBB=1"}, want: []string{"DEVPILOT_AAAAAAAA", "DEVPILOT_BBBBBBBB"}},
		"secret as a flag":               {args: []string{"--bitbucket-client-secret=" + planted}, want: []string{"DEVPILOT_BITBUCKET_CLIENT_SECRET_FILE", "arguments"}},
		"URL with a password as a flag":  {args: []string{"--nats-url", "nats://u:" + planted + "@h:4222"}, want: []string{"DEVPILOT_NATS_URL_FILE"}},
		"secret and its file": {env: []string{"DEVPILOT_BITBUCKET_CLIENT_SECRET=" + planted, "DEVPILOT_BITBUCKET_CLIENT_SECRET_FILE=" + file},
			want: []string{"both DEVPILOT_BITBUCKET_CLIENT_SECRET and DEVPILOT_BITBUCKET_CLIENT_SECRET_FILE"}},
		"file that is missing":  {env: []string{"DEVPILOT_NATS_URL_FILE=" + filepath.Join(dir, "none")}, want: []string{"DEVPILOT_NATS_URL_FILE", "no such file"}},
		"file that is empty":    {env: []string{"DEVPILOT_NATS_URL_FILE=" + empty}, want: []string{"DEVPILOT_NATS_URL_FILE", "is empty"}},
		"required":              {required: []string{"DEVPILOT_NATS_URL"}, want: []string{"DEVPILOT_NATS_URL is not set (nor DEVPILOT_NATS_URL_FILE)", "URL of NATS"}},
		"required, with a flag": {required: []string{"DEVPILOT_AUTH_ADDR"}, want: []string{"DEVPILOT_AUTH_ADDR is not set (flag --auth-addr)"}},
		"required but empty":    {env: []string{"DEVPILOT_AUTH_ADDR="}, required: []string{"DEVPILOT_AUTH_ADDR"}, want: []string{"DEVPILOT_AUTH_ADDR is not set"}},
		"not one of the words":  {args: []string{"--log-format=xml"}, want: []string{"--log-format"}},
		"word from environment": {env: []string{"DEVPILOT_ROLES=boss"}, want: []string{"--roles"}},
		"not a number":          {env: []string{"DEVPILOT_WORKERS=many"}, want: []string{"--workers"}},
		"positional argument":   {args: []string{"serve"}, want: []string{"serve"}},
	} {
		_, _, err := parsed(tc.args, tc.env, tc.required...)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		for _, part := range tc.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q is missing in: %v", name, part, err)
			}
		}
		if strings.Contains(err.Error(), planted) {
			t.Errorf("%s: the error shows the secret", name)
		}
	}
}

func TestParse_variablesOfOtherProgramsAreKnown(t *testing.T) {
	var cfg struct {
		servicemain.LogFlags `embed:""`
		Extra                string `env:"DEVPILOT_EXTRA"`
	}
	_, err := servicemain.Parse(
		servicemain.Process{Environ: []string{"DEVPILOT_BITBUCKET_CLIENT_SECRET=x", "DEVPILOT_REDIS_URL_FILE=/x", "DEVPILOT_EMULATOR=1", "DEVPILOT_EXTRA=own"}},
		servicemain.Settings{Name: "repo", Grammar: &cfg})
	if err != nil || cfg.Extra != "own" {
		t.Errorf("%v, %+v", err, cfg)
	}
}

func TestParse_helpListsSettingsAndTheirVariables(t *testing.T) {
	_, out, err := parsed([]string{"--help"}, nil, "DEVPILOT_NATS_URL")
	if !errors.Is(err, servicemain.ErrHelp) {
		t.Fatalf("%v", err)
	}
	flat := strings.Join(strings.Fields(out), " ")
	for _, part := range []string{"--listen", "$DEVPILOT_LISTEN", "127.0.0.1:8080", "$DEVPILOT_NATS_URL_FILE, never as a flag", "--emulator-scenario"} {
		if !strings.Contains(flat, part) {
			t.Errorf("%q is missing in the help:\n%s", part, out)
		}
	}
}

// A group that productFlags does not list would be unknown to the programs that do not embed it.
func TestFlagGroups_allAreKnownToEveryProgram(t *testing.T) {
	src, err := os.ReadFile("flags.go")
	if err != nil {
		t.Fatal(err)
	}
	_, list, found := strings.Cut(string(src), "func productFlags()")
	groups := regexp.MustCompile(`(?m)^type (\w+) struct`).FindAllStringSubmatch(string(src), -1)
	if !found || len(groups) < 16 {
		t.Fatalf("flags.go has %d groups", len(groups))
	}
	for _, g := range groups {
		if !regexp.MustCompile(`\b` + g[1] + `\{\}`).MatchString(list) {
			t.Errorf("productFlags does not list %s", g[1])
		}
	}
	for _, m := range regexp.MustCompile(`name:"([a-z-]+)" env:"([A-Z_]+)"`).FindAllStringSubmatch(string(src), -1) {
		if "DEVPILOT_"+strings.ToUpper(strings.ReplaceAll(m[1], "-", "_")) != m[2] {
			t.Errorf("the flag --%s and the variable %s do not match", m[1], m[2])
		}
	}
}

// The table of settings in DESIGN.md#running.
func TestParse_knowsEverySettingOfTheDesign(t *testing.T) {
	values := map[string]string{"DEVPILOT_LOG_LEVEL": "debug", "DEVPILOT_LOG_FORMAT": "json", "DEVPILOT_WORKERS": "2", "DEVPILOT_ROLES": "api", "DEVPILOT_PPROF": "true", "DEVPILOT_NATS_REPLICAS": "3", "DEVPILOT_STREAMS_MIB": "512"}
	var env []string
	for name := range strings.FieldsSeq(`LISTEN GRPC_LISTEN OPS_LISTEN AUTH_ADDR REPO_ADDR WEBHOOK_ADDR DEPLOYER_ADDR DATA_DIR CACHE_DIR
		PUBLIC_URL BITBUCKET_CLIENT_ID BITBUCKET_CLIENT_SECRET BITBUCKET_SITE_URL BITBUCKET_API_URL NATS_URL NATS_REPLICAS STREAMS_MIB INSTALLATION REDIS_URL
		ENCRYPTION_KEYSET_FILE IDENTITY_KEY_FILE SERVER WORKERS ROLES ALLOWED_ORIGINS TRUSTED_PROXIES LOG_LEVEL LOG_FORMAT PPROF
		LISTEN_CERT_FILE LISTEN_KEY_FILE TLS_CERT_FILE TLS_KEY_FILE TLS_CA_FILE
		NATS_CREDENTIALS_FILE NATS_NKEY_FILE NATS_CA_FILE NATS_CERT_FILE NATS_KEY_FILE REDIS_CA_FILE REDIS_CERT_FILE REDIS_KEY_FILE ALLOW_PLAINTEXT`) {
		value := values["DEVPILOT_"+name]
		if value == "" {
			value = "x"
		}
		env = append(env, "DEVPILOT_"+name+"="+value)
	}
	cfg, _, err := parsed(nil, env)
	if err != nil {
		t.Fatal(err)
	}
	for i := range reflect.TypeOf(cfg).NumField() {
		group := reflect.ValueOf(cfg).Field(i)
		for j := range group.NumField() {
			f := group.Type().Field(j)
			if strings.HasPrefix(f.Name, "Emulator") || strings.HasPrefix(f.Name, "Scenario") || f.Name == "DrainDelay" {
				continue // ours, beside the table
			}
			if group.Field(j).IsZero() {
				t.Errorf("%s was not read from %s", f.Name, f.Tag.Get("env"))
			}
		}
	}
	for name := range strings.FieldsSeq(`--listen --grpc-listen --ops-listen --data-dir --cache-dir --public-url --server --workers --roles
		--allowed-origins --trusted-proxies --log-level --log-format`) {
		value := values["DEVPILOT_"+strings.ToUpper(strings.ReplaceAll(name[2:], "-", "_"))]
		if value == "" {
			value = "x"
		}
		if _, _, err := parsed([]string{name, value}, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A value that makes no sense is refused with a sentence that names the setting, what was given and
// what would do; given as a flag or in the environment.
func TestParse_refusesSenselessNumbers(t *testing.T) {
	for _, c := range []struct{ flag, value, want string }{
		{"workers", "-1", "--workers (DEVPILOT_WORKERS) is -1, which makes no sense: give from 0 to 1024. Deployments at a time"},
		{"workers", "5000", "give from 0 to 1024"},
		{"app-disk-mib", "-5", "--app-disk-mib (DEVPILOT_APP_DISK_MIB) is -5, which makes no sense: give at least -1. "},
		{"cache-mib", "0", "give at least 1. "},
		{"streams-mib", "255", "give from 256 to 1048576. "},
		{"drain-delay", "-1s", "--drain-delay (DEVPILOT_DRAIN_DELAY) is -1s, which makes no sense: give from 0s to 10m. "},
		{"worker-lease", "0s", "give from 1s to 1h. "},
		{"reconcile-interval", "-30s", "give from 100ms to 24h. "},
		{"reconcile-grace", "-1ns", "give from 0s to 24h. "},
	} {
		variable := "DEVPILOT_" + strings.ToUpper(strings.ReplaceAll(c.flag, "-", "_"))
		for how, try := range map[string]func() error{
			"flag":     func() error { _, _, err := parsedAs[whole]([]string{"--" + c.flag + "=" + c.value}, nil); return err },
			"variable": func() error { _, _, err := parsedAs[whole](nil, []string{variable + "=" + c.value}); return err },
		} {
			if err := try(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %s=%s: %v; want %q", how, c.flag, c.value, err, c.want)
			}
		}
	}
	for _, c := range []string{"2", "4", "7", "-1"} {
		if _, _, err := parsedAs[whole](nil, []string{"DEVPILOT_NATS_REPLICAS=" + c}); err == nil || !strings.Contains(err.Error(), `--nats-replicas must be one of "0","1","3","5" but got "`+c+`"`) {
			t.Errorf("replicas %s: %v", c, err)
		}
	}
	for _, good := range [][]string{{"--nats-replicas=0"}, {"--nats-replicas=5"}, {"--workers=0"}, {"--app-disk-mib=-1"}, {"--app-disk-mib=0"}, {"--drain-delay=0s"}} {
		if _, _, err := parsedAs[whole](good, nil); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}

// Where nothing is said, nothing is set: stream.DefaultBytes, or what an embedded store has room for.
func TestStreamsMiB_isNotSetByDefault(t *testing.T) {
	cfg, _, err := parsedAs[whole](nil, nil)
	if err != nil || cfg.StreamsMiB != 0 {
		t.Errorf("%d MiB, %v", cfg.StreamsMiB, err)
	}
	if need := cfg.EmbeddedNeed(); need != 512<<20 {
		t.Errorf("an embedded store needs %d bytes at least", need)
	}
	cfg, _, err = parsedAs[whole](nil, []string{"DEVPILOT_STREAMS_MIB=1024"})
	if err != nil || cfg.EmbeddedNeed() != 1280<<20 {
		t.Errorf("%d bytes, %v", cfg.EmbeddedNeed(), err)
	}
	if _, _, err = parsedAs[whole](nil, []string{"DEVPILOT_STREAMS_MIB=0"}); err != nil {
		t.Errorf("the default, said: %v", err)
	}
	for _, little := range []string{"-1", "1", "255", "1048577"} {
		if _, _, err = parsedAs[whole](nil, []string{"DEVPILOT_STREAMS_MIB=" + little}); err == nil {
			t.Errorf("%s MiB are taken", little)
		}
	}
}

func TestGroups_everyNumberHasItsBounds(t *testing.T) {
	for _, group := range servicemain.Groups() {
		for i := range reflect.TypeOf(group).NumField() {
			f := reflect.TypeOf(group).Field(i)
			if k := f.Type.Kind(); (k == reflect.Int || k == reflect.Int64) && f.Tag.Get("min") == "" && f.Tag.Get("enum") == "" {
				t.Errorf("%T.%s has neither min nor enum", group, f.Name)
			}
		}
	}
}

func TestPublicFlags_URL(t *testing.T) {
	listen := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080}
	for set, want := range map[string]string{
		"":                                "http://127.0.0.1:8080",
		"https://Devpilot.Example.com":    "https://devpilot.example.com",
		"https://devpilot.example.com/":   "https://devpilot.example.com",
		"http://10.0.0.1:9000":            "http://10.0.0.1:9000",
		"devpilot.example.com":            "",
		"ftp://devpilot.example.com":      "",
		"https://":                        "",
		"https://u:" + planted + "@x.com": "",
		"https://x.com/path":              "",
		"https://x.com?q=1":               "",
		"https://x.com#f":                 "",
		"https://x.com:" + planted:        "",
	} {
		got, err := servicemain.PublicFlags{PublicURL: set}.URL(listen, false)
		if got != want || (want == "") != (err != nil) {
			t.Errorf("%q: %q, %v", set, got, err)
		}
		if err != nil && (strings.Contains(err.Error(), planted) || !strings.Contains(err.Error(), "--public-url")) {
			t.Errorf("%q: %v", set, err)
		}
	}
	if got, err := (servicemain.PublicFlags{}).URL(&net.TCPAddr{IP: net.IPv6unspecified, Port: 8082}, false); err != nil || got != "http://127.0.0.1:8082" {
		t.Errorf("listening on all addresses: %q, %v", got, err)
	}
	if got, err := (servicemain.PublicFlags{}).URL(&net.TCPAddr{IP: net.IPv6unspecified, Port: 8082}, true); err != nil || got != "https://127.0.0.1:8082" {
		t.Errorf("with a certificate: %q, %v", got, err)
	}
	if _, err := (servicemain.PublicFlags{}).URL(nil, false); err == nil {
		t.Error("no URL and no address")
	}
}

func TestListen_busyPortIsOneSentenceThatNamesTheFlag(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = servicemain.Listen(t.Context(), "--ops-listen", taken.Addr().String())
	want := "the address " + taken.Addr().String() + " is in use by another program: stop that one, or choose another address with --ops-listen (DEVPILOT_OPS_LISTEN)"
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	if _, err = servicemain.Listen(t.Context(), "--listen", "nowhere"); err == nil || !strings.Contains(err.Error(), "--listen (DEVPILOT_LISTEN)") {
		t.Errorf("%v", err)
	}
}

func TestConnect_errorsDoNotShowTheURL(t *testing.T) {
	for _, bad := range []string{"redis://u:" + planted + "@h:port", "http://" + planted, planted} {
		_, err := servicemain.ConnectRedis(t.Context(), servicemain.StoreFlags{RedisURL: seal.NewSecret(bad)}, servicemain.PlaintextFlags{}, "", logs.Discard())
		if err == nil || strings.Contains(err.Error(), planted) || !strings.Contains(err.Error(), "DEVPILOT_REDIS_URL") {
			t.Errorf("%v", err)
		}
	}
}
