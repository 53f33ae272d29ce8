package sandbox

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// denyHere are the calls that only this architecture has: none.
var denyHere []deny
