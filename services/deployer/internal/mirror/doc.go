// Package mirror fetches repositories with the git program and checks commits out of them
// (design.md section 5, "Source control"; bitbucket.md section 8).
//
// A bare mirror per workspace and repository lives under the cache directory:
//
//	<cache-dir>/mirrors/<workspace>/<repository>/{git, write.lock, use.lock}
//
// One process fetches into a mirror at a time (write.lock); readers share use.lock, which is taken
// alone to throw a damaged mirror away. Every fetch asks Bitbucket with the workspace's own
// credential. The token reaches git over a socket that only the process and its children hold: not
// by URL, argument, environment, configuration or file.
//
// Repositories are expected to be hostile. Nothing of one is run: no hooks, no filters, no
// configuration. Trees are written by our own code, file by file, below an [os.Root]; symbolic
// links that leave the tree, odd names and sizes beyond the limits are refused before anything is
// written.
//
// Depends on the git program, pkg/seal and pkg/apierr's reasons.
package mirror
