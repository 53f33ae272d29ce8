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

	"github.com/nats-io/nats-server/v2/server"

	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/engine"
	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/allinone"
)

// The embedded NATS has no address, and its files belong to the process that runs it: what can be known is
// read from the disk, and asked of the process.

func (x *exam) storeDir() string { return allinone.StoreDir(x.flags.DataDir) }

// hasStore tells whether there is a store in the data directory.
func (x *exam) hasStore() bool {
	_, err := os.Stat(filepath.Join(x.storeDir(), "jetstream"))
	return err == nil
}

// embeddedNATS tells of the NATS in the program.
func (x *exam) embeddedNATS(context.Context) Check {
	if running, _ := x.running(); running {
		return ok("Embedded, nats-server %s, in the program that runs here; see process for how it is.", server.VERSION)
	}
	if !x.hasStore() {
		return ok("Embedded, nats-server %s. The first start makes its store in %s.", server.VERSION, x.storeDir())
	}
	return ok("Embedded, nats-server %s, with its store in %s. The program does not run.", server.VERSION, x.storeDir())
}

// embeddedStorage checks that the volume can hold the store.
func (x *exam) embeddedStorage(context.Context) Check {
	need, smaller := x.flags.EmbeddedNeed(), ", or set a smaller DEVPILOT_STREAMS_MIB"
	if x.flags.StreamsMiB == 0 {
		smaller = "" // it is the least already
	}
	most, err := engine.MaxStore(x.storeDir(), need)
	var small *engine.VolumeError
	switch {
	case errors.As(err, &small):
		return failed(fmt.Sprintf("The volume of %s has %d MiB free, and a new store needs %d MiB (DEVPILOT_STREAMS_MIB is %d).", x.storeDir(), small.Free>>20, small.Need>>20, x.flags.StreamsMiB),
			"Make room, or name a directory on a larger volume with --data-dir (DEVPILOT_DATA_DIR)"+smaller+".")
	case err != nil:
		return failed(fmt.Sprintf("The volume of %s cannot be looked at: %v.", x.storeDir(), err), "Let this user read the data directory.")
	case most < need:
		return warning(fmt.Sprintf("The store may grow to %d MiB on its volume, and its streams and records may ask %d MiB (DEVPILOT_STREAMS_MIB is %d).", most>>20, need>>20, x.flags.StreamsMiB), "Make room on the volume before the streams are full.")
	}
	if size := stream.Fitting(most); x.flags.StreamsMiB == 0 {
		const found = "On disk; the volume lets the store grow to %d MiB, and its streams take %d MiB of that (DEVPILOT_STREAMS_MIB is not set)."
		if size < stream.DefaultBytes {
			return warning(fmt.Sprintf(found, most>>20, size>>20), "Make room on the volume before the next start: with less than 4096 MiB for streams logs of deployments may be kept for less long.")
		}
		return ok(found, most>>20, size>>20)
	}
	return ok("On disk; the volume lets the store grow to %d MiB, and %d MiB are asked (DEVPILOT_STREAMS_MIB is %d).", most>>20, need>>20, x.flags.StreamsMiB)
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
	ctx, cancel := context.WithTimeout(ctx, 2*monitorTimeout)
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
	ctx, cancel := context.WithTimeout(ctx, 2*monitorTimeout)
	defer cancel()
	info, err := x.askInfo(ctx, "http://"+allinone.Reachable(x.flags.Listen))
	if err != nil || !info.Emulator {
		return
	}
	if site, err := url.Parse(info.BitbucketSiteURL); err == nil {
		x.flags.Emulator, x.flags.EmulatorListen = true, site.Host
	}
}

// process checks whether the program runs on this machine and is ready.
func (x *exam) process(context.Context) Check {
	running, says := x.running()
	if !running {
		return skipped("%s does not run on this machine: nothing of it answers at %s.", x.flags.Service, x.opsURL())
	}
	var not []string
	for line := range strings.Lines(says) {
		if trouble, found := strings.CutPrefix(line, "not ready"); found {
			not = append(not, strings.TrimSpace(trouble))
		}
	}
	if len(not) > 0 {
		return failed(fmt.Sprintf("%s runs and is not ready: %s.", x.flags.Service, strings.Join(not, "; ")), "Mend what it names; its log says more.")
	}
	return ok("%s runs on this machine and is ready.", x.flags.Service)
}
