// Package sandbox runs deployment hooks: one shell command each, with its output handed out line by
// line while it runs.
//
// A [Runner] decides where a hook runs. [Sandbox] runs it under bubblewrap: in user, process,
// mount, network, IPC, host name and cgroup namespaces of its own, where only the system's
// programs, a made-up /etc, an empty /tmp and home and the release itself are there, and from where
// only the public internet can be reached. [NewUnsandboxed] runs it as an ordinary process of the
// worker's user; that is for a single workspace whose admins trust each other. Another Runner, one
// that makes a Kubernetes Job, fits the same interface.
//
// What a hook is told reaches it by file descriptor and environment only: neither its variables nor
// its command are ever in an argument list, which every user of the machine can read.
//
// Linux only. Of the deployer it depends on trees alone, beside it on pkg/pasted.
package sandbox
