// Package program runs the git program, the one way it is run here: with an environment of its own,
// without hooks, filters, prompts, redirects and other protocols than the site's, within limits of time,
// output and file size, and killed with all that it started. It also says what the end of a run means, in
// words for people: Bitbucket's answer, this machine's shortage, or damage of the repository that git
// worked on.
//
// The token reaches git over a socket that only it and its children hold (credential.go): not by URL,
// argument, environment, configuration or file.
//
// It knows no mirror, no lock and no directory but the one that it is told.
//
// Depends on the git program and engine/git/remote.
package program
