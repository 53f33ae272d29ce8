// Package lsrefs asks a git server for its branches and tags: the command ls-refs of git's protocol,
// version 2 (git's documentation, gitprotocol-v2 and gitprotocol-http), over connections that stay
// open. It does what `git ls-remote` does, without a process for each question.
//
// A server that answers in an older version of the protocol is left to the git program (ErrVersion).
// Redirects are not followed, so that the credential goes nowhere but where it was meant for. An
// answer is read as it comes, within a bound, and held to the protocol: what is none of git's, is cut
// off, or is longer than allowed, lists nothing.
//
// It is our own because no library does it within bounds: go-git speaks version 2 since its version 6
// only, keeps all references in memory, and tells neither what a server said to people beside a
// refusal nor how long it asked to wait.
//
// Depends on net/http.
package lsrefs
