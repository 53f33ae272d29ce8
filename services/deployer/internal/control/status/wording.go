package status

import (
	"fmt"
	"strings"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/when"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// wanted is the status that a deployment's record calls for.
type wanted struct {
	state       bitbucket.BuildState
	hash        string
	description string
	branch      string
	// twin is the deployment that took its place; with the same commit the status is that one's.
	twin int32
}

// end tells whether it is the last status of its deployment.
func (w wanted) end() bool { return w.state != bitbucket.BuildInProgress }

// want reads a record; not ok when there is nothing to tell of it (yet).
func want(rec *storev1.Deployment) (w wanted, ok bool) {
	d := rec.GetDeployment()
	w = wanted{hash: d.GetCommit().GetHash(), branch: d.GetBranch()}
	if d.GetTag() != "" {
		w.branch = ""
	}
	if w.hash == "" || d.GetStartTime() == nil {
		return w, false
	}
	switch d.GetState() {
	case deployerv1.Deployment_PROCESSING:
		if d.GetStage() <= deployerv1.Deployment_SOURCE_CONTROL {
			return w, false // the commit may still change
		}
		w.state, w.description = bitbucket.BuildInProgress, fmt.Sprintf("Deployment #%d is running", d.GetNumber())
	case deployerv1.Deployment_COMPLETED:
		w.state, w.description = bitbucket.BuildSuccessful, live(d)
	case deployerv1.Deployment_FAILED:
		w.state, w.description = bitbucket.BuildFailed, failed(d)
	case deployerv1.Deployment_CANCELLED:
		w.state, w.description = bitbucket.BuildStopped, "Cancelled"
		if by := withoutAddress(d.GetCancelledBy().GetLabel()); by != "" {
			w.description += " by " + by
		}
	case deployerv1.Deployment_SUPERSEDED:
		w.state, w.description, w.twin = bitbucket.BuildStopped, "Superseded by a newer one", d.GetSupersededBy()
		if w.twin > 0 {
			w.description = fmt.Sprintf("Superseded by #%d", w.twin)
		}
	case deployerv1.Deployment_PENDING, deployerv1.Deployment_STATE_UNSPECIFIED:
		return w, false
	}
	w.description = strings.Join(strings.Fields(w.description), " ")
	return w, true
}

// withoutAddress leaves out the e-mail address by which people of one name are told apart: whoever may read the
// repository reads this.
func withoutAddress(label string) string {
	if name, address, found := strings.Cut(label, " ("); found && strings.Contains(address, "@") {
		return name
	}
	return label
}

func live(d *deployerv1.Deployment) string {
	text := "Live"
	if d.GetTrigger() == deployerv1.Deployment_ROLLBACK {
		text = "Live again"
	}
	if d.GetEndTime() == nil {
		return text
	}
	return text + " in " + when.Took(d.GetEndTime().AsTime().Sub(d.GetStartTime().AsTime()))
}

func failed(d *deployerv1.Deployment) string {
	text := "Failed"
	if d.GetStage() == deployerv1.Deployment_POST_RELEASE {
		text = "Live, but failed afterwards"
	}
	if m := d.GetError().GetMessage(); m != "" {
		text += ": " + m
	}
	return text
}

// Key is the key of an app's statuses under a connection: at most 40 characters, and the same for
// all deployments of the app, so that a commit has one status per app.
func Key(k lane.Key, connection string) string {
	const prefix = "devpilot-"
	return prefix + bitbucket.StatusKey("app", k.Workspace, k.App, connection)[:bitbucket.MaxStatusKey-len(prefix)]
}

// proofKey is the key of the status that proves that one can be written.
func proofKey(workspace, connection string) string {
	const prefix = "devpilot-"
	return prefix + bitbucket.StatusKey("proof", workspace, connection)[:bitbucket.MaxStatusKey-len(prefix)]
}

// link is the deployment's page in the console.
func link(publicURL string, k lane.Key, number int32) string {
	return fmt.Sprintf("%s/w/%s/apps/%s/deployments/%d", strings.TrimRight(publicURL, "/"), k.Workspace, k.App, number)
}
