package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// insideVariable has the test program, run as a hook, try system calls.
const insideVariable = "HOOK_TEST_INSIDE"

// tryCalls prints how calls end that a hook makes in its release.
func tryCalls() {
	say := func(what string, err error) { fmt.Printf("%s: %v\n", what, err) }
	call := func(what string, number uintptr, args ...uintptr) {
		args = append(args, 0, 0, 0, 0, 0, 0)
		_, _, errno := syscall.Syscall6(number, args[0], args[1], args[2], args[3], args[4], args[5])
		say(what, errno)
	}
	_, err := os.Create("plain")
	say("create", err)
	say("chmod 0755", unix.Chmod("plain", 0o755))
	say("chmod 2755", unix.Chmod("plain", 0o2755))
	say("chmod 4755", unix.Chmod("plain", 0o4755))
	say("mkdir", unix.Mkdir("dir", 0o2755)) // the kernel takes the bit off
	say("chmod directory 2755", unix.Chmod("dir", 0o2755))
	say("fchmodat 4755", unix.Fchmodat(unix.AT_FDCWD, "plain", 0o4755, 0))
	say("fchmodat2 4755", unix.Fchmodat(unix.AT_FDCWD, "plain", 0o4755, unix.AT_SYMLINK_NOFOLLOW))
	fd, err := unix.Open("plain", unix.O_RDONLY, 0o4755) // no file is created: the mode means nothing
	say("open", err)
	say("fchmod 4755", unix.Fchmod(fd, 0o4755))
	_, err = unix.Open("created", unix.O_CREAT|unix.O_WRONLY, 0o4755)
	say("create 4755", err)
	_, err = unix.Open(".", unix.O_TMPFILE|unix.O_WRONLY, 0o4755)
	say("tmpfile 4755", err)
	say("mknod 4755", unix.Mknod("node", unix.S_IFREG|0o4755, 0))
	_, err = unix.Openat2(unix.AT_FDCWD, "two", &unix.OpenHow{Flags: unix.O_CREAT, Mode: 0o4755})
	say("openat2", err)
	_, err = unix.Open("created", unix.O_CREAT|unix.O_WRONLY, 0o2755)
	say("create 2755", err)
	for _, f := range []struct {
		name   string
		family int
	}{{"unix", unix.AF_UNIX}, {"inet", unix.AF_INET}, {"inet6", unix.AF_INET6}, {"netlink", unix.AF_NETLINK}, {"vsock", unix.AF_VSOCK}, {"alg", unix.AF_ALG}, {"tipc", unix.AF_TIPC}, {"packet", unix.AF_PACKET}, {"none", -1}} {
		kind := unix.SOCK_DGRAM
		if f.family == unix.AF_ALG {
			kind = unix.SOCK_SEQPACKET
		}
		_, err := unix.Socket(f.family, kind, 0)
		say("socket "+f.name, err)
	}
	_, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	say("socketpair unix", err)
	_, err = unix.Socketpair(unix.AF_TIPC, unix.SOCK_STREAM, 0)
	say("socketpair tipc", err)
	_, err = unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	say("keyctl", err)
	call("io_uring_setup", unix.SYS_IO_URING_SETUP, 8)
	call("bpf", unix.SYS_BPF)
	call("userfaultfd", unix.SYS_USERFAULTFD)
}

func TestSandbox_deniesCalls(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	x, err := NewSandbox(SandboxConfig{Network: NetworkNone, ReadOnly: []string{filepath.Dir(program)}})
	if err != nil {
		t.Fatal(err)
	}
	release := t.TempDir()
	res, text := run(t, x, program, func(s *Spec) { s.Release, s.Env = release, []string{insideVariable + "=1"} })
	if !res.OK() {
		t.Fatalf("%+v %s", res, text)
	}
	want := `create: <nil>
chmod 0755: <nil>
chmod 2755: operation not permitted
chmod 4755: operation not permitted
mkdir: <nil>
chmod directory 2755: operation not permitted
fchmodat 4755: operation not permitted
fchmodat2 4755: operation not permitted
open: <nil>
fchmod 4755: operation not permitted
create 4755: operation not permitted
tmpfile 4755: operation not permitted
mknod 4755: operation not permitted
openat2: function not implemented
create 2755: operation not permitted
socket unix: <nil>
socket inet: <nil>
socket inet6: <nil>
socket netlink: <nil>
socket vsock: address family not supported by protocol
socket alg: address family not supported by protocol
socket tipc: address family not supported by protocol
socket packet: address family not supported by protocol
socket none: address family not supported by protocol
socketpair unix: <nil>
socketpair tipc: address family not supported by protocol
keyctl: function not implemented
io_uring_setup: function not implemented
bpf: operation not permitted
userfaultfd: operation not permitted`
	if got := strings.ReplaceAll(text, "stdout: ", ""); got != want {
		t.Errorf("%s", got)
	}
	_ = filepath.Walk(release, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
		return nil
	})
}
