// Package uploadpack talks to git's upload-pack on a server, in version 2 of git's protocol (git's
// documentation, gitprotocol-v2 and gitprotocol-http), over connections that stay open: it asks for
// branches and tags (ls-refs), as `git ls-remote` does, and for one commit with its tree (fetch), as
// `git fetch --depth=1` does, without the processes that those two take. It also counts the commits from one
// to another (Distance), of which only the number comes.
//
// A server that answers in an older version of the protocol, or that cannot cut history off, is left to
// the git program (ErrVersion). Redirects are not followed, so that the credential goes nowhere but
// where it was meant for. An answer is read as it comes, within a bound, and held to the protocol: what
// is none of git's, is cut off, is longer than allowed or comes too slowly is an error. A pack is passed
// on as it comes; whoever takes it must not believe it before the end was reached.
//
// It is our own because no library does it within bounds: go-git speaks version 2 since its version 6
// only, keeps all references in memory, and tells neither what a server said to people beside a
// refusal nor how long it asked to wait.
//
// Depends on net/http.
package uploadpack
