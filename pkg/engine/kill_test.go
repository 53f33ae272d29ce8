package engine

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// killEnv names the store directory and makes the test binary the process that is killed.
const killEnv = "DEVPILOT_TEST_KILL"

// State survives kill -9: what was acknowledged is there, and the next process starts at once.
func TestNATS_survivesKill(t *testing.T) {
	if dir := os.Getenv(killEnv); dir != "" {
		publishForever(t, dir)
		return
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), killEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acknowledged uint64
	for lines := bufio.NewScanner(out); lines.Scan() && acknowledged < 200; {
		if n, ok := strings.CutPrefix(lines.Text(), "acknowledged "); ok {
			if acknowledged, err = strconv.ParseUint(n, 10, 64); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// It was killed: how it ended is no news.
	_ = cmd.Wait()
	if acknowledged < 200 {
		t.Fatalf("only %d messages were acknowledged", acknowledged)
	}

	n := start(t, NATSConfig{StoreDir: dir, CanaryInterval: -1})
	_, js := connect(t, n)
	s, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.CachedInfo().State.Msgs; got < acknowledged {
		t.Fatalf("%d messages kept of %d acknowledged", got, acknowledged)
	}
	if _, err := js.Publish(t.Context(), "s", nil); err != nil {
		t.Fatal(err)
	}
}

func publishForever(t *testing.T, dir string) {
	n, err := StartNATS(t.Context(), NATSConfig{StoreDir: dir, CanaryInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	_, js := connect(t, n)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	for {
		ack, err := js.Publish(t.Context(), "s", []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("acknowledged %d\n", ack.Sequence)
	}
}

func TestComputeMaxStore_leavesAReserve(t *testing.T) {
	dir := t.TempDir()
	free, err := freeBytes(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/used", make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	const slack = 512 << 20 // others write to the volume meanwhile
	near := func(got, want int64) bool { return got > want-slack && got < want+slack }
	if got, err := computeMaxStore(dir, free/4, 0); err != nil || !near(got, free-free/4) {
		t.Errorf("%d of %d free bytes, %v", got, free, err)
	}
	if got, err := computeMaxStore(dir, 2*free, 0); err != nil || !near(got, free/2) {
		t.Errorf("a reserve larger than the disk leaves %d of %d, %v", got, free, err)
	}
	if used, err := usedBytes(dir); err != nil || used != 1<<20 {
		t.Errorf("%d bytes used, %v", used, err)
	}
	if _, err := computeMaxStore(dir+"/absent", 0, 0); err == nil {
		t.Error("the free space of nowhere")
	}
}
