package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what the processes of a hook take.
type usage struct {
	processes int
	tasks     int   // threads included
	memory    int64 // bytes
}

// stat is what /proc/PID/stat says (proc_pid_stat(5)). We read five of its fields ourselves: prometheus/procfs
// reads all by fmt.Fscan and took 2 to 3 times as long for each process, with four times the allocations,
// and a hook is watched while it may start thousands a second.
type stat struct {
	parent, session, threads int
	resident                 int64 // bytes
	ended                    bool  // nobody has waited for it yet
}

func readStat(dir, pid string) (stat, bool) {
	b, err := os.ReadFile(dir + "/" + pid + "/stat")
	if err != nil {
		return stat{}, false // it ended meanwhile
	}
	// The name, field 2, may hold anything; the last parenthesis ends it. Fields count from 3 then.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 22 {
		return stat{}, false
	}
	number := func(field int) int64 {
		n, _ := strconv.ParseInt(f[field-3], 10, 64) // the kernel writes numbers
		return n
	}
	return stat{parent: int(number(4)), session: int(number(6)), threads: int(number(20)), resident: number(24) * int64(os.Getpagesize()), ended: f[0] == "Z" || f[0] == "X"}, true
}

// proportional is a process's memory with what it shares counted in parts, in bytes; it costs the
// kernel a walk over the page tables.
func proportional(dir, pid string) (int64, bool) {
	b, err := os.ReadFile(dir + "/" + pid + "/smaps_rollup")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n << 10, err == nil
		}
	}
	return 0, false
}

// processes lists the numbers of a proc file system.
func processes(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	pids := names[:0]
	for _, n := range names {
		if n[0] >= '0' && n[0] <= '9' {
			pids = append(pids, n)
		}
	}
	return pids, nil
}

// measure adds up processes. Memory that is shared (forks, libraries) is first counted as if it
// were not, which is cheap; only when that is more than most is it counted exactly.
func measure(dir string, pids []string, most int64) usage {
	u := usage{processes: len(pids)}
	for _, p := range pids {
		if s, ok := readStat(dir, p); ok {
			u.tasks += s.threads
			u.memory += s.resident
		}
	}
	if u.memory <= most {
		return u
	}
	u.memory = 0
	for _, p := range pids {
		if n, ok := proportional(dir, p); ok {
			u.memory += n
		} else if s, ok := readStat(dir, p); ok {
			u.memory += s.resident
		}
	}
	return u
}

// descendants are the processes that leader started, and those of its session.
func descendants(leader int) []string {
	pids, err := processes("/proc")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	ours := map[int]bool{leader: true}
	queue := []int{leader}
	for _, p := range pids {
		if s, ok := readStat("/proc", p); ok {
			n, _ := strconv.Atoi(p) // processes returns numbers
			children[s.parent] = append(children[s.parent], n)
			if s.session == leader && !ours[n] {
				ours[n] = true
				queue = append(queue, n)
			}
		}
	}
	var out []string
	for len(queue) > 0 {
		n := queue[0]
		queue = queue[1:]
		out = append(out, strconv.Itoa(n))
		for _, c := range children[n] {
			if !ours[c] {
				ours[c] = true
				queue = append(queue, c)
			}
		}
	}
	return out
}

// verdict is why a hook is killed; nil says that it may go on.
type verdict func(*Result) string

