// Package submodule finds the submodules of a commit, and says which of them are brought.
//
// Of .gitmodules only paths, addresses and "update" are read; only repositories of the configured site are
// brought, and of the app's own Bitbucket workspace unless its settings name others. How one is brought is
// the caller's matter.
//
// Depends on engine/git/{address,program,remote,tree}.
package submodule
