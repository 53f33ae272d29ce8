package sandbox

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A watcher that looks now and then is no match for a fork bomb on a busy machine: the more processes
// there are, the longer a look takes and the less often it comes. So the kernel refuses a hook more
// processes than the watcher needs to see to know that there are too many. How depends on who we are:
//
//   - an ordinary user's limit on processes (RLIMIT_NPROC) counts within the sandbox's user namespace;
//     without a sandbox it counts all of the user's, so what is there already is added;
//   - user 0 has no such limit, but can have a control group for the hook (pids.max), wherever this
//     machine has them mounted, if at all;
//   - user 0 of a container that may not do that has the watcher alone, and its hooks get what is left
//     of the processors (nice 19): a bomb there had better meet the container's own limit.

// most is how many processes and threads of a hook the kernel allows: enough above the limit for the
// watcher to see that it was passed.
func (l Limits) most() int { return l.Processes + l.Processes/4 + 16 }

// bound bounds the processes of a hook whose first process waits. perNamespace says that it has a user
// namespace of its own, in which the kernel counts.
func (b *box) bound(first int, l Limits, perNamespace bool) error {
	switch {
	case os.Geteuid() != 0 && perNamespace:
		return lower(first, unix.RLIMIT_NPROC, uint64(l.most()))
	case os.Geteuid() != 0:
		before := tasksOf(os.Geteuid())
		b.suspected = func() bool { return tasksOf(os.Geteuid())-before > l.Processes }
		return lower(first, unix.RLIMIT_NPROC, uint64(3*l.Processes+before)) // others of the user come and go
	}
	g, err := newGroup(l.most())
	if err == nil {
		b.later(g.remove)
		err = g.add(first)
	}
	if err != nil { // not allowed here
		return unix.Setpriority(unix.PRIO_PROCESS, first, 19)
	}
	b.tasks = g.tasks
	return nil
}

// tasksOf counts the processes and threads of a user.
func tasksOf(uid int) int {
	pids, err := processes("/proc")
	if err != nil {
		return 0
	}
	n := 0
	for _, p := range pids {
		var st unix.Stat_t
		if unix.Stat("/proc/"+p, &st) == nil && int(st.Uid) == uid {
			if s, ok := readStat("/proc", p); ok {
				n += s.threads
			}
		}
	}
	return n
}

// group is a control group of one hook, which counts its processes. Control groups are read
// through a mount of our own that is nowhere in the file system.
type group struct {
	parent int // descriptor of the directory in which it was made
	name   string
}

// groupPrefix begins the names of our groups, and staleAfter is when an empty one was left by a dead worker.
const (
	groupPrefix = "devpilot-hook-"
	staleAfter  = time.Minute
)

// newGroup makes a control group in which there can be so many processes and threads.
func newGroup(most int) (*group, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	parent, err := unifiedGroup(string(own))
	if err != nil {
		var err1 error
		if parent, err1 = pidsGroup(string(own)); err1 != nil {
			return nil, fmt.Errorf("hook: no control groups that count processes: %w", errors.Join(err, err1))
		}
	}
	removeStale(parent)
	g := &group{parent, groupPrefix + rand.Text()}
	if err = unix.Mkdirat(parent, g.name, 0o755); err == nil {
		err = g.write("pids.max", most)
	}
	if err != nil {
		g.remove()
		return nil, err
	}
	return g, nil
}

// unifiedGroup opens where groups can be made that count processes (cgroups(7), version 2): the nearest
// above our own that hands that on, for one with processes in it cannot. The outermost can.
func unifiedGroup(own string) (int, error) {
	path, ok := ownGroup(own, "")
	if !ok {
		return -1, errors.New("version 2 is not there")
	}
	top, err := mountGroups("cgroup2", "")
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(top) }()
	hands := func(dir, file string) bool {
		text, err := readAt(top, filepath.Join(dir, file))
		return err == nil && slices.Contains(strings.Fields(text), "pids")
	}
	const handed = "cgroup.subtree_control"
	for dir := strings.TrimPrefix(path, "/"); ; dir = filepath.Dir(dir) {
		if dir == "" {
			dir = "."
		}
		if _, err := readAt(top, "cgroup.type"); dir == "." && err != nil && hands(dir, "cgroup.controllers") {
			_ = writeAt(top, handed, "+pids") // the outermost of all, which alone has no type
		}
		if hands(dir, handed) {
			return unix.Openat(top, dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
		if dir == "." {
			return -1, errors.New("version 2 does not count processes")
		}
	}
}

// pidsGroup opens our own group where each controller has a tree of its own (version 1).
func pidsGroup(own string) (int, error) {
	path, ok := ownGroup(own, "pids")
	if !ok {
		return -1, errors.New("version 1 does not count processes")
	}
	top, err := mountGroups("cgroup", "pids")
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(top) }()
	return unix.Openat(top, filepath.Join(".", path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// mountGroups mounts control groups, for the holder of its descriptor alone.
func mountGroups(kind, controller string) (int, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", kind, err)
	}
	defer func() { _ = unix.Close(fs) }()
	if controller != "" {
		err = unix.FsconfigSetFlag(fs, controller)
	}
	if err == nil {
		err = unix.FsconfigCreate(fs)
	}
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", kind, err)
	}
	top, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", kind, err)
	}
	return top, nil
}

// removeStale removes the groups of workers that died. One in use stays.
func removeStale(parent int) {
	fd, err := unix.Openat(parent, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	d := os.NewFile(uintptr(fd), "groups")
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, n := range names {
		var st unix.Stat_t
		if strings.HasPrefix(n, groupPrefix) && unix.Fstatat(parent, n, &st, 0) == nil && time.Since(time.Unix(st.Mtim.Unix())) > staleAfter {
			_ = unix.Unlinkat(parent, n, unix.AT_REMOVEDIR)
		}
	}
}

func (g *group) write(file string, n int) error {
	return writeAt(g.parent, g.name+"/"+file, strconv.Itoa(n))
}

// add moves a process into the group; what it starts is in it, too.
func (g *group) add(pid int) error { return g.write("cgroup.procs", pid) }

// tasks is how many processes and threads the group has.
func (g *group) tasks() (int, error) {
	text, err := readAt(g.parent, g.name+"/pids.current")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(text))
}

// remove removes the group once its last process has left it.
func (g *group) remove() {
	for range 200 {
		if err := unix.Unlinkat(g.parent, g.name, unix.AT_REMOVEDIR); !errors.Is(err, unix.EBUSY) {
			break
		}
		_, _ = unix.Poll(nil, 5)
	}
	_ = unix.Close(g.parent)
}

func openAt(dir int, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func readAt(dir int, name string) (string, error) {
	f, err := openAt(dir, name, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

func writeAt(dir int, name, text string) error {
	f, err := openAt(dir, name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// ownGroup finds a controller's line in /proc/self/cgroup; version 2 has none there.
func ownGroup(own, controller string) (string, bool) {
	for line := range strings.Lines(own) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && slices.Contains(strings.Split(f[1], ","), controller) {
			return f[2], true
		}
	}
	return "", false
}
