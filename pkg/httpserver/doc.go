// Package httpserver makes the HTTP servers of all listeners: every read has a deadline, every write
// one for its next part, and connections are bounded, in all and per address.
//
// A connection waits while it has sent nothing, a part of a request, or nothing since its last
// answer. Where a new connection would go over a bound, the one that has waited longest is closed, so
// that whoever sends halves of requests pushes out nobody but such: a request that was sent whole is
// never cut for another. When none waits, the new one is closed.
//
// The bounds follow the limit on open files, of which a part stays for everything that is no
// connection.
//
// It depends on nothing of ours but pkg/logs.
package httpserver
