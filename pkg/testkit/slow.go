package testkit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// SlowDisk is a disk that takes long for what one program writes through it.
type SlowDisk struct {
	t      testing.TB
	pid    int
	strace *Process
	said   bytes.Buffer // what strace said, once it has ended
	calls  string       // the file of the calls that were slowed
}

// SlowDisk has every sync of the program take so much longer until End, and every write at a place of a file a tenth of
// that. Programs that it starts meanwhile are as quick as ever. It ends with the test too, and when the tests' own process is
// killed: who traces goes then, and the kernel lets go what was traced.
func (p *Process) SlowDisk(t testing.TB, longer time.Duration) *SlowDisk {
	t.Helper()
	path := lookPath(t, "strace", "install it (Debian: strace)")
	d := &SlowDisk{t: t, pid: p.Pid(), calls: filepath.Join(t.TempDir(), "calls")}
	threads, err := d.threads()
	if err != nil {
		t.Fatalf("slow the disk of %s: %v", p.name, err)
	}
	delay := func(calls string, by time.Duration) []string {
		return []string{"-e", fmt.Sprintf("inject=%s:delay_exit=%d", calls, by.Microseconds())}
	}
	args := append([]string{"-qq", "-o", d.calls, "-p", strings.Join(threads, ","), "-e", "trace=fsync,fdatasync,pwrite64", "-e", "signal=none"},
		append(delay("fsync,fdatasync", longer), delay("pwrite64", longer/10)...)...)
	d.strace = StartProcess(t, "strace", &d.said, func() *exec.Cmd { return exec.Command(path, args...) })
	Eventually(t, startTimeout, func() error {
		if !d.strace.running() {
			t.Fatalf("strace may not trace %s; it needs root, or kernel.yama.ptrace_scope=0: %s", p.name, d.said.String())
		}
		traced, all := d.traced(threads)
		if traced < all || all == 0 {
			return fmt.Errorf("strace has %d of %d threads", traced, all)
		}
		return nil
	})
	return d
}

// End lets the disk be quick again, and says how many calls were slow.
func (d *SlowDisk) End() int {
	d.t.Helper()
	d.strace.Terminate()
	Eventually(d.t, startTimeout, func() error {
		threads, err := d.threads()
		if errors.Is(err, os.ErrNotExist) {
			return nil // the program has ended
		}
		if traced, _ := d.traced(threads); traced > 0 {
			err = fmt.Errorf("%d threads are still traced", traced)
		}
		return err
	})
	calls, err := os.ReadFile(d.calls)
	if err != nil {
		d.t.Fatalf("read which calls were slow: %v", err)
	}
	return bytes.Count(calls, []byte("(DELAYED)"))
}

// threads are the threads that the program has now.
func (d *SlowDisk) threads() (list []string, err error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", d.pid))
	for _, entry := range entries {
		list = append(list, entry.Name())
	}
	return list, err
}

// traced is how many of these threads are traced, and how many there are still.
func (d *SlowDisk) traced(threads []string) (traced, all int) {
	for _, thread := range threads {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", d.pid, thread))
		if err != nil {
			continue // the thread has ended
		}
		all++
		if !bytes.Contains(status, []byte("\nTracerPid:\t0\n")) {
			traced++
		}
	}
	return traced, all
}
