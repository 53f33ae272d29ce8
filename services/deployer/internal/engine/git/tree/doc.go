// Package tree lists the tree of a commit in a bare repository, holds it to our rules, and writes it into a
// directory. It fetches nothing, and knows no mirror and no lock: whoever calls it keeps the repository from
// going away.
//
// Repositories are expected to be hostile. Nothing of one is run: no hooks, no filters, no configuration.
// Trees are written by our own code, file by file, below an [os.Root]; symbolic links that leave the tree,
// odd names and sizes beyond the limits are refused before anything is written. Untidy objects that git
// clone takes are taken.
//
// A tree that was checked out can be written once more in the background, as a pristine copy with a
// manifest; the next commit's tree then is that copy with what differs changed (pristine.go). Only the
// manifest says what the copy holds, so that the repository need not have the old commit any more.
//
// Depends on engine/git/{address,program,remote}.
package tree
