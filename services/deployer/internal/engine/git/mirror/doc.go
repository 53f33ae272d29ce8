// Package mirror fetches repositories, one commit over a connection of its own (engine/git/uploadpack) and all
// history with the git program, and keeps what it fetched
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
// What stands in a commit's place of submodules is engine/git/submodule's matter, each in a mirror of its
// own; what stands in that of LFS's pointers engine/git/lfs's; history in a release engine/git/history's.
// What of a commit is written into a directory, and how, is engine/git/tree's.
//
// What running git means, and what its end means, is engine/git/program's matter; branches and tags are
// listed without a mirror by engine/git/heads.
//
// Depends on engine/git/{address,heads,history,lfs,program,remote,submodule,tree,uploadpack}, pkg/seal and pkg/apierr's reasons.
package mirror
