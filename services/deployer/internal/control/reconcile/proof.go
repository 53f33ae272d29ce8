package reconcile

import (
	"context"
	"errors"
	"fmt"

	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
)

// git asks by a repository's name, and a name can be given to another repository. While a poll
// finds only commits that are known, it does not matter which repository answered: a commit's hash
// is its content. Before anything new counts, the REST API is asked for the repository's name by
// its UUID: one call for a poll that found something, none for the others.

// errRenamed says that another repository, or none, has the name by now that a poll asked for.
var errRenamed = errors.New("reconcile: the repository has another name by now")

// prove makes sure, once for each poll, that the repository itself has answered.
func (r *Reconciler) prove(ctx context.Context, workspace, repository string, l *polling) error {
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

// unnoted tells whether a poll found something to note beside changes: a branch or tag that matches
// a pattern for the first time, or one that is missing.
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
