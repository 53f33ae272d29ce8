package apps

import (
	"slices"

	"devpilot.io/bitbucket/pkg/apierr"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// excludedMessage is what people are told about a repository that an admin narrowed the workspace away from.
const excludedMessage = "An admin narrowed this workspace to some Bitbucket workspaces, and this repository's is not among them: nothing is deployed from it. An owner or admin can add it under Integrations; the app then goes on by itself."

// Excluded is the answer about a repository that an admin narrowed the workspace away from.
func Excluded() error { return apierr.New(apierr.ReasonWorkspaceExcluded, excludedMessage) }

// Allows tells whether a workspace may deploy from a Bitbucket workspace.
func Allows(c *storev1.Connection, bitbucketWorkspace string) bool {
	return len(c.GetNarrowedTo()) == 0 || slices.Contains(c.GetNarrowedTo(), bitbucketWorkspace)
}

// Disconnected is why a push does not deploy while its workspace has no connection.
const Disconnected = "Bitbucket was disconnected; connect again and Devpilot catches up"

// Outside is what stands in the way of a repository that the workspace was narrowed away from; nil of one that
// it was not. Where the repository is, Bitbucket is asked soon after a workspace was narrowed: until then, where
// it was never known, the token decides.
func Outside(c *storev1.Connection, idx *storev1.RepositoryIndex) *storev1.Trouble {
	if len(c.GetNarrowedTo()) == 0 {
		return nil
	}
	found := idx.GetUnreachable()
	said := found.GetReason() == string(apierr.ReasonWorkspaceExcluded)
	switch place := idx.GetBitbucketWorkspace(); {
	case place == "" && !said, place != "" && Allows(c, place):
		return nil
	case said:
		return found
	}
	return &storev1.Trouble{Reason: string(apierr.ReasonWorkspaceExcluded), Message: excludedMessage, Time: c.GetNarrowedTime()}
}
