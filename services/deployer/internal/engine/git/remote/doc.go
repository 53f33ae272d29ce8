// Package remote is what is asked of a repository at Bitbucket, and what is said about it, without a copy
// of it: branches and tags, the error that tells people why it cannot be had and its reasons, and the token
// that it is asked with. It asks nobody itself: engine/git/heads and engine/git/mirror do.
//
// Depends on pkg/apierr's reasons and pkg/seal.
package remote
