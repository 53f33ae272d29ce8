package apps

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/services/deployer/internal/record/reminder"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
)

// RepositoryKey is the key of a repository's index.
func RepositoryKey(workspace, repository string) string { return workspace + "." + repository }

// Index returns a repository's index, empty when nobody ever watched it.
func (r *Records) Index(ctx context.Context, workspace, repository string) (*storev1.RepositoryIndex, error) {
	idx, _, err := r.Store.Repositories.Get(ctx, RepositoryKey(workspace, repository))
	if isAbsent(err) {
		return &storev1.RepositoryIndex{Workspace: workspace, Repository: repository}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("apps: read the index of repository %s: %w", repository, err)
	}
	if r.Learn != nil {
		r.Learn(workspace, idx.GetFullName(), idx.GetBitbucketWorkspace())
	}
	return idx, nil
}

// ChangeIndex changes a repository's index and returns its revision. Where the set that webhook has to
// know changes, its version grows; somebody is then sure to hand it over, because the reminder is
// written first.
func (r *Records) ChangeIndex(ctx context.Context, workspace, repository string, fn func(*storev1.RepositoryIndex)) (uint64, error) {
	grown, touched := false, false
	_, rev, err := r.Store.Repositories.UpdateAfter(ctx, RepositoryKey(workspace, repository), func(idx *storev1.RepositoryIndex) (*storev1.RepositoryIndex, error) {
		if idx == nil {
			idx = &storev1.RepositoryIndex{Workspace: workspace, Repository: repository}
		}
		before := handed(idx)
		fn(idx)
		if grown = !slices.Equal(before, handed(idx)); grown {
			idx.Version++
		}
		return idx, nil
	}, func(ctx context.Context) error {
		if !grown || touched {
			return nil
		}
		touched = true
		return r.touchWatches(ctx, workspace, repository)
	})
	if err != nil {
		return 0, fmt.Errorf("apps: change the index of repository %s: %w", repository, err)
	}
	return rev, nil
}

// handed is the set that webhook knows, in a form that can be compared.
func handed(idx *storev1.RepositoryIndex) []string {
	var out []string
	for _, w := range idx.GetWatches() {
		if w.GetAutoDeploy() {
			out = append(out, w.GetApp()+" "+w.GetBranch())
		}
	}
	if len(out) > 0 {
		out = append(out, "named "+idx.GetFullName(), "in "+idx.GetBitbucketWorkspace())
	}
	sort.Strings(out)
	return slices.Compact(out)
}

// FullName is the repository's name as last known. Where a delivery gave another one, Bitbucket is asked
// first: which of the two is older, only Bitbucket knows. It is asked once, however many need the name.
func (r *Records) FullName(ctx context.Context, workspace, repository string) (string, error) {
	idx, err := r.Index(ctx, workspace, repository)
	if err != nil {
		return "", err
	}
	if known(idx) {
		return idx.GetFullName(), nil
	}
	unlock, err := r.naming.Lock(ctx, RepositoryKey(workspace, repository))
	if err != nil {
		return "", err
	}
	defer unlock()
	if idx, err = r.Index(ctx, workspace, repository); err != nil || known(idx) {
		return idx.GetFullName(), err
	}
	return r.Renamed(ctx, workspace, repository)
}

// known tells whether a repository's name is known, and not in doubt.
func known(idx *storev1.RepositoryIndex) bool {
	return idx.GetFullName() != "" && idx.GetDoubtedBy() == ""
}

// Renamed asks Bitbucket for the repository's name of today and remembers it.
func (r *Records) Renamed(ctx context.Context, workspace, repository string) (string, error) {
	found, err := r.Repositories.Repository(ctx, workspace, repository)
	if err != nil {
		return "", err
	}
	return found.GetFullName(), r.Named(ctx, workspace, found)
}

// Named remembers the repository's name and the Bitbucket workspace that it is in, as Bitbucket tells them
// now, and has webhook told.
func (r *Records) Named(ctx context.Context, workspace string, found *repov1.Repository) error {
	repository, fullName, place := found.GetId(), found.GetFullName(), found.GetBitbucketWorkspaceId()
	idx, err := r.Index(ctx, workspace, repository)
	if err != nil || fullName == "" || len(idx.GetWatches()) == 0 || idx.GetFullName() == fullName && idx.GetDoubtedBy() == "" && idx.GetBitbucketWorkspace() == place {
		return err
	}
	_, err = r.ChangeIndex(ctx, workspace, repository, func(idx *storev1.RepositoryIndex) {
		if was := idx.GetFullName(); was != "" && was != fullName {
			idx.FormerName, idx.RenamedTime = was, timestamppb.New(r.Now())
		}
		idx.FullName, idx.DoubtedBy, idx.BitbucketWorkspace = fullName, "", place
	})
	return err
}

// NameGiven takes the name that a delivery gives the repository. It may be of yesterday: one that is not
// the known one makes the next who needs the name ask Bitbucket, and sets nothing by itself.
func (r *Records) NameGiven(ctx context.Context, workspace, repository, fullName string) error {
	_, _, err := r.Store.Repositories.Update(ctx, RepositoryKey(workspace, repository), func(idx *storev1.RepositoryIndex) (*storev1.RepositoryIndex, error) {
		if idx == nil || fullName == "" || idx.GetFullName() == fullName || idx.GetDoubtedBy() == fullName {
			return nil, kv.ErrSkip
		}
		idx.DoubtedBy = fullName
		return idx, nil
	})
	if err != nil {
		return fmt.Errorf("apps: note a repository's name: %w", err)
	}
	return nil
}

// Reached notes whether the connected account can reach the repository; nil when it can.
func (r *Records) Reached(ctx context.Context, workspace, repository string, trouble *storev1.Trouble) error {
	_, _, err := r.Store.Repositories.Update(ctx, RepositoryKey(workspace, repository), func(idx *storev1.RepositoryIndex) (*storev1.RepositoryIndex, error) {
		if idx == nil || idx.GetUnreachable().GetReason() == trouble.GetReason() {
			return nil, kv.ErrSkip
		}
		idx.Unreachable = trouble
		return idx, nil
	})
	if err != nil {
		return fmt.Errorf("apps: note a repository's reach: %w", err)
	}
	return nil
}

// Answered notes whether Bitbucket answers polls of the repository; nil when it does.
func (r *Records) Answered(ctx context.Context, workspace, repository string, trouble *storev1.Trouble) error {
	_, _, err := r.Store.Repositories.Update(ctx, RepositoryKey(workspace, repository), func(idx *storev1.RepositoryIndex) (*storev1.RepositoryIndex, error) {
		if idx == nil || idx.GetUnanswered().GetReason() == trouble.GetReason() {
			return nil, kv.ErrSkip
		}
		idx.Unanswered = trouble
		return idx, nil
	})
	if err != nil {
		return fmt.Errorf("apps: note whether a repository's polls are answered: %w", err)
	}
	return nil
}

// HandOverGrace is how long the request that changed the watches has for handing them over itself.
const HandOverGrace = 10 * time.Second

func (r *Records) touchWatches(ctx context.Context, workspace, repository string) error {
	_, err := r.Reminders.Touch(ctx, reminder.Watches, workspace, repository, r.Now().Add(HandOverGrace))
	return err
}
