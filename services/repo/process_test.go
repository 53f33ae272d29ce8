package repo_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/repo"
)

// written keeps what a process writes.
type written struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

// serving is where the process serves something, as its log says.
func (w *written) serving(t *testing.T, what string) (address string) {
	t.Helper()
	testkit.Eventually(t, 30*time.Second, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		for line := range strings.Lines(w.buf.String()) {
			var m struct{ Msg, Addr string }
			if json.Unmarshal([]byte(line), &m) == nil && m.Msg == "serving "+what {
				address = m.Addr
				return nil
			}
		}
		return fmt.Errorf("nothing serves %s:\n%s", what, w.buf.String())
	})
	return address
}

// The service keeps nothing in NATS: its process starts, is ready and serves where there is none, and not even its
// address is known.
func TestProcess_needsNoNATS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	keys, keyset := filepath.Join(dir, "identity.json"), filepath.Join(dir, "keyset.json")
	if _, err := identity.CreateKeysFile(keys, testkit.Services...); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.CreateKeysetFile(keyset); err != nil {
		t.Fatal(err)
	}
	log := &written{}
	p := servicemain.Process{Stdout: io.Discard, Stderr: log, Environ: []string{
		"DEVPILOT_REDIS_URL=" + testkit.Redis(t).URL(), "DEVPILOT_ENCRYPTION_KEYSET_FILE=" + keyset, "DEVPILOT_IDENTITY_KEY_FILE=" + keys,
		"DEVPILOT_AUTH_ADDR=127.0.0.1:1", "DEVPILOT_GRPC_LISTEN=127.0.0.1:0", "DEVPILOT_OPS_LISTEN=127.0.0.1:0", "DEVPILOT_DRAIN_DELAY=0s",
	}}
	ctx, cancel := context.WithCancel(context.Background())
	exit := make(chan int, 1)
	go func() { exit <- servicemain.Run(ctx, repo.Spec(), p) }()
	t.Cleanup(func() {
		cancel()
		if code := <-exit; code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
	readyz := "http://" + log.serving(t, "ops") + "/readyz"
	testkit.Eventually(t, 30*time.Second, func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, readyz, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%d %s %w", resp.StatusCode, body, err)
		}
		if strings.Contains(string(body), "nats") {
			t.Errorf("readiness is about NATS:\n%s", body)
		}
		return nil
	})
	conn, err := grpc.NewClient(log.serving(t, "grpc"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	testkit.Eventually(t, 30*time.Second, func() error {
		got, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil || got.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			return fmt.Errorf("health %v, %w", got, err)
		}
		return nil
	})
}
