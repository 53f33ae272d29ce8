// Package rules decides whether a push deploys. It knows nothing of stores, Bitbucket or git: what
// the decision needs is handed in, and what is dear to know is asked for only when it matters.
//
// # Patterns
//
// Patterns are those of github.com/bmatcuk/doublestar: "*" and "?" stay within a path segment, "**"
// between slashes stands for any number of segments, none included, [abc], [a-z] and [!a] for one
// character, {a,b} for alternatives, and a backslash takes a character's meaning away. Case matters.
//
// A branch that is watched is a pattern when it has "*", "?" or "[", which no branch's name has
// (git-check-ref-format); no flag is needed. Since "*" stays within a segment, feature/* matches
// feature/a and not feature/a/b; feature/** matches both, and feature itself.
//
// Paths are those of the repository's root, also for an app in a sub-directory. A path without a
// special character stands for a file, or for a directory with all that is below: docs, docs/ and
// docs/** are the same. A path that exists literally, such as app/[id]/page.tsx, is matched by its
// own name too.
//
// # Rules
//
//   - BRANCH, TAG: the branch is the one watched or matches the pattern; the tag matches one of the
//     tag patterns. Without tag patterns tags do not deploy.
//   - SKIP_PHRASE: the message of the head commit has none of the phrases, anywhere in it, whatever
//     the case. Messages of the commits below the head do not count.
//   - PATHS: of the files that differ between the old and the new tree (both names of a renamed
//     one), those that paths_ignore matches are left out; at least one of the rest must match paths,
//     or be there at all where paths is empty. Two equal trees change nothing, so that with either
//     filter such a push does not deploy.
//
// A tag is set on purpose, and on a commit that was pushed before: neither skip phrases (which tools
// that release write into the very commit they tag) nor paths hold for it.
//
// # What cannot be known
//
// A filter that cannot be evaluated never turns a push away: the push deploys, and a note says why.
// That holds for a branch's first push, an old commit that is gone (or never was here), a list of
// changes that had to be cut, and trouble with asking. After a forced push the two trees are
// compared all the same: what counts is what the deployment would change.
package rules
