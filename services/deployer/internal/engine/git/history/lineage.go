package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
)

// WithoutBoundary has git take a commit's parents for what the commit says, although a fetch cut the
// history off there.
const WithoutBoundary = "GIT_SHALLOW_FILE=/dev/null"

// maxLineage is how many commits are searched.
const maxLineage = 10_000

// Lacks tells whether it is known that the history of the tree's commit does not contain another commit.
// Nobody is asked: where the repository has not all of the history, it is not known. Most pushes are told by the
// commit's parents alone.
func Lacks(ctx context.Context, t *tree.Tree, parents []string, commit string) bool {
	switch {
	case commit == "", commit == t.Commit, slices.Contains(parents, commit):
		return false
	case len(parents) == 0:
		return true
	}
	l := &lineage{wanted: commit}
	err := t.Local(ctx, program.Command{Operation: "rev-list", Stdout: l, Env: []string{WithoutBoundary}, Args: []string{
		"rev-list", fmt.Sprintf("--max-count=%d", maxLineage), "--end-of-options", t.Commit,
	}})
	return err == nil && l.seen < maxLineage // else it was found, or the rest is not here
}

var errFound = errors.New("history: found")

// lineage reads git's list of commits until the one that is wanted.
type lineage struct {
	wanted string
	line   []byte
	seen   int
}

func (l *lineage) Write(p []byte) (int, error) {
	l.line = append(l.line, p...)
	for {
		hash, rest, whole := bytes.Cut(l.line, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		if string(hash) == l.wanted {
			return 0, errFound
		}
		l.line, l.seen = rest, l.seen+1
	}
}