// watch measures the hook until it has ended, and returns its verdict when a limit is passed.
// Counting processes is cheap and done often: a fork bomb makes thousands a second.
func watch(b *box, s Spec) verdict {
	const often, everyFull = 25 * time.Millisecond, 4
	l := s.Limits
	ctx, cancel := context.WithCancel(context.Background())
	weighed := make(chan verdict, 1)
	var weighing sync.WaitGroup
	weighing.Go(func() { weighed <- weigh(ctx, s) })
	defer weighing.Wait()
	defer cancel()
	t := time.NewTicker(often)
	defer t.Stop()
	for n := 0; ; n++ {
		select {
		case <-b.done:
			return nil
		case v := <-weighed:
			if v != nil {
				return v
			}
		case <-t.C:
		}
		full := n%everyFull == 0
		u, err := b.usage(full)
		if b.tasks != nil {
			if n, terr := b.tasks(); terr == nil {
				u.tasks, err = max(u.tasks, n), nil
			}
		}
		switch {
		case err != nil: // not there yet, or no more
		case u.processes > l.Processes || u.tasks > l.Processes:
			return func(r *Result) string {
				r.TooManyProcesses = true
				return fmt.Sprintf("Killed: more than %d processes and threads at once.", l.Processes)
			}
		case u.memory > l.Memory:
			return func(r *Result) string {
				r.OutOfMemory = true
				return fmt.Sprintf("Killed: it used more than %s of memory.", size(l.Memory))
			}
		}
		if free, ok := freeSpace(s.Release); full && ok && free < l.DiskReserve {
			return func(r *Result) string {
				r.DiskFull = true
				return fmt.Sprintf("Killed: less than %s is left free on the disk of the release.", size(l.DiskReserve))
			}
		}
	}
}

// fewestFiles is how many more files a file system must have room for, where it has a fixed number.
const fewestFiles = 10_000

// freeSpace is what an ordinary user may still write, in bytes; none when there is no room for files.
func freeSpace(path string) (int64, bool) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return 0, false
	}
	if fs.Files > 0 && fs.Ffree < min(fewestFiles, fs.Files/100) {
		return 0, true
	}
	return int64(fs.Bavail) * fs.Bsize, true
}

// usedSpace is what a file system in memory takes, in bytes.
func usedSpace(path string) int64 {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return 0
	}
	return int64(fs.Blocks-fs.Bfree) * fs.Bsize
}

// setLimits bounds what one process of the hook may do; its children inherit the bounds and cannot
// raise them. It is called while the hook's first process still waits, so that no shell prologue
// with its own idea of units is needed (ulimit counts in 512 or 1024 bytes, and -u is -p in some).
//
// Address space is not bounded: Node, Go and Java reserve far more than they use. What a process
// makes its own (RLIMIT_DATA) is bounded at twice the limit: the watcher counts more exactly, this
// only bounds a burst between two of its looks.
func setLimits(pid int, l Limits) error {
	for _, r := range []struct {
		resource int
		value    uint64
	}{
		{unix.RLIMIT_CORE, 0},
		{unix.RLIMIT_FSIZE, uint64(l.File)},
		{unix.RLIMIT_DATA, 2 * uint64(l.Memory)},
		{unix.RLIMIT_MEMLOCK, 8 << 20},
		{unix.RLIMIT_MSGQUEUE, 0},
	} {
		if err := lower(pid, r.resource, r.value); err != nil {
			return err
		}
	}
	return nil
}

// lower sets a limit to value, or to what it already is if that is less.
func lower(pid, resource int, value uint64) error {
	var old unix.Rlimit
	if err := unix.Prlimit(pid, resource, nil, &old); err != nil {
		return fmt.Errorf("read resource limit %d: %w", resource, err)
	}
	value = min(value, old.Max)
	if err := unix.Prlimit(pid, resource, &unix.Rlimit{Cur: value, Max: value}, nil); err != nil {
		return fmt.Errorf("set resource limit %d: %w", resource, err)
	}
	return nil
}

// countsPerNamespace reports whether RLIMIT_NPROC counts within a user namespace (Linux 5.14 and
// newer). Before, it counts all processes of the user, the worker's own among them.
func countsPerNamespace() bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return false
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 5 || major == 5 && minor >= 14
}

// stepBack has the kernel prefer everything else on the machine: processors go to the worker and
// its stores first (nice 5), and when memory runs out, the hook is killed. Best effort.
func stepBack(pid int) {
	_ = unix.Setpriority(unix.PRIO_PROCESS, pid, 5)
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("1000"), 0)
}

// signalName names a signal as the kernel's documentation does; empty for none.
func signalName(code int) string {
	if code <= 128 || code > 128+31 {
		return ""
	}
	return syscall.Signal(code - 128).String()
}
