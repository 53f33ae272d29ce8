package client

import (
	"context"
	"strings"
	"sync"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
)

const (
	// placeAge is how long the name of a Bitbucket workspace is taken for the same one: names change hands.
	placeAge = 10 * time.Minute
	// maxPlaces bounds what is remembered; beyond it everything is learned anew.
	maxPlaces = 10_000
)

// Places know which Bitbucket workspaces, by UUID, the names in repositories' full names mean. They learn
// from the records and from what Bitbucket answers, and ask it only where neither said so lately. They are safe
// for concurrent use; nil knows nothing.
type Places struct {
	Client repov1.RepoServiceClient
	Now    func() time.Time

	mu   sync.Mutex
	seen map[owner]place // by workspace and owner
}

type place struct {
	id string
	at time.Time
}

// owner is a Bitbucket workspace by its name, as a workspace knows it.
type owner struct{ workspace, name string }

func ownerOf(workspace, fullName string) owner {
	name, _, _ := strings.Cut(fullName, "/")
	return owner{workspace: workspace, name: strings.ToLower(name)}
}

// excluded is the answer about a repository that an admin narrowed the workspace away from.
func excluded() error {
	return apierr.New(apierr.ReasonWorkspaceExcluded,
		"An admin narrowed this workspace to some Bitbucket workspaces, and this repository's is not among them. An owner or admin can add it under Integrations.")
}

// Learn notes that the repository of that name is in a Bitbucket workspace.
func (p *Places) Learn(workspace, fullName, id string) {
	if p == nil || fullName == "" || id == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen == nil || len(p.seen) >= maxPlaces {
		p.seen = map[owner]place{}
	}
	p.seen[ownerOf(workspace, fullName)] = place{id: id, at: p.Now()}
}

// known is the UUID of the Bitbucket workspace that a repository is in, as far as it was learned; "" if not.
func (p *Places) known(workspace, fullName string) string {
	if p == nil {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.seen[ownerOf(workspace, fullName)]; p.Now().Sub(s.at) < placeAge {
		return s.id
	}
	return ""
}

// ask asks Bitbucket. A Bitbucket workspace that the account does not belong to is outside.
func (p *Places) ask(ctx context.Context, workspace, fullName string) (string, error) {
	if p == nil {
		return "", excluded()
	}
	resp, err := p.Client.ListBitbucketWorkspaces(ctx, &repov1.ListBitbucketWorkspacesRequest{Workspace: workspace})
	if err != nil {
		return "", err
	}
	for _, w := range resp.GetBitbucketWorkspaces() {
		p.Learn(workspace, w.GetSlug()+"/", w.GetId())
	}
	if id := p.known(workspace, fullName); id != "" {
		return id, nil
	}
	return "", excluded()
}
