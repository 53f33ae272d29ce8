// Package server has the RPCs of devpilot.repo.v1, one file each: validate, call the catalog, map.
package server

import (
	"context"
	"encoding/json"
	"fmt"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	"devpilot.io/bitbucket/services/repo/internal/catalog"
)

// Catalog is what the RPCs are made of.
type Catalog interface {
	List(ctx context.Context, q catalog.Question) (catalog.Answer, error)
	Repository(ctx context.Context, workspace, id string) (catalog.Repository, error)
	Branches(ctx context.Context, q catalog.BranchQuestion) (catalog.BranchAnswer, error)
	Tags(ctx context.Context, q catalog.BranchQuestion) (catalog.BranchAnswer, error)
	Commits(ctx context.Context, q catalog.CommitQuestion) (catalog.CommitPage, error)
	Resolve(ctx context.Context, workspace, id string, chosen catalog.Chosen) (commit bitbucket.Commit, fullName string, err error)
	SuggestServe(ctx context.Context, workspace, id, commit string) ([]catalog.ServeSuggestion, error)
	BitbucketWorkspaces(ctx context.Context, workspace string) ([]catalog.BitbucketWorkspace, error)
	Branch(ctx context.Context, workspace, id, name string) (branch catalog.Branch, fullName string, err error)
	Head(ctx context.Context, workspace, id, branch string) (catalog.Repository, catalog.Head, error)
}

// Server implements repov1.RepoServiceServer.
type Server struct {
	repov1.UnimplementedRepoServiceServer
	catalog Catalog
	tokens  *pagetoken.Codec
	site    bitbucket.Site
}

// New makes the server.
func New(c Catalog, tokens *pagetoken.Codec, site bitbucket.Site) *Server {
	return &Server{catalog: c, tokens: tokens, site: site}
}

// maxQuery is the longest search text that is taken, in characters.
const maxQuery = 500

func pageSize(asked int32) (int, error) { return pagetoken.Size(asked, pagetoken.RepositoriesPage) }

func checkQuery(query string) error {
	if len(query) > maxQuery {
		return apierr.InvalidArgument("query", fmt.Sprintf("must not be longer than %d bytes", maxQuery))
	}
	return nil
}

// repositoryID normalises the id of a request.
func repositoryID(id string) (string, error) {
	n := bitbucket.NormalizeUUID(id)
	if !bitbucket.IsUUID(n) {
		return "", apierr.InvalidArgument("repository", "must be the repository's id, a UUID")
	}
	return n, nil
}

// cursor opens a page token; nil for the first page.
func cursor[K any](tokens *pagetoken.Codec, scope, token string) (*K, error) {
	raw, err := tokens.Decode(scope, token)
	if err != nil || len(raw) == 0 {
		return nil, err
	}
	var k K
	if err := json.Unmarshal(raw, &k); err != nil {
		return nil, apierr.New(apierr.ReasonPageTokenInvalid, "The page token is from another version of Devpilot. Start again at the first page.",
			apierr.WithCause(err))
	}
	return &k, nil
}

// pageToken seals where the next page begins; "" on the last one.
func pageToken[K any](tokens *pagetoken.Codec, scope string, next *K) (string, error) {
	if next == nil {
		return "", nil
	}
	raw, err := json.Marshal(next)
	if err != nil {
		return "", fmt.Errorf("encode page cursor: %w", err)
	}
	return tokens.Encode(scope, raw), nil
}
