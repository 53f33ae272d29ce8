package allinone

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/servicemain"
)

type listening struct {
	net.Listener
	at string
}

func (l listening) Addr() net.Addr { return address(l.at) }

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

func TestSignInCommand_runsAsItStands(t *testing.T) {
	wd := t.TempDir()
	t.Chdir(wd)
	for _, c := range []struct{ program, listen, dir, want string }{
		{"bin/devpilot", "127.0.0.1:8080", ".devpilot", "bin/devpilot sign-in --url http://127.0.0.1:8080"},
		{"devpilot", "127.0.0.1:9099", "other", "devpilot sign-in --url http://127.0.0.1:9099 --data-dir other"},
		{"/opt/my tools/devpilot", "0.0.0.0:80", "it's here", `'/opt/my tools/devpilot' sign-in --url http://127.0.0.1:80 --data-dir 'it'\''s here'`},
		{"bin/devpilot", "[::]:8080", ".devpilot", "bin/devpilot sign-in --url http://localhost:8080"},
		{"bin/devpilot", "10.0.0.7:8080", ".devpilot", "bin/devpilot sign-in --url http://10.0.0.7:8080"},
	} {
		p := &Product{dir: directory{filepath.Join(wd, c.dir)}, httpListener: listening{at: c.listen}}
		if got := p.signInCommand(c.program); got != c.want {
			t.Errorf("%s on %s with %s: %s, want %s", c.program, c.listen, c.dir, got, c.want)
		}
	}
}

func TestNew_aScenarioWithoutEmulatorIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	_, err := New(t.Context(), Settings{
		DataFlags: servicemain.DataFlags{DataDir: dir}, EmulatorFlags: servicemain.EmulatorFlags{EmulatorScenario: "not-admin"},
	}, logs.Discard())
	if err == nil || !strings.Contains(err.Error(), "add --emulator") {
		t.Fatalf("%v, want one that says what to do", err)
	}
}

// Files by which a store is known mean that store: an embedded one in its place would protect nothing.
func TestNew_filesOfAStoreWithoutItsAddressAreRefused(t *testing.T) {
	for says, stores := range map[string]servicemain.StoreFlags{
		"DEVPILOT_NATS_URL is not set":  {NATSCAFile: "ca.crt"},
		"DEVPILOT_NATS_URL is not set,": {NATSNkeyFile: "nkey"},
		"DEVPILOT_REDIS_URL is not set": {RedisCAFile: "ca.crt"},
	} {
		_, err := New(t.Context(), Settings{DataFlags: servicemain.DataFlags{DataDir: filepath.Join(t.TempDir(), "data")}, StoreFlags: stores}, logs.Discard())
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v", stores, err)
		}
	}
}

// Where no terminal reads along, no link is printed: it would sign in whoever reads the log.
func TestGreeting_saysWhatToDoNext(t *testing.T) {
	wd := t.TempDir()
	t.Chdir(wd)
	for name, c := range map[string]struct {
		settings Settings
		want     []string
		not      string
	}{
		"with neither": {want: []string{"DEVPILOT_BITBUCKET_CLIENT_ID", "--emulator"}, not: "stands in"},
		"an emulator": {
			settings: Settings{EmulatorFlags: servicemain.EmulatorFlags{Emulator: true}}, want: []string{"A Bitbucket emulator stands in"}, not: "CLIENT_ID",
		},
		"a consumer": {settings: Settings{BitbucketFlags: servicemain.BitbucketFlags{BitbucketClientID: "key"}}, not: "mulator"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &Product{dir: directory{filepath.Join(wd, DefaultDataDir)}, httpListener: listening{at: "127.0.0.1:8080"}, publicURL: "http://127.0.0.1:8080", settings: c.settings}
			var out strings.Builder
			p.Greeting(t.Context(), &out, "bin/devpilot", false)
			for _, want := range append(c.want, "Devpilot is at http://127.0.0.1:8080", "bin/devpilot sign-in --url http://127.0.0.1:8080\n") {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is not in:\n%s", want, &out)
				}
			}
			if c.not != "" && strings.Contains(out.String(), c.not) {
				t.Errorf("%q is in:\n%s", c.not, &out)
			}
		})
	}
}
