// Package history reads the history of a commit that is in a bare repository, as far as it is there, and
// writes it into a release: a .git directory of its own, so that `git describe` and `git log` work in hooks.
//
// Depends on engine/git/{program,tree}.
package history
