// Package hosting serves kept releases read-only, each at a host name of its own: the live release of an
// app at <app>.<workspace>.<live-host>, a kept one at <number>--<app>.<workspace>.<live-host>.
//
// The listener and the host belong to the operator and are never the console's: what a repository holds
// is somebody else's code, and must not run on the origin where people are signed in (see [CheckHost]).
// A certificate for https needs one wildcard per workspace, *.<workspace>.<live-host>. Each host name is
// an origin of its own, but browsers let a page set cookies for the names above it: where workspaces do
// not trust each other, the live host belongs on the public suffix list.
//
// # What is reachable
//
// Only regular files below the app's serve.directory. Symbolic links are resolved here, component by
// component, and never by the kernel, so that a link is followed only to a place inside serve.directory:
// build secrets lie beside it. serve.directory itself must not be reached through a link. Names that begin with a dot are not served (but /.well-known/ is), nor are /_headers and
// /_redirects, also when a link leads there. FIFOs, sockets and devices are never opened.
//
// A shared directory of the app ([Shared]) is served where its link stands inside serve.directory. Such a
// link is not followed either: it has to say exactly what the deployment wrote at that place, and then
// the app's own directory of that name is opened, below which the same rules hold and from which no link
// leads out. Shared single files, such as .env, are not served.
//
// # Validators
//
// The ETag is a digest of the content, remembered by the file's identity (inode, size, times): a
// deployment that leaves a file as it was leaves its ETag, too, and browsers revalidate with a 304 after
// every deployment and rollback. Files over [maxDigest] bytes are not read for it; their ETag is made
// from the release's version and the file's identity. Each coding has its own ETag. If-Modified-Since
// counts only when it names exactly our Last-Modified: a rollback brings older files back, which a
// comparison "not newer than" would call unmodified.
//
// Shared files change in place. What is remembered of one is remembered by an identity that every change
// alters, once the file was left alone for [sharedSettleTime]; a younger one is read anew for each
// request, and one over [maxCompress] bytes then has no ETag. They have no Last-Modified, which programs
// set back. An answer whose file changes breaks off, so that nobody keeps a mixture of two states.
//
// # Compression
//
// Text-like files from [minCompress] to [maxCompress] bytes are compressed whole (zstd, gzip) on first
// use and kept in a cache bounded in bytes, keyed by the content's digest. No request waits for a
// compression slot: while all are busy the file goes out as it is. A file beside it, app.js.br,
// app.js.zst or app.js.gz, is preferred once it was seen to unpack to exactly the bytes of app.js:
// times say nothing in a tree that was checked out a moment ago. A request with a Range is answered
// from the plain file.
//
// # Releases of other servers
//
// Where [Sites] says that another server has the release ([ElsewhereError]), a worker of that server is asked
// in the visitor's place, once, at an address that it announced: see forward.go and peers.go. Neither the
// visitor's request nor another program at that address decides what is answered.
//
// The package depends on the standard library, klauspost/compress, andybalholm/brotli, hashicorp/golang-lru,
// pkg/logs and on a source of releases, [Sites].
package hosting
