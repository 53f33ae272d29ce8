// Package release keeps the releases of apps in a server's data directory and switches `current`
// (DESIGN.md#the-switch).
//
//	<data-dir>/server.json                          the directory's random id and its server
//	<data-dir>/apps/<workspace>/<app>/epoch         the fence: who may switch; also the lock
//	<data-dir>/apps/<workspace>/<app>/current       -> releases/<number>[.<attempt>]
//	<data-dir>/apps/<workspace>/<app>/site.json     what of the releases is served, and how
//	<data-dir>/apps/<workspace>/<app>/releases/…    release directories, and the spare for the next
//	<data-dir>/apps/<workspace>/<app>/shared/…      what lasts from release to release
//
// Whoever starts an attempt first writes its epoch into the epoch file under an exclusive lock;
// the switch takes the same lock and checks that the epoch is still its own. A worker that slept
// through being replaced therefore changes nothing, on one machine or on several that share the
// volume. The epoch file of a deleted app stays behind as its fence.
//
// A spare is a pristine copy of the last deployment's tree, made in the background from the mirror
// and never from a release. The next deployment takes it as its release directory and changes what
// differs, so that it costs what was pushed and not what the repository holds. No file is ever in
// two releases: what is written in one reaches no other, but for the shared paths.
//
// Depends on the file system alone (flock, rename, symbolic links), all tested when it is opened.
package release
