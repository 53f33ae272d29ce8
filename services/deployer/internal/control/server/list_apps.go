package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	"devpilot.io/bitbucket/services/deployer/internal/control/app"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// maxQuery is how long a search for apps may be, in characters.
const maxQuery = 200

// ListApps returns a page of a workspace's apps; the cursor is the last one's place.
func (s *Server) ListApps(ctx context.Context, req *deployerv1.ListAppsRequest) (*deployerv1.ListAppsResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	q, err := appQuestion(ctx, req)
	if err != nil {
		return nil, err
	}
	scope, err := appScope(req)
	if err != nil {
		return nil, err
	}
	cursor, err := s.tokens.Decode(scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	after, err := app.ParseSpot(string(cursor))
	if err != nil {
		return nil, apierr.New(apierr.ReasonPageTokenInvalid, "The page token cannot be read. Start again at the first page.", apierr.WithCause(err))
	}
	list, err := u.Apps.List(ctx, q, after, size)
	if err != nil {
		return nil, fail(err)
	}
	resp := &deployerv1.ListAppsResponse{Apps: list.Apps, Total: int32(list.Total), Needs: list.Needs, Troubles: list.Troubles} //nolint:gosec // keys of a bucket in memory
	if list.Next != nil {
		resp.NextPageToken = s.tokens.Encode(scope, []byte(list.Next.String()))
	}
	return resp, nil
}

func appQuestion(ctx context.Context, req *deployerv1.ListAppsRequest) (app.Question, error) {
	q := app.Question{
		Workspace: req.GetWorkspace(), Apps: apps(ctx), Query: req.GetQuery(), Repository: req.GetRepository(), Branch: req.GetBranch(), AutoDeploy: req.AutoDeploy,
		LatestStates: req.GetLatestStates(), SyncStates: req.GetSyncStates(), Need: req.GetNeed(), Order: app.Order(req.GetOrderBy()), Basic: req.GetView() == deployerv1.ListAppsRequest_BASIC,
	}
	if utf8.RuneCountInString(q.Query) > maxQuery {
		return q, apierr.InvalidArgument("query", fmt.Sprintf("has at most %d characters", maxQuery))
	}
	if q.Order == "" {
		q.Order = app.ByID
	}
	if !slices.Contains(app.Orders(), q.Order) {
		var words []string
		for _, o := range app.Orders() {
			words = append(words, string(o))
		}
		return q, apierr.InvalidArgument("orderBy", "is one of "+strings.Join(words, ", "))
	}
	return q, nil
}

// appScope binds a page token to what was asked; another size and view do no harm.
func appScope(req *deployerv1.ListAppsRequest) (string, error) {
	question := proto.CloneOf(req)
	question.PageSize, question.PageToken, question.View = 0, "", 0
	asked, err := proto.MarshalOptions{Deterministic: true}.Marshal(question)
	if err != nil {
		return "", apierr.New(apierr.ReasonInvalidArgument, "The question cannot be read.", apierr.WithCause(err))
	}
	return pagetoken.Scope("ListApps", string(asked)), nil
}
