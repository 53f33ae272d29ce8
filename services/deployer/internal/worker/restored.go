package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// afterRestore compares, once after the stores were restored from a backup, what lanes say of the server's releases with what its
// data directory holds. That may be another directory than at the backup, an empty one too: what was live and is not there is
// deployed again from Git. It may die at any point, and be done by several workers at once.
func (w *Worker) afterRestore(ctx context.Context, directory string) error {
	fleet := w.cfg.Records.Fleet
	restored, err := fleet.Restored(ctx, w.cfg.Server)
	if err != nil || !restored {
		return err
	}
	var keys []lane.Key
	for key, err := range w.cfg.Records.Store.Lanes.Keys(ctx, ">") {
		if err != nil {
			return err
		}
		workspace, app, _ := strings.Cut(key, ".")
		keys = append(keys, lane.Key{Workspace: workspace, App: app})
	}
	again := 0
	for _, k := range keys {
		is, err := w.lookFor(ctx, k, directory)
		if err != nil {
			return fmt.Errorf("worker: after a restore, look for the releases of %s: %w", k, err)
		}
		if is {
			again++
		}
	}
	w.cfg.Logger.InfoContext(ctx, "stores were restored: what was live and is not in the data directory is deployed again", slog.Int(logs.KeyCount, again))
	return fleet.Adopt(ctx, w.cfg.Server, directory)
}

// lookFor has an app's lane know which of its releases are there. Where the live one is not, it is asked for again.
func (w *Worker) lookFor(ctx context.Context, k lane.Key, directory string) (again bool, err error) {
	highest, err := w.releases.Highest(k.Workspace, k.App)
	if err != nil {
		return false, err
	}
	a, err := w.cfg.Records.Apps.App(ctx, k)
	if err != nil && !apierr.Has(err, apierr.ReasonAppNotFound) {
		return false, err
	}
	var lost error
	has := func(server, directory string) bool {
		if server != w.cfg.Server {
			return true // for its own worker to say
		}
		there, err := w.releases.Has(k.Workspace, k.App, directory)
		lost = errors.Join(lost, err)
		return there
	}
	l, err := w.cfg.Records.Dispatcher.Change(ctx, k, func(l *storev1.Lane) error {
		again, lost = false, nil
		before := len(l.GetKept())
		l.Kept = slices.DeleteFunc(l.Kept, func(r *storev1.Kept) bool { return !has(r.GetServer(), r.GetDirectory()) })
		live := l.GetLive()
		gone := live != nil && !has(live.GetServer(), live.GetDirectory())
		if lost != nil {
			return lost
		}
		if !gone && len(l.GetKept()) == before && highest <= l.GetLastNumber() {
			return lane.ErrSkip
		}
		l.LastNumber = max(l.LastNumber, highest) // of deployments after the backup, whose directories are not another's
		if !gone {
			return nil
		}
		l.Live = nil
		if a == nil || l.GetRetired() || lane.Upcoming(l) != nil || l.GetRunning() != nil {
			return nil // something newer is on its way
		}
		again = true
		_, err := lane.Accept(l, w.liveAgain(a, live, directory))
		if errors.Is(err, lane.ErrSkip) {
			again, err = false, nil
		}
		return err
	})
	if err != nil {
		return false, err
	}
	return again, w.cfg.Records.Dispatcher.Dispatch(ctx, k, l)
}

// liveAgain is the wish for what was live. Where pushes deploy it is the branch, whose head would come next anyway; what a person chose, or
// where no push deploys, is redeployed as the commit that it was.
func (w *Worker) liveAgain(a *storev1.App, live *storev1.Live, directory string) lane.Request {
	now, ref := w.cfg.Now(), lane.Ref(live.GetRef())
	ask := lane.Request{
		Event: fmt.Sprintf("restored:%s:%d", directory, live.GetNumber()), ReceiveTime: now, Now: now, Trigger: deployerv1.Deployment_RECONCILED,
		Repository: a.GetRepository(), Server: a.GetServer(), Commit: &deployerv1.DeploymentCommit{Hash: live.GetHash()},
		Pinned: live.GetChosen() || !a.GetAutoDeploy(), Retries: 1, SourceNumber: live.GetNumber(),
		Actor: &deployerv1.DeploymentActor{Kind: deployerv1.DeploymentActor_SYSTEM, Label: "Devpilot"},
		Notes: []string{fmt.Sprintf("The stores were restored from a backup, and the release of deployment %d is not in the server's data directory, so that Devpilot deploys it again.", live.GetNumber())},
	}
	switch {
	case ref.IsTag():
		ask.Tag = ref.Name()
	case ref != "":
		ask.Branch = ref.Name()
	default: // of before it was kept
		ask.Branch, ask.Pinned = a.GetBranch(), true
	}
	if ask.Pinned {
		ask.Trigger = deployerv1.Deployment_REDEPLOY // no rule of pushes holds for it
	}
	return ask
}
