package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// diskFullEnv makes the test binary run the scenario instead of starting it.
const diskFullEnv = "DEVPILOT_TEST_DISK_FULL"

// DESIGN.md#jetstream: a full disk blocks a stream until restart. The full disk is a limit on the
// size of files, which is the process' own: the scenario therefore runs in a process of its own.
func TestNATS_restartsWhenADiskWasFull(t *testing.T) {
	if os.Getenv(diskFullEnv) != "" {
		diskFull(t)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), diskFullEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("%v\n%s", err, out)
	}
}

// limitFiles makes writes beyond size fail, as on a full disk; a huge size lifts the limit.
func limitFiles(t *testing.T, size uint64) {
	t.Helper()
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &lim); err != nil {
		t.Fatal(err)
	}
	lim.Cur = min(size, lim.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &lim); err != nil {
		t.Fatal(err)
	}
}

func diskFull(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	const unlimited = ^uint64(0)
	// The canary is stepped by hand, so that what is blocked can be read first.
	n := start(t, NATSConfig{CanaryInterval: time.Hour})
	_, js := connect(t, n)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	publish := func(timeout time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		_, err := js.Publish(ctx, "s", make([]byte, 32<<10), jetstream.WithRetryAttempts(0))
		return err
	}
	var acknowledged uint64
	for range 4 {
		if err := publish(30 * time.Second); err != nil {
			t.Fatal(err)
		}
		acknowledged++
	}
	limitFiles(t, 256<<10)
	var err error
	const blocked = 2500 * time.Millisecond // a blocked stream does not answer at all
	for range 20 {
		if err = publish(blocked); err != nil {
			break
		}
		acknowledged++
	}
	if err == nil {
		t.Fatal("the limit on file sizes has no effect")
	}
	limitFiles(t, unlimited)
	if err := publish(blocked); err == nil {
		t.Fatal("the stream takes messages again by itself: the canary's restart is not needed any more")
	}

	c := newCanary(n)
	if err := c.check(t.Context()); !errors.Is(err, errStreamBlocked) {
		t.Fatalf("the canary does not see the blocked stream: %v", err)
	}
	c.step(t.Context())
	if n.Restarts() != 1 {
		t.Fatalf("%d restarts", n.Restarts())
	}
	if err := n.Ready(t.Context()); err != nil {
		t.Fatalf("not ready after the restart: %v", err)
	}
	eventually(t, 10*time.Second, func() error { return publish(5 * time.Second) })
	s, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	// The message whose write failed may be there in part of its bytes only, and is dropped then.
	if got := s.CachedInfo().State.Msgs; got < acknowledged+1 {
		t.Fatal(fmt.Errorf("%d messages kept of %d acknowledged", got, acknowledged+1))
	}
}

func TestCanary_restartsAfterStrikesThatLast(t *testing.T) {
	if os.Getenv(diskFullEnv) != "" {
		return
	}
	n := start(t, NATSConfig{CanaryInterval: time.Hour, CanaryTimeout: time.Second})
	c := newCanary(n)
	n.stop() // as if it went down by itself, not by Stop
	c.step(t.Context())
	if n.Ready(t.Context()) == nil {
		t.Fatal("ready while the canary fails")
	}
	if n.Restarts() != 0 {
		t.Fatal("restarted after a single strike")
	}
	eventually(t, 10*time.Second, func() error {
		c.step(t.Context())
		if n.Restarts() != 1 {
			return fmt.Errorf("%d restarts", n.Restarts())
		}
		return nil
	})
	eventually(t, 10*time.Second, func() error {
		c.step(t.Context())
		return n.Ready(t.Context())
	})
}
