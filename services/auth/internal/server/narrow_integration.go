package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/kv"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
)

const (
	// maxNarrowedTo bounds how many Bitbucket workspaces a workspace can be narrowed to: the list is read for every token.
	maxNarrowedTo = 100
	// maxPlaceName bounds the name of one, in bytes.
	maxPlaceName = 200
)

// changedSince is the error of an etag that is not the integration's any more.
func changedSince() error {
	return apierr.New(apierr.ReasonEtagMismatch, "The integration was changed since you loaded it. Load it again and decide anew.")
}

// NarrowIntegration says which Bitbucket workspaces the workspace may see and deploy from.
func (s *Server) NarrowIntegration(ctx context.Context, req *authv1.NarrowIntegrationRequest) (*authv1.NarrowIntegrationResponse, error) {
	_, by, err := visitor(ctx, req.GetWorkspace())
	if err != nil {
		return nil, err
	}
	places, err := placesOf(req.GetBitbucketWorkspaces())
	if err != nil {
		return nil, err
	}
	rec, _, err := s.read(ctx, req.GetWorkspace())
	if err != nil {
		return nil, err
	}
	var before, after *authstorev1.Narrowing
	err = s.cfg.Narrowings.Update(ctx, req.GetWorkspace(), func(cur *authstorev1.Narrowing) (*authstorev1.Narrowing, error) {
		before, after = cur, cur
		if req.GetEtag() != "" && req.GetEtag() != etag(s.resource(req.GetWorkspace(), rec, cur)) {
			return nil, changedSince()
		}
		if slices.EqualFunc(cur.GetPlaces(), places, samePlace) {
			return nil, kv.ErrSkip
		}
		after = &authstorev1.Narrowing{Places: places, UpdateTime: timestamppb.New(s.cfg.Now()), UpdatedBy: by.Label}
		return after, nil
	})
	if err != nil {
		return nil, fmt.Errorf("narrow the integration: %w", kv.ToAPI(err))
	}
	return &authv1.NarrowIntegrationResponse{Integration: s.view(ctx, req.GetWorkspace(), rec, after), Before: narrowedTo(before)}, nil
}

// placesOf reads a request's list: by UUID, sorted, each once.
func placesOf(list []*authv1.NarrowedTo) ([]*authstorev1.Narrowing_Place, error) {
	if len(list) > maxNarrowedTo {
		return nil, apierr.InvalidArgument("bitbucketWorkspaces", fmt.Sprintf("name at most %d", maxNarrowedTo))
	}
	var faults apierr.Faults
	var places []*authstorev1.Narrowing_Place
	for i, w := range list {
		id := bitbucket.NormalizeUUID(w.GetId())
		if !bitbucket.IsUUID(id) {
			faults.Add(fmt.Sprintf("bitbucketWorkspaces[%d].id", i), "give the Bitbucket workspace's UUID; names can change hands")
		}
		if len(w.GetName()) > maxPlaceName {
			faults.Add(fmt.Sprintf("bitbucketWorkspaces[%d].name", i), fmt.Sprintf("must not be longer than %d bytes", maxPlaceName))
		}
		places = append(places, &authstorev1.Narrowing_Place{Id: id, Name: w.GetName()})
	}
	slices.SortFunc(places, func(a, b *authstorev1.Narrowing_Place) int { return cmp.Compare(a.GetId(), b.GetId()) })
	places = slices.CompactFunc(places, func(a, b *authstorev1.Narrowing_Place) bool { return a.GetId() == b.GetId() })
	return places, faults.Err()
}

func samePlace(a, b *authstorev1.Narrowing_Place) bool {
	return a.GetId() == b.GetId() && a.GetName() == b.GetName()
}

func narrowedTo(n *authstorev1.Narrowing) []*authv1.NarrowedTo {
	var out []*authv1.NarrowedTo
	for _, p := range n.GetPlaces() {
		out = append(out, &authv1.NarrowedTo{Id: p.GetId(), Name: p.GetName()})
	}
	return out
}

// within refuses a token for a Bitbucket workspace that the workspace was narrowed away from. Only repo,
// which lists what there is and leaves out what is outside, need not say where it is used.
func (s *Server) within(ctx context.Context, workspace, place string) (allowed []string, err error) {
	n, err := s.narrowing(ctx, workspace)
	if err != nil {
		return nil, err
	}
	for _, p := range n.GetPlaces() {
		allowed = append(allowed, p.GetId())
	}
	place = bitbucket.NormalizeUUID(place)
	if len(allowed) == 0 || slices.Contains(allowed, place) || place == "" && identity.CallerFromContext(ctx) == "repo" {
		return allowed, nil
	}
	return nil, apierr.New(apierr.ReasonWorkspaceExcluded,
		"An admin narrowed this workspace to some Bitbucket workspaces, and this repository's is not among them: it is neither read nor deployed. An owner or admin can add it under Integrations.")
}
