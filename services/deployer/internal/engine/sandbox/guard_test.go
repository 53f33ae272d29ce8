package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

// A worker that is stopped, not killed, may have lost its lease: its hook must not go on beside the
// one of whoever has it now.
func TestRun_endsWhileItsWorkerStandsStill(t *testing.T) {
	t.Parallel()
	for runner, command := range map[string]string{
		"sandbox": stubborn, "internet": stubborn,
		"unsandboxed": strings.ReplaceAll(stubborn, "setsid ", ""), // see NewUnsandboxed
	} {
		t.Run(runner, func(t *testing.T) {
			t.Parallel()
			mark := "STILL_MARK=" + filepath.Base(t.TempDir()) + runner
			cmd := worker(t, order{
				Runner: runner, SilenceTimeout: 4 * time.Second,
				Spec: Spec{Command: command, Release: t.TempDir(), Env: []string{mark, "PATH=/nowhere:/usr/bin:/bin"}, Limits: Limits{DiskReserve: 1}},
			})
			out := newLines()
			cmd.Stdout, cmd.Stderr = writer{out}, writer{out}
			cmd.WaitDelay = 5 * time.Second
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			out.await(t, "ready")
			// Longer than the silence that is borne it goes on while its worker lives.
			for began := time.Now(); time.Since(began) < 5*time.Second; <-time.After(200 * time.Millisecond) {
				if n := len(carriers(t, mark)); n < 4 {
					t.Fatalf("only %d processes are seen", n)
				}
			}
			if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			testkit.Eventually(t, 10*time.Second, func() error {
				if left := carriers(t, mark); len(left) > 0 {
					return fmt.Errorf("left: %q", left)
				}
				return nil
			})
			if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil || !strings.Contains(out.text(), ErrStalled.Error()) {
				t.Errorf("%v: %s", err, out.text())
			}
		})
	}
}

// A guard that its hook can end is none: the hook would go on beside the one of whoever has the lease now.
func TestRun_endsThoughItEndedWhatItReaches(t *testing.T) {
	t.Parallel()
	for runner, reach := range map[string]string{
		"sandbox":     "kill -KILL -1 || true",                                                                                                                                 // all but itself and process 1
		"unsandboxed": `for p in $(ls /proc | grep '^[0-9]'); do s=$(cut -d' ' -f6 /proc/$p/stat 2>/dev/null) && [ "$s" = $$ ] && [ $p != $$ ] && kill -KILL $p || true; done`, // all of its session
	} {
		t.Run(runner, func(t *testing.T) {
			t.Parallel()
			mark := "REACH_MARK=" + filepath.Base(t.TempDir()) + runner
			cmd := worker(t, order{
				Runner: runner, SilenceTimeout: 4 * time.Second,
				Spec: Spec{Command: "trap '' TERM\n" + reach + "\necho ready\nwhile :; do sleep 1; done", Release: t.TempDir(), Env: []string{mark}, Limits: Limits{DiskReserve: 1}},
			})
			out := newLines()
			cmd.Stdout, cmd.Stderr = writer{out}, writer{out}
			cmd.WaitDelay = 5 * time.Second
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			out.await(t, "ready")
			if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			testkit.Eventually(t, 15*time.Second, func() error {
				if left := carriers(t, mark); len(left) > 0 {
					return fmt.Errorf("left: %q", left)
				}
				return nil
			})
			if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil || !strings.Contains(out.text(), ErrStalled.Error()) {
				t.Errorf("%v: %s", err, out.text())
			}
		})
	}
}

// Without a sandbox a hook can reach its guard all the same; then it is over. Not beside others, whose
// guards it would end.
func TestUnsandboxed_doesNotOutliveItsGuard(t *testing.T) {
	res, text := run(t, NewUnsandboxed(0), fmt.Sprintf(`for p in $(grep -lzx guard /proc/[0-9]*/cmdline 2>/dev/null); do
	p=${p%%/cmdline}; grep -qx "PPid:	%d" $p/status && kill -KILL ${p#/proc/}
done
sleep 1000`, os.Getpid()))
	if res.OK() || res.Duration > 15*time.Second || !strings.Contains(text, "notice: Killed: the process that watches over it") {
		t.Fatalf("%+v %s", res, text)
	}
}

func TestPulse_givesSignsOfLifeUntilItIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := &wire{}
		p := beat(line, 10*time.Second)
		<-time.After(time.Minute + time.Second)
		synctest.Wait()
		if n := line.Len(); n != 30 || line.closed {
			t.Errorf("%d signs of life in a minute, closed: %t", n, line.closed)
		}
		p.stop()
		p.stop()
		<-time.After(time.Minute)
		if n := line.Len(); n != 30 || !line.closed {
			t.Errorf("%d signs of life, closed: %t", n, line.closed)
		}
	})
}

// wire is a line that nobody reads.
type wire struct {
	bytes.Buffer
	closed bool
}

func (w *wire) Close() error {
	w.closed = true
	return nil
}

func TestSilenceTimeout_isInWholeSeconds(t *testing.T) {
	for in, want := range map[time.Duration]string{0: "15", time.Millisecond: "1", 1900 * time.Millisecond: "1", time.Minute: "60"} {
		if got := seconds(silenceTimeout(in)); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}
