package sandbox

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// listed is what a call should get, read off the lists without any program.
func listed(arch, call uint32, args [6]uint64) uint32 {
	if arch != auditArch || call >= 0x40000000 {
		return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	}
	for _, d := range slices.Concat(denied, denyHere) {
		has := func(arg, bits uint32) bool { return bits == 0 || uint32(args[arg])&bits != 0 }
		if d.call == call && has(d.ifArg, d.ifBits) && has(d.arg, d.bits) && !slices.Contains(d.but, uint32(args[0])) {
			return unix.SECCOMP_RET_ERRNO | uint32(d.errno)
		}
	}
	return unix.SECCOMP_RET_ALLOW
}

// The program answers as the lists say for every call of every architecture, whatever a caller leaves in
// the upper halves of arguments, and also where an argument looks like the number of another call.
func TestFilter_verdictOfEveryCall(t *testing.T) {
	if auditArch == 0 {
		t.Fatal("there is no filter for this architecture")
	}
	var raw []bpf.RawInstruction
	for _, i := range instructions() {
		raw = append(raw, bpf.RawInstruction{Op: i.Code, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the program has instructions that nobody knows")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	values := []uint64{0, unix.AF_UNIX, unix.AF_INET, unix.AF_NETLINK, unix.AF_VSOCK, 0o755, 0o2755, 0o4755, unix.O_CREAT, unix.O_TMPFILE,
		unix.O_DIRECTORY, 0xffffffff, 1 << 32, 1<<32 | unix.AF_INET, 1<<43 | 0o755, 1<<32 | 0o4755, 0xffffffff00000000}
	asked := 0
	question := make([]byte, 64) // struct seccomp_data; the machine of x/net/bpf reads words as they come from a network
	for _, arch := range []uint32{auditArch, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_ARM, unix.AUDIT_ARCH_AARCH64} {
		for _, numbers := range []uint32{0, 0x40000000} {
			for call := numbers; call < numbers+600; call++ {
				for _, a := range values {
					for _, b := range values {
						for _, args := range [][6]uint64{{a, b, b, a}, {a, b, a, b}} {
							binary.BigEndian.PutUint32(question, call)
							binary.BigEndian.PutUint32(question[4:], arch)
							for i, v := range args {
								binary.BigEndian.PutUint32(question[16+8*i:], uint32(v))
								binary.BigEndian.PutUint32(question[20+8*i:], uint32(v>>32))
							}
							asked++
							got, err := vm.Run(question)
							if want := listed(arch, call, args); err != nil || uint32(got) != want {
								t.Fatalf("call %d of architecture %#x with %#x: %#x %v, want %#x", call, arch, args, got, err, want)
							}
						}
					}
				}
			}
		}
	}
	t.Logf("%d instructions, %d verdicts", len(raw), asked)
}
