package testkit_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

// syncsEnv makes the test binary the program whose disk is slow: it syncs a file again and again, and prints how long each sync took.
const syncsEnv = "DEVPILOT_TEST_SYNCS"

func TestSlowDisk_isSlowUntilItsEnd(t *testing.T) {
	if path := os.Getenv(syncsEnv); path != "" {
		syncs(t, path)
		return
	}
	longest := &longestSync{}
	p := testkit.StartProcess(t, "syncs", longest, func() *exec.Cmd {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), syncsEnv+"="+filepath.Join(t.TempDir(), "file"))
		return cmd
	})
	const longer = 300 * time.Millisecond
	goesOn := func() {
		t.Helper()
		before := longest.seen()
		testkit.Eventually(t, 10*time.Second, func() error {
			if longest.seen() < before+3 {
				return errors.New("the program does not go on")
			}
			return nil
		})
	}
	slow := func() {
		t.Helper()
		testkit.Eventually(t, 10*time.Second, func() error {
			if took := longest.take(); took < longer {
				return fmt.Errorf("no sync took longer than %v", took)
			}
			return nil
		})
	}
	goesOn()
	d := p.SlowDisk(t, longer)
	slow()
	if n := d.End(); n == 0 {
		t.Error("no call was slow")
	}
	goesOn()

	p.SlowDisk(t, longer) // and who slows it is killed
	slow()
	tracer := tracerOf(t, p.Pid())
	if err := syscall.Kill(tracer, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 10*time.Second, func() error {
		if by := tracerOf(t, p.Pid()); by != 0 {
			return fmt.Errorf("it is still traced by %d", by)
		}
		return nil
	})
	goesOn()
}

func tracerOf(t *testing.T, pid int) (tracer int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, by, _ := strings.Cut(string(status), "TracerPid:")
	if _, err := fmt.Sscan(by, &tracer); err != nil {
		t.Fatal(err)
	}
	return tracer
}

// syncs syncs a file until it is killed.
func syncs(t *testing.T, path string) {
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := f.WriteString("x"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Println(time.Since(began)); err != nil {
			return // nobody reads it any more
		}
		<-time.After(10 * time.Millisecond)
	}
}

// longestSync reads what the program prints. It is safe for concurrent use.
type longestSync struct {
	mu      sync.Mutex
	lines   int
	longest time.Duration
}

var _ io.Writer = (*longestSync)(nil)

func (l *longestSync) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(string(p)) {
		if took, err := time.ParseDuration(strings.TrimSpace(line)); err == nil {
			l.lines, l.longest = l.lines+1, max(l.longest, took)
		}
	}
	return len(p), nil
}

func (l *longestSync) seen() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines
}

// take is the longest since it was asked for last.
func (l *longestSync) take() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	took := l.longest
	l.longest = 0
	return took
}
