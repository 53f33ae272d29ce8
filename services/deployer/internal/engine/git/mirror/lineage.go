package mirror

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
)

// withoutBoundary has git take a commit's parents for what the commit says, although a fetch cut the
// history off there.
const withoutBoundary = "GIT_SHALLOW_FILE=/dev/null"

// maxLineage is how many commits are searched.
const maxLineage = 10_000

// Lacks tells whether it is known that the commit's history does not contain another commit. Nobody is
// asked: where the mirror has not all of the history, it is not known. Most pushes are told by the
// commit's parents alone.
func (s *Snapshot) Lacks(ctx context.Context, commit string) bool {
	switch parents := s.commit.Parents; {
	case commit == "", commit == s.commit.Hash, slices.Contains(parents, commit):
		return false
	case len(parents) == 0:
		return true
	}
	l := &lineage{wanted: commit}
	err := s.Local(ctx, program.Command{Operation: "rev-list", Stdout: l, Env: []string{withoutBoundary}, Args: []string{
		"rev-list", fmt.Sprintf("--max-count=%d", maxLineage), "--end-of-options", s.commit.Hash,
	}})
	return err == nil && l.seen < maxLineage // else it was found, or the rest is not here
}

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
