// Package mirror fetches repositories with the git program and keeps what it fetched
// (DESIGN.md#source-control; BITBUCKET.md#git).
//
// A bare mirror per workspace and repository lives under the cache directory:
//
//	<cache-dir>/mirrors/<workspace>/<repository>/{git, lfs, used, write.lock, use.lock}
//
// One process fetches into a mirror at a time (write.lock); readers share use.lock, which is taken
// alone to throw a mirror away, because it is damaged or to make room. Every fetch asks Bitbucket
// with the workspace's own credential.
//
// A mirror holds one commit of each branch that was deployed, and all history once somebody wanted
// it. Old heads stay for 30 days at least, held by the logs of its refs, so that a commit can be
// deployed again after its branch was forced elsewhere.
//
// Of .gitmodules only paths, addresses and "update" are read; only repositories of the configured site are
// fetched, and of the app's own Bitbucket workspace unless its settings name others, each into a mirror of
// its own. What of a commit is written into a directory, and how, is engine/git/tree's matter.
//
// LFS is spoken by a client of our own, not by the git-lfs program: LFS.md says why, and what was
// measured. Fetching needs one question and plain downloads, so that it is plain to see here that our
// credential goes to the configured site and nowhere else, that nothing unverified gets a name, and
// that each limit holds. A file is LFS's where .gitattributes says so, and nowhere else.
//
// What running git means, and what its end means, is engine/git/program's matter; branches and tags are
// listed without a mirror by engine/git/heads.
//
// Depends on engine/git/{address,heads,program,remote,tree}, pkg/seal and pkg/apierr's reasons.
package mirror
