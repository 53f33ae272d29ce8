package sandbox

import (
	"bytes"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// A sandboxed hook has no capabilities, so most of what could hurt fails anyway. The filter denies
// what does not need one:
//
//   - files with the set-user-id or set-group-id bit: written into the release or a shared directory,
//     where other users of the machine may see them, they would run as the worker's user or group. A
//     directory's set-group-id bit cannot be told apart here and is denied too. The call that hides its
//     arguments in memory (openat2) does as if the kernel did not have it, and programs fall back;
//   - sockets of other families than the usual ones: some, as those to the machine's hypervisor
//     (AF_VSOCK), know no namespaces, and attacks on the kernel begin with others;
//   - the kernel's key rings, which the worker's session shares with the hook;
//   - calls that builds do not need and that attacks on the kernel begin with;
//   - programs for another instruction set of the same processor (32 bit), whose call numbers differ.

// deny is a system call that fails.
type deny struct {
	call  uint32
	errno unix.Errno
	// Only if the argument of this number has one of these bits, and ifArg too. Zero bits: always.
	arg, bits     uint32
	ifArg, ifBits uint32
	// Only if the first argument is none of these. None: always.
	but []uint32
}

// families are the sockets that programs need: local ones, the internet's, and those by which they ask
// the kernel about their own network.
var families = []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

const (
	setID   = unix.S_ISUID | unix.S_ISGID
	creates = unix.O_CREAT | unix.O_TMPFILE&^unix.O_DIRECTORY
)

// denied are the calls that both architectures have; see also denyHere.
var denied = []deny{
	{call: unix.SYS_FCHMOD, errno: unix.EPERM, arg: 1, bits: setID},
	{call: unix.SYS_FCHMODAT, errno: unix.EPERM, arg: 2, bits: setID},
	{call: sysFchmodat2, errno: unix.EPERM, arg: 2, bits: setID},
	{call: unix.SYS_OPENAT, errno: unix.EPERM, arg: 3, bits: setID, ifArg: 2, ifBits: creates},
	{call: unix.SYS_MKNODAT, errno: unix.EPERM, arg: 2, bits: setID},
	{call: unix.SYS_SOCKET, errno: unix.EAFNOSUPPORT, but: families},
	{call: unix.SYS_SOCKETPAIR, errno: unix.EAFNOSUPPORT, but: families},
	{call: unix.SYS_OPENAT2, errno: unix.ENOSYS},
	{call: unix.SYS_ADD_KEY, errno: unix.ENOSYS},
	{call: unix.SYS_REQUEST_KEY, errno: unix.ENOSYS},
	{call: unix.SYS_KEYCTL, errno: unix.ENOSYS},
	{call: unix.SYS_IO_URING_SETUP, errno: unix.ENOSYS},
	{call: unix.SYS_BPF, errno: unix.EPERM},
	{call: unix.SYS_PERF_EVENT_OPEN, errno: unix.EPERM},
	{call: unix.SYS_USERFAULTFD, errno: unix.EPERM},
}

// sysFchmodat2 has one number everywhere (Linux 6.6).
const sysFchmodat2 = 452

// filter is what bubblewrap's --seccomp reads: the instructions, one after the other. Empty on an
// architecture whose calls are not listed here.
func filter() string {
	if auditArch == 0 {
		return ""
	}
	var b bytes.Buffer
	for _, i := range instructions() {
		_ = binary.Write(&b, binary.LittleEndian, i) // into memory, of fixed size
	}
	return b.String()
}

// instructions are the filter as struct sock_filter (seccomp(2)). They are not assembled by
// elastic/go-seccomp-bpf, whose verdicts differ (decisions/0019-our-own-seccomp-filter.md).
func instructions() []unix.SockFilter {
	const (
		callAt, archAt = 0, 4
		load           = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal          = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		atLeast        = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		anyBit         = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		answer         = unix.BPF_RET | unix.BPF_K
		firstX32       = 0x40000000 // amd64's calls with short pointers
	)
	argument := func(n uint32) uint32 { return 16 + 8*n } // its lower half: both are little-endian
	fail := func(e unix.Errno) unix.SockFilter {
		return unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(e)}
	}
	allow := unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ALLOW}
	program := []unix.SockFilter{
		{Code: load, K: archAt},
		{Code: equal, K: auditArch, Jt: 1},
		fail(unix.ENOSYS),
		{Code: load, K: callAt},
		{Code: atLeast, K: firstX32, Jf: 1},
		fail(unix.ENOSYS),
	}
	for _, d := range slices.Concat(denied, denyHere) {
		var body []unix.SockFilter
		for _, c := range []struct{ arg, bits uint32 }{{d.ifArg, d.ifBits}, {d.arg, d.bits}} {
			if c.bits != 0 {
				body = append(body, unix.SockFilter{Code: load, K: argument(c.arg)}, unix.SockFilter{Code: anyBit, K: c.bits, Jt: 1}, allow)
			}
		}
		for i, v := range d.but {
			if i == 0 {
				body = append(body, unix.SockFilter{Code: load, K: argument(0)})
			}
			body = append(body, unix.SockFilter{Code: equal, K: v, Jf: 1}, allow)
		}
		body = append(body, fail(d.errno))
		program = append(program, unix.SockFilter{Code: equal, K: d.call, Jf: uint8(len(body))})
		program = append(program, body...)
	}
	return append(program, allow)
}
