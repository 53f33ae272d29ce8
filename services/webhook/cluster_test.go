package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/webhook"
)

// lines keeps what a process writes.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// runOn runs the service as its program does, over a cluster, until the test ends, and returns where its
// /readyz is.
func runOn(t *testing.T, c *testkit.NATSCluster) (readyz string, log *lines) {
	t.Helper()
	dir := t.TempDir()
	keys, keyset := filepath.Join(dir, "identity.json"), filepath.Join(dir, "keyset.json")
	if _, err := identity.CreateKeysFile(keys, testkit.Services...); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.CreateKeysetFile(keyset); err != nil {
		t.Fatal(err)
	}
	log = &lines{}
	p := servicemain.Process{Stdout: io.Discard, Stderr: log, Environ: []string{
		"DEVPILOT_NATS_URL=" + c.URL(), "DEVPILOT_NATS_REPLICAS=3", "DEVPILOT_REDIS_URL=" + testkit.Redis(t).URL(),
		"DEVPILOT_ENCRYPTION_KEYSET_FILE=" + keyset, "DEVPILOT_IDENTITY_KEY_FILE=" + keys, "DEVPILOT_AUTH_ADDR=127.0.0.1:1",
		"DEVPILOT_LISTEN=127.0.0.1:0", "DEVPILOT_GRPC_LISTEN=127.0.0.1:0", "DEVPILOT_OPS_LISTEN=127.0.0.1:0",
		"DEVPILOT_PUBLIC_URL=https://devpilot.example.com", "DEVPILOT_DRAIN_DELAY=0s",
	}}
	ctx, cancel := context.WithCancel(context.Background())
	exit := make(chan int, 1)
	go func() { exit <- servicemain.Run(ctx, webhook.Spec(), p) }()
	t.Cleanup(func() {
		cancel()
		<-exit
		if t.Failed() {
			t.Log(log.String())
		}
	})
	testkit.Eventually(t, timeout, func() error {
		for line := range strings.Lines(log.String()) {
			var m struct{ Msg, Addr string }
			if json.Unmarshal([]byte(line), &m) == nil && m.Msg == "serving ops" {
				readyz = "http://" + m.Addr + "/readyz"
				return nil
			}
		}
		return errors.New("nothing serves ops")
	})
	return readyz, log
}

// isReady asks once.
func isReady(t *testing.T, url string) (bool, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode == http.StatusOK, string(body)
}

func awaitReadyz(t *testing.T, url string, want bool) (body string) {
	t.Helper()
	testkit.Eventually(t, time.Minute, func() error {
		var is bool
		if is, body = isReady(t, url); is != want {
			return fmt.Errorf("ready: %t\n%s", is, body)
		}
		return nil
	})
	return body
}

// What is left of a cluster takes connections and answers, but no delivery: the service says so. That
// leaders hand over, as each does before its server stops, is no reason to.
func TestRun_isReadyWhileTheClusterTakesWrites(t *testing.T) {
	t.Parallel()
	c := testkit.Cluster(t, 3, 8<<30)
	readyz, log := runOn(t, c)
	awaitReadyz(t, readyz, true)
	for line := range strings.Lines(log.String()) {
		// A leader that was elected a moment ago may not have heard of the other servers yet.
		if strings.Contains(line, "stores not open yet") && !strings.Contains(line, "peer offline") {
			t.Errorf("the start on an empty cluster had to try again: %s", line)
		}
	}

	_, js := c.Connect()
	var streams []string
	for name := range js.StreamNames(t.Context()).Name() {
		streams = append(streams, name)
	}
	if len(streams) < 8 {
		t.Fatalf("the service has the streams %v", streams)
	}
	looked := 0
	for _, name := range streams {
		c.StepDown(name)
		for range 5 {
			looked++
			if is, body := isReady(t, readyz); !is {
				t.Fatalf("not ready while the leader of %s handed over:\n%s", name, body)
			}
		}
	}
	t.Logf("%d looks at %d streams whose leaders handed over", looked, len(streams))
	if strings.Contains(log.String(), "not ready any more") {
		t.Error("the process took itself for not ready meanwhile")
	}

	c.Stop(0)
	c.Stop(1)
	gone := time.Now()
	body := awaitReadyz(t, readyz, false)
	t.Logf("not ready %s after the majority was gone:\n%s", time.Since(gone).Round(100*time.Millisecond), body)
	if !strings.Contains(body, "not ready  nats: ") {
		t.Errorf("it is not NATS that it names:\n%s", body)
	}
	c.Start(0)
	awaitReadyz(t, readyz, true)
}
