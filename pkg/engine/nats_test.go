package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
)

func start(t *testing.T, cfg NATSConfig) *NATS {
	t.Helper()
	if cfg.StoreDir == "" {
		cfg.StoreDir = t.TempDir()
	}
	n, err := StartNATS(t.Context(), cfg)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return n
}

func connect(t *testing.T, n *NATS) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect(n.ClientURL(), n.ConnectOption(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

// eventually is testkit.Eventually, which this package cannot import without a cycle.
func eventually(t *testing.T, timeout time.Duration, check func() error) {
	t.Helper()
	timeout *= 4 // timeout is what it takes a quiet machine at most
	deadline := time.Now().Add(timeout)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", timeout, err)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// DESIGN.md#jetstream: JetStream acknowledges before it syncs by default, and has lost acknowledged
// writes so.
func TestNATS_syncsEveryWrite(t *testing.T) {
	n := start(t, NATSConfig{CanaryInterval: -1})
	srv, err := n.server()
	if err != nil {
		t.Fatal(err)
	}
	if cfg := srv.JetStreamConfig(); cfg == nil || !cfg.SyncAlways {
		t.Fatalf("JetStream does not sync always: %+v", cfg)
	}
}

func TestNATS_hasNoListenerUnlessAsked(t *testing.T) {
	n := start(t, NATSConfig{CanaryInterval: -1})
	srv, err := n.server()
	if err != nil {
		t.Fatal(err)
	}
	if addr := srv.Addr(); addr != nil {
		t.Fatalf("listens on %v", addr)
	}
	if _, js := connect(t, n); js == nil {
		t.Fatal("no connection in process")
	}

	n = start(t, NATSConfig{CanaryInterval: -1, Listen: "127.0.0.1:0"})
	nc, err := nats.Connect(n.ClientURL())
	if err != nil {
		t.Fatalf("connect over TCP: %v", err)
	}
	nc.Close()
}

func TestNATS_clientsSurviveARestartInPlace(t *testing.T) {
	n := start(t, NATSConfig{CanaryInterval: -1})
	_, js := connect(t, n)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "s", []byte("before")); err != nil {
		t.Fatal(err)
	}
	if err := n.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, func() error {
		_, err := js.Publish(t.Context(), "s", []byte("after"), jetstream.WithMsgID("after"))
		return err
	})
	s, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.CachedInfo().State.Msgs; got != 2 {
		t.Fatalf("%d messages, want 2", got)
	}
	if n.Restarts() != 1 {
		t.Fatalf("%d restarts counted", n.Restarts())
	}
}

func TestNATS_oneProcessPerStore(t *testing.T) {
	dir := t.TempDir()
	n := start(t, NATSConfig{StoreDir: dir, CanaryInterval: -1})
	if _, err := StartNATS(t.Context(), NATSConfig{StoreDir: dir, CanaryInterval: -1}); !errors.Is(err, ErrStoreInUse) {
		t.Fatalf("second server on the same store: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.Ready(t.Context()); !errors.Is(err, ErrNotReady) {
		t.Fatalf("closed and ready: %v", err)
	}
	// What a killed process leaves is the file, never the lock.
	if _, err := os.Stat(filepath.Join(dir, ".lock")); err != nil {
		t.Fatal(err)
	}
	start(t, NATSConfig{StoreDir: dir, CanaryInterval: -1})
}

func TestNATS_canaryKeepsItReadyAndLeavesNoGoroutine(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	n, err := StartNATS(t.Context(), NATSConfig{StoreDir: t.TempDir(), CanaryInterval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	nc, js := connect(t, n)
	eventually(t, 10*time.Second, func() error {
		s, err := js.Stream(t.Context(), CanaryStream)
		if err != nil {
			return err
		}
		if s.CachedInfo().State.LastSeq < 5 {
			return errors.New("no writes of the canary yet")
		}
		return nil
	})
	if err := n.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatalf("second close: %v", err)
	}
	// nats-server's process-wide timers and resolvers are not ours to stop.
	eventually(t, 10*time.Second, func() error {
		return goleak.Find(leaks, goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.init.0.func1"))
	})
}

func TestNATS_fullStoreIsNotReadyAndNotRestarted(t *testing.T) {
	cfg := NATSConfig{StoreDir: t.TempDir(), MaxStore: 256 << 10, CanaryInterval: 10 * time.Millisecond}
	n := start(t, cfg)
	_, js := connect(t, n)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	var err error
	for range 100 {
		if _, err = js.Publish(t.Context(), "s", make([]byte, 16<<10)); err != nil {
			break
		}
	}
	if err == nil {
		t.Fatal("the store takes more than MaxStore")
	}
	eventually(t, 10*time.Second, func() error {
		if n.Ready(t.Context()) == nil {
			return errors.New("still ready with a full store")
		}
		return nil
	})
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = start(t, cfg) // it starts all the same: how else could it be emptied?
	if n.Ready(t.Context()) == nil {
		t.Fatal("ready with a full store")
	}
	_, js = connect(t, n)
	if err := js.DeleteStream(t.Context(), "S"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, func() error { return n.Ready(t.Context()) })
	if n.Restarts() != 0 {
		t.Fatalf("restarted %d times for a limit that a restart does not lift", n.Restarts())
	}
}

func TestNATS_stopAndStart(t *testing.T) {
	n := start(t, NATSConfig{CanaryInterval: -1, Listen: "127.0.0.1:0"})
	url := n.ClientURL()
	n.Stop()
	if err := n.Ready(t.Context()); !errors.Is(err, ErrNotReady) {
		t.Fatalf("stopped and ready: %v", err)
	}
	if _, err := nats.Connect(url); err == nil {
		t.Fatal("a stopped server answers")
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n.ClientURL() != url {
		t.Fatalf("came back on %s, not on %s", n.ClientURL(), url)
	}
	if err := n.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestNATS_startGivesUpWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if _, err := StartNATS(ctx, NATSConfig{StoreDir: dir}); err == nil {
		t.Fatal("started with a context that is done")
	}
	start(t, NATSConfig{StoreDir: dir, CanaryInterval: -1}) // the lock was given up
}

func TestNATS_canaryLeavesAStoppedServerAlone(t *testing.T) {
	n := start(t, NATSConfig{CanaryInterval: 20 * time.Millisecond, CanaryTimeout: 50 * time.Millisecond})
	n.Stop()
	before := n.Restarts()                         // on a busy machine the canary may have found it too slow until now
	deadline := time.After(500 * time.Millisecond) // many times what it takes the canary to restart a server that failed
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for waiting := true; waiting; {
		select {
		case <-deadline:
			waiting = false
		case <-tick.C:
			if _, err := n.InProcessConn(); err == nil || n.Restarts() != before {
				t.Fatalf("the canary restarted a server that was stopped on purpose (%d restarts)", n.Restarts()-before)
			}
		}
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, func() error { return n.Ready(t.Context()) })
}
