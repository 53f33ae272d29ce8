package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/allinone"
)

// timeout bounds every wait. What it waits for takes a second or two on a quiet machine.
const timeout = 90 * time.Second

// The reconciler looks often, and gives deliveries long enough not to overtake them on a busy
// machine.
const (
	reconcileInterval = 3 * time.Second
	reconcileGrace    = 20 * time.Second
)

// workerLease is how long the work of a killed worker waits for another one: long enough for one that
// lives on a busy machine.
const workerLease = 5 * time.Second

// oneProcess is the product in this process, with its embedded engines.
type oneProcess struct {
	t       testing.TB
	bucket  *site
	dir     string
	log     recorder
	product *allinone.Product
}

func startInProcess(t testing.TB) stack {
	t.Helper()
	return startProcess(t, "debug")
}

// startProcess is startInProcess with the log level that is meant, and settings changed.
func startProcess(t testing.TB, level string, change ...func(*allinone.Settings)) *oneProcess {
	t.Helper()
	// Not a directory below /dev, however fast: hooks could not be shown it.
	s := &oneProcess{t: t, bucket: openSite(t), dir: filepath.Join(t.TempDir(), "data")}
	s.bucket.inProcess(t)
	logger, err := logs.New(&s.log, logs.FormatJSON, level)
	if err != nil {
		t.Fatal(err)
	}
	settings := allinone.Settings{}
	settings.LogLevel, settings.LogFormat = level, "json"
	settings.Listen, settings.OpsListen = "127.0.0.1:0", "127.0.0.1:0"
	settings.BitbucketClientID, settings.BitbucketClientSecret = consumer.Key, seal.NewSecret(consumer.Secret)
	settings.BitbucketSiteURL, settings.BitbucketAPIURL = s.bucket.address, s.bucket.address+"/2.0"
	settings.DataDir, settings.Server, settings.Workers, settings.Roles = s.dir, "default", 2, []string{"api", "worker"}
	settings.ReconcileInterval, settings.ReconcileGrace = reconcileInterval, reconcileGrace
	settings.LiveListen, settings.HookNetwork = "127.0.0.1:0", "none"
	for _, fn := range change {
		fn(&settings)
	}

	ctx, cancel := context.WithCancel(context.Background())
	if s.product, err = allinone.New(ctx, settings, logger); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.product.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the product ended with %v", err)
			}
		case <-time.After(timeout):
			t.Error("the product does not stop")
		}
	})
	awaitReady(t, s.product.OpsURL())
	if err := s.bucket.SetCallbackURL(t.Context(), s.url()+"/oauth/bitbucket/callback"); err != nil {
		t.Fatal(err)
	}
	return s
}

// awaitReady waits until a process says that it serves.
func awaitReady(t testing.TB, ops string) {
	t.Helper()
	testkit.Eventually(t, timeout, func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, ops+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			said, err := io.ReadAll(resp.Body)
			return errors.Join(fmt.Errorf("%s answers %d: %s", ops, resp.StatusCode, said), err)
		}
		return nil
	})
}

func (s *oneProcess) url() string      { return s.product.URL() }
func (s *oneProcess) site() *site      { return s.bucket }
func (s *oneProcess) releases() string { return s.dir }
func (s *oneProcess) liveURL() string  { return s.product.LiveURL() }
func (s *oneProcess) redisURL() string { return s.product.Redis().URL() }
func (s *oneProcess) output() string   { return s.log.String() }
func (s *oneProcess) pids() []int      { return []int{os.Getpid()} }
func (s *oneProcess) places() []string { return []string{s.dir} }

func (s *oneProcess) kept() []string {
	return []string{filepath.Join(s.dir, "admin.token"), filepath.Join(s.dir, "keys")}
}

func (s *oneProcess) adminToken() string {
	raw, err := os.ReadFile(allinone.AdminTokenFile(s.dir))
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

func (s *oneProcess) stopRedis() {
	s.product.Redis().FlushAll()
	s.product.Redis().Stop()
}

func (s *oneProcess) startRedis() {
	if err := s.product.Redis().Start(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *oneProcess) stopNATS() { s.product.NATS().Stop() }

func (s *oneProcess) startNATS() {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := s.product.NATS().Start(ctx); err != nil {
		s.t.Fatal(err)
	}
}

func (s *oneProcess) js(t testing.TB) jetstream.JetStream {
	t.Helper()
	nc, js, err := stream.Connect(s.product.NATS().ClientURL(), "e2e", s.product.NATS().ConnectOption())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return js
}
