package reconcile

import (
	"context"
	"errors"
	"fmt"

	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
)

// git asks by name, and names move on: another repository may answer under the one that this had. While
// a look finds what is known it does not matter who answered, since a commit's hash is its content. Before
// anything else that was found counts, the REST API is asked, by the repository's UUID, what it is called:
// one call for a look that found something, none for the others.

// errRenamed says that another repository, or none, has the name by now that a look asked for.
var errRenamed = errors.New("reconcile: the repository has another name by now")

// prove makes sure, once for each look, that the repository itself has answered.
func (r *Reconciler) prove(ctx context.Context, workspace, repository string, l *looking) error {
	if l.proven {
		return nil
	}
	name, err := r.cfg.Apps.Renamed(ctx, workspace, repository)
	if err != nil {
		return fmt.Errorf("reconcile: what was found does not count yet, the repository's name is not known for certain: %w", err)
	}
	if name != l.name {
		return fmt.Errorf("%w: %s, not %s", errRenamed, name, l.name)
	}
	l.proven = true
	return nil
}

// unnoted tells whether a look has something to note, beside changes: what matches a pattern for the
// first time, and what is not there any more.
func (s seen) unnoted(branches, tags lane.Found) bool {
	for _, f := range []struct {
		tags  bool
		found lane.Found
	}{{false, branches}, {true, tags}} {
		if len(f.found.Patterns) == 0 {
			continue
		}
		if !s.known.Complete(f.tags, f.found.Patterns) || s.known.Lacks(f.tags, f.found.Heads) {
			return true
		}
	}
	return false
}
