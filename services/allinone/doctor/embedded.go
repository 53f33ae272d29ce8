package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/engine"
	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/allinone"
)

// The embedded NATS has no address, and its files belong to the process that runs it: what can be known is
// read from the disk, and asked of the process.

// askTimeout bounds asking the program on this machine.
const askTimeout = 4 * time.Second

func (x *exam) storeDir() string { return allinone.StoreDir(x.flags.DataDir) }

// hasStore tells whether there is a store in the data directory.
func (x *exam) hasStore() bool {
	_, err := os.Stat(filepath.Join(x.storeDir(), "jetstream"))
	return err == nil
}

// embeddedOwner finds out whether the embedded store is the keysets'. The record of the installation is
// copied and read by a server of our own: the store itself is not touched, whether the program runs or not.
func (x *exam) embeddedOwner(ctx context.Context, keysets seal.Keysets) (id string, err error) {
	name, err := x.flags.Name()
	if err != nil {
		return "", err
	}
	record := name.Stream(kv.StreamName(installation.Bucket))
	found, err := filepath.Glob(filepath.Join(x.storeDir(), "jetstream", "*", "streams", record))
	if err != nil || len(found) == 0 {
		return "", err
	}
	dir, err := os.MkdirTemp("", "devpilot-doctor-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	relative, err := filepath.Rel(x.storeDir(), found[0])
	if err != nil {
		return "", err
	}
	if err := copyTree(filepath.Join(dir, relative), found[0]); err != nil {
		return "", err
	}
	own, err := engine.StartNATS(ctx, engine.NATSConfig{StoreDir: dir, MaxStore: stream.RecordsBytes, CanaryInterval: -1})
	if err != nil {
		return "", err
	}
	defer func() { _ = own.Close() }()
	nc, js, err := stream.Connect(own.ClientURL(), "devpilot-doctor", own.ConnectOption())
	if err != nil {
		return "", err
	}
	defer nc.Close()
	return installation.Look(ctx, kv.NewSession(js, stream.Settings{Installation: name}), keysets)
}

// copyTree copies what is there; files that vanish meanwhile are not.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(target, content, 0o600)
	})
}

// opsURL is where the program on this machine says whether it is ready.
func (x *exam) opsURL() string { return "http://" + allinone.Reachable(x.flags.OpsListen) + "/readyz" }

// askProcess asks the program on this machine whether it is ready.
func (x *exam) askProcess(ctx context.Context) (running bool, says string) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, x.opsURL(), http.NoBody)
	if err != nil {
		return false, ""
	}
	answer, err := x.client.Do(req)
	if err != nil {
		return false, hook.Cause(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err != nil || !strings.Contains(string(text), "ready") {
		return false, "what answers there is not this program"
	}
	return true, string(text)
}

// askForEmulator learns from the program that runs whether an emulator stands in for Bitbucket: `make run` asks for
// one by a flag where no OAuth consumer is set, which settings do not show.
func (x *exam) askForEmulator(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	info, err := checkup.AskInfo(ctx, x.client, "http://"+allinone.Reachable(x.flags.Listen))
	if err != nil || !info.Emulator {
		return
	}
	if site, err := url.Parse(info.BitbucketSiteURL); err == nil {
		x.flags.Emulator, x.flags.EmulatorListen = true, site.Host
	}
}

// process checks whether the program runs on this machine and is ready.
func (x *exam) process(context.Context) checkup.Check {
	running, says := x.running()
	if !running {
		return checkup.Skip("%s does not run on this machine: nothing of it answers at %s.", x.flags.Service, x.opsURL())
	}
	var not []string
	for line := range strings.Lines(says) {
		if trouble, found := strings.CutPrefix(line, "not ready"); found {
			not = append(not, strings.TrimSpace(trouble))
		}
	}
	if len(not) > 0 {
		return checkup.Fail(fmt.Sprintf("%s runs and is not ready: %s.", x.flags.Service, strings.Join(not, "; ")), "Mend what it names; its log says more.")
	}
	return checkup.Well("%s runs on this machine and is ready.", x.flags.Service)
}
