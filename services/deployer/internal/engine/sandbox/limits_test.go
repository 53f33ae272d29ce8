package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// memoryHog holds much in many small processes, and waits.
const memoryHog = `for i in 1 2 3 4 5 6 7 8; do (head -c 12000000 /dev/zero | tail | sleep 1000) & done; sleep 1000`

func TestRun_memoryLimitCountsAllProcesses(t *testing.T) {
	t.Parallel()
	sideBySide(t, func(t *testing.T, r Runner) {
		res, text := run(t, r, memoryHog, func(s *Spec) { s.Limits.Memory = 64 << 20 })
		if !res.OutOfMemory || res.ExitCode != 137 || res.Duration > 10*time.Second || !strings.Contains(text, "notice: Killed: it used more than 64 MiB of memory.") {
			t.Fatalf("%+v %q", res, text)
		}
		// Below it: what is shared counts once.
		if res, text := run(t, r, memoryHog[:strings.LastIndex(memoryHog, ";")]+"; sleep 0.5", func(s *Spec) { s.Limits.Memory = 512 << 20 }); !res.OK() {
			t.Fatalf("%+v %q", res, text)
		}
	})
}

func TestSandbox_scratchSpaceIsMemory(t *testing.T) {
	t.Parallel()
	res, text := run(t, sandbox(t), "head -c 40M /dev/zero >/tmp/a; head -c 40M /dev/zero >$HOME/b; sleep 1000", func(s *Spec) { s.Limits.Memory = 64 << 20 })
	if !res.OutOfMemory {
		t.Fatalf("%+v %q", res, text)
	}
	res, text = run(t, sandbox(t), "head -c 100M /dev/zero >/dev/shm/a", func(s *Spec) { s.Limits.Memory = 64 << 20 })
	if res.OK() || !res.OutOfMemory && !strings.Contains(text, "No space left") {
		t.Fatalf("%+v %q", res, text)
	}
}

// bombs are what makes processes without end: as few words as it takes, one that leaves its session,
// one whose processes wait. A shell ends when it is refused a process; these have one that stays.
var bombs = map[string]string{
	"doubling": "bomb() { bomb | bomb & }; bomb; exec sleep 1000",
	"sessions": "printf 'setsid sh bomb & setsid sh bomb & sleep 1000' >bomb; (sh bomb) || exec sleep 1000",
	"waiting":  "(while :; do sleep 1000 & done) || exec sleep 1000",
}

func TestAlone_forkBombEnds(t *testing.T) {
	everywhere(t, func(t *testing.T, r Runner) {
		for name, command := range bombs {
			t.Run(name, func(t *testing.T) {
				res, text := run(t, r, command, func(s *Spec) { s.Limits.Processes = 120 })
				if !res.TooManyProcesses || !strings.Contains(text, "notice: Killed: more than 120 processes") {
					t.Fatalf("%+v …%q", res, text[max(0, len(text)-300):])
				}
				t.Log(res.Duration)
			})
		}
	})
}

// The limit holds while nobody watches: a bomb on a busy machine is faster than any watcher.
func TestAlone_processesAreBoundedByTheKernel(t *testing.T) {
	for name, prepare := range map[string]func(Spec) (*box, error){
		"sandbox":     func(s Spec) (*box, error) { return sandbox(t).prepare(t.Context(), s) },
		"unsandboxed": unsandboxed{DefaultSilenceTimeout}.start,
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Spec{Command: bombs["waiting"], Release: t.TempDir(), Limits: Limits{Processes: 50}}.check()
			if err != nil {
				t.Fatal(err)
			}
			b, err := prepare(s)
			if err != nil {
				t.Fatal(err)
			}
			defer b.close()
			if err := b.begin(); err != nil {
				t.Fatal(err)
			}
			said := make([]byte, 1000)
			n, err := b.stderr.Read(said) // "Cannot fork"
			if err != nil || n == 0 {
				t.Error(err)
			}
			most := s.Limits.most() + 1
			if name == "unsandboxed" && os.Getuid() != 0 {
				most = 3*s.Limits.Processes + 1
			}
			if u, err := b.usage(true); err != nil || u.tasks < s.Limits.Processes || u.tasks > most {
				t.Errorf("%+v %v", u, err)
			}
			b.kill()
			<-b.done
			if err := b.gone(10 * time.Second); err != nil {
				t.Error(err)
			}
			_ = b.stdout.Close()
			_ = b.stderr.Close()
		})
	}
}

func TestRun_fileSizeAndDiskReserve(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, r Runner) {
		dir := t.TempDir()
		res, _ := run(t, r, "head -c 10000000 /dev/zero >big", func(s *Spec) { s.Release, s.Limits.File = dir, 1<<20 })
		info, err := os.Stat(filepath.Join(dir, "big"))
		if res.OK() || err != nil || info.Size() != 1<<20 {
			t.Errorf("%+v %v", res, info)
		}
		res, text := run(t, r, "echo begun; sleep 1000", func(s *Spec) { s.Limits.DiskReserve = 1 << 60 })
		if !res.DiskFull || !strings.Contains(text, "left free on the disk") {
			t.Errorf("%+v %q", res, text)
		}
	})
}

// A hook that fills what outlives releases is ended for its own app's sake, and says so.
func TestRun_quota(t *testing.T) {
	t.Parallel()
	sideBySide(t, func(t *testing.T, r Runner) {
		uploads, others := t.TempDir(), t.TempDir()
		fill := "i=0; while :; do head -c 4000000 /dev/zero >" + uploads + "/$i; i=$((i+1)); sleep 0.02; done"
		res, text := run(t, r, fill, func(s *Spec) { s.Shared, s.Limits.Disk = []string{uploads}, 100<<20 })
		if !res.OverQuota || res.OK() || !strings.Contains(res.Problem(), "more of the disk") || !strings.Contains(text, "notice: Killed: the app, with its releases and shared paths, takes more than 100 MiB of the server's disk.") {
			t.Fatalf("%+v %q", res, text)
		}
		// Another app beside it is none the worse, nor is one that takes much and adds little.
		for path, disk := range map[string]int64{others: 100 << 20, uploads: 400 << 20} {
			if res, text := run(t, r, "head -c 40000000 /dev/zero >"+path+"/big; sleep 0.5", func(s *Spec) { s.Shared, s.Limits.Disk = []string{path}, disk }); !res.OK() {
				t.Errorf("%+v %q", res, text)
			}
		}
		// What counts is what the caller says.
		res, text = run(t, r, "head -c 40000000 /dev/zero >big; sleep 1000", func(s *Spec) { s.Counted, s.Limits.Disk = []string{uploads}, 100<<20 })
		if !res.OverQuota {
			t.Errorf("%+v %q", res, text)
		}
		// The default is a part of the disk, and there may be none.
		for _, disk := range []int64{0, -1} {
			if res, text := run(t, r, "head -c 40000000 /dev/zero >big; sleep 0.5", func(s *Spec) { s.Limits.Disk = disk }); !res.OK() {
				t.Errorf("%+v %q", res, text)
			}
		}
	})
}
