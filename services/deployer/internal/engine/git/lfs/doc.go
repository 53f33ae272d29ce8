// Package lfs brings what pointers of Git LFS point to (BITBUCKET.md#git).
//
// LFS is spoken by a client of our own, not by the git-lfs program: LFS.md says why, and what was
// measured. Fetching needs one question and plain downloads, so that it is plain to see here that our
// credential goes to the configured site and nowhere else, that nothing unverified gets a name, and
// that each limit holds. A file is LFS's where .gitattributes says so, and nowhere else.
//
// In the order in which it works: find.go finds the pointers of a tree, pointer.go reads one, store.go has
// the objects that are kept, client.go asks where the others are to be had, download.go brings them.
//
// Depends on engine/git/{address,program,remote,tree}, pkg/seal and pkg/apierr's reasons.
package lfs
