package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/allinone"
)

// The product in one process: before its first start, beside it while it runs, and after it. Nothing of its
// data directory is changed.
func TestRun_allInOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	at := func() string { return fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)) }
	environ := []string{
		"DEVPILOT_DATA_DIR=" + dir, "DEVPILOT_LISTEN=" + at(), "DEVPILOT_OPS_LISTEN=" + at(), "DEVPILOT_LIVE_LISTEN=" + at(),
		"DEVPILOT_EMULATOR=true", "DEVPILOT_EMULATOR_LISTEN=" + at(), "DEVPILOT_STREAMS_MIB=512",
	}
	w := &world{t: t}
	look := func(env ...string) Report {
		t.Helper()
		w.env = map[string]string{}
		for _, variable := range append(slices.Clone(environ), env...) {
			name, value, _ := strings.Cut(variable, "=")
			w.env[name] = value
		}
		return w.report(nil)
	}
	r := look()
	for name, want := range map[string]checkup.State{"settings": checkup.OK, "process": checkup.Skipped, "nats": checkup.OK, "nats-storage": checkup.OK, "keyset": checkup.Skipped, "public-url": checkup.Skipped, "webhook-delivery": checkup.Skipped} {
		if c := r.check(t, name); c.State != want {
			t.Errorf("before the first start: %+v", c)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the data directory was made: %v", err)
	}
	if c := look("DEVPILOT_STREAMS_MIB=1048576").check(t, "nats-storage"); c.State != checkup.Failed || !strings.Contains(c.Found, "a new store needs 1049") {
		t.Errorf("a volume too small: %+v", c)
	}

	f := &Flags{}
	if _, err := servicemain.Parse(servicemain.Process{Environ: environ}, servicemain.Settings{Name: "devpilot", Grammar: f, Vars: map[string]string{"listen": "", "grpc_listen": "", "ops_listen": "", "drain_delay": "0s"}}); err != nil {
		t.Fatal(err)
	}
	f.EmulatorScenario = allinone.DefaultScenario
	product, err := allinone.New(t.Context(), f.Settings, logs.Discard())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	ready := make(chan struct{})
	product.Started = func(context.Context, *allinone.Product) { close(ready) }
	go func() { ended <- product.Run(ctx) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("the product ended: %v", err)
	}
	// Also without the flag that it was started with, as after make run.
	for beside, env := range map[string][]string{"with its settings": nil, "without its flag": {"DEVPILOT_EMULATOR=false", "DEVPILOT_EMULATOR_LISTEN=localhost:1"}} {
		for _, c := range look(env...).Checks {
			if c.State != checkup.OK && (c.Name != "sandbox" || c.State != checkup.Warning) {
				t.Errorf("beside it, %s: %+v", beside, c)
			}
		}
	}
	keyset, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(t.TempDir(), "foreign.json")
	if err := keyset.SaveFile(foreign); err != nil {
		t.Fatal(err)
	}
	r = look("DEVPILOT_ENCRYPTION_KEYSET_FILE=" + foreign)
	if c := r.check(t, "keyset"); c.State != checkup.Failed || !strings.Contains(c.Found, "another installation's") {
		t.Errorf("beside it, with a foreign keyset: %+v", c)
	}
	if c := r.check(t, "webhook-delivery"); c.State != checkup.Failed || !strings.Contains(c.Found, "answers 401") {
		t.Errorf("signed with a foreign keyset: %+v", c)
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}

	before := files(t, dir)
	r = look()
	if c := r.check(t, "keyset"); c.State != checkup.OK || !strings.Contains(c.Found, "opens what is stored") {
		t.Errorf("after it: %+v", c)
	}
	if c := r.check(t, "process"); c.State != checkup.Skipped {
		t.Errorf("after it: %+v", c)
	}
	if after := files(t, dir); !slices.Equal(before, after) {
		t.Errorf("the data directory changed: %v, %v", before, after)
	}
}

// A store that cannot hold the streams ends the product's start with a sentence that has the numbers.
func TestProduct_aStoreThatIsTooSmallEndsTheStart(t *testing.T) {
	url := realNATS(t, func(o *server.Options) { o.JetStreamMaxStore = 2 << 30 })
	settings := allinone.Settings{}
	at := func() string { return fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)) }
	settings.DataDir, settings.NATSURL, settings.Listen, settings.OpsListen = t.TempDir(), seal.NewSecret(url), at(), at()
	settings.BitbucketSiteURL, settings.BitbucketAPIURL, settings.Roles, settings.StreamsMiB = "https://bitbucket.org", "https://api.bitbucket.org/2.0", []string{"api"}, 4096
	run := func() error {
		product, err := allinone.New(t.Context(), settings, logs.Discard())
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		product.Started = func(context.Context, *allinone.Product) { stop() }
		return product.Run(ctx)
	}
	err := run()
	if !errors.Is(err, stream.ErrNoRoom) || !strings.Contains(err.Error(), "needs 4352 MiB, 4096 for its streams (DEVPILOT_STREAMS_MIB) and 256 for records, and the store has 2048 MiB") {
		t.Fatalf("%v", err)
	}
	settings.StreamsMiB = 1024
	if err := run(); err != nil {
		t.Errorf("with a setting that fits: %v", err)
	}
}

// files are all files of a directory with their sizes and times.
func files(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && !d.IsDir() {
			all = append(all, fmt.Sprintf("%s %d %v", path, info.Size(), info.ModTime()))
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}
