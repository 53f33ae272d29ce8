package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/testkit"
)

// TestDevpilot_damagedStoreIsRefused turns six bytes of a stored record over while Devpilot is
// stopped: it does not start as if the record had never been, says what to do, and does so when told.
func TestDevpilot_damagedStoreIsRefused(t *testing.T) {
	t.Parallel()
	// A server that was stopped in peace believes its index of the file, and meets the damage when it
	// reads the record; without the index it reads the whole file at once.
	for bucket, index := range map[string]bool{
		"deployer-apps": true, "deployer-lanes": true, "deployer-deployments": false,
		"DEVPILOT_AUTH_INTEGRATIONS": true, "webhook-webhooks": false, "gateway_workspaces": false,
	} {
		t.Run(bucket, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(testkit.FastDir(t), "data")
			_, port, _ := strings.Cut(loopback(t), ":")
			d, address := startDaemon(t, dir, "DEVPILOT_EMULATOR=true", "DEVPILOT_EMULATOR_LISTEN=localhost:"+port)
			browser := newBrowser(t, address)
			token, err := os.ReadFile(filepath.Join(dir, "admin.token"))
			if err != nil {
				t.Fatal(err)
			}
			browser.signIn(strings.TrimSpace(string(token)))
			browser.connect("default", "grant")
			n := &tenant{shared: &shared{stack: &outside{daemon: d, address: address}}, t: t, api: browser, workspace: "default"}
			n.app("web", repository{name: "acme/web", id: emulator.SeededUUID("repository", "acme/web")}, "main")
			hash, err := emulator.NewControl("http://localhost:"+port).Commit(t.Context(), "acme/web", "main", "one", map[string]string{"index.html": "1\n"})
			if err != nil {
				t.Fatal(err)
			}
			n.live("web", hash)
			d.terminate()

			damage(t, dir, bucket, index)
			logged := len(d.log.String())
			ended := func() error {
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				defer cancel()
				cmd := exec.CommandContext(ctx, program(t, "devpilot")) // our own program
				cmd.Env, cmd.Stdout, cmd.Stderr = append(cleanEnviron(), d.env...), &d.log, &d.log
				cmd.WaitDelay = 5 * time.Second
				return cmd.Run()
			}()
			var exit *exec.ExitError
			said := d.log.String()[logged:]
			if !errors.As(ended, &exit) || exit.ExitCode() != 1 || !strings.Contains(said, "records of bucket "+bucket+" were lost") || !strings.Contains(said, "devpilot accept-loss "+bucket) {
				t.Fatalf("a damaged store: %v\n%s", ended, tail(said, 3000))
			}

			out, err := exec.CommandContext(t.Context(), program(t, "devpilot"), "accept-loss", "--data-dir", dir, bucket).CombinedOutput() // our own program
			if err != nil || !strings.Contains(string(out), "Bucket "+bucket+" is taken as it is") {
				t.Fatalf("accept-loss: %v: %s", err, out)
			}
			d.start()
			d.terminate()
		})
	}
}

// damage turns six bytes over in the last record that a bucket's stream holds a value in, and removes the
// server's index of the file unless it is to stay. What may stand behind the record in the file only says
// that older values are gone.
func damage(t *testing.T, dir, bucket string, index bool) {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(dir, "nats", "jetstream", "$G", "streams", "KV_"+bucket, "msgs", "*.blk"))
	if err != nil || len(blocks) == 0 {
		t.Fatalf("no files of bucket %s: %v", bucket, err)
	}
	// A record is its length, sequence, time and the length of the subject, then subject and value, and a
	// checksum.
	const head, sum = 22, 8
	subject := []byte("$KV." + bucket + ".")
	for _, path := range slices.Backward(blocks) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.LastIndex(data, subject)
		if at < head {
			continue
		}
		length := int(binary.LittleEndian.Uint32(data[at-head:]) &^ (3 << 30)) // the upper bits are marks
		end := at - head + length - sum
		if end > len(data) || end < at+len(subject) {
			t.Fatalf("%s: a record of %d bytes at %d of %d", path, length, at-head, len(data))
		}
		for i := range 6 {
			data[end-6+i] ^= 0xff
		}
		if err := os.WriteFile(path, data, 0o600); err != nil { // found above
			t.Fatal(err)
		}
		if index {
			return
		}
		if err := os.Remove(filepath.Join(filepath.Dir(path), "index.db")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no record of bucket %s", bucket)
}
