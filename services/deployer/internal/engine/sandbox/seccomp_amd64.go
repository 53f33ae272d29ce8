package sandbox

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// denyHere are the older calls that only this architecture has.
var denyHere = []deny{
	{call: unix.SYS_CHMOD, errno: unix.EPERM, arg: 1, bits: setID},
	{call: unix.SYS_OPEN, errno: unix.EPERM, arg: 2, bits: setID, ifArg: 1, ifBits: creates},
	{call: unix.SYS_CREAT, errno: unix.EPERM, arg: 1, bits: setID},
	{call: unix.SYS_MKNOD, errno: unix.EPERM, arg: 1, bits: setID},
}
