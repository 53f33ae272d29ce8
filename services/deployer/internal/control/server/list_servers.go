package server

import (
	"context"

	"devpilot.io/bitbucket/pkg/seal/pagetoken"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// ListServers returns a page of the servers by name; the cursor is the last name.
func (s *Server) ListServers(_ context.Context, req *deployerv1.ListServersRequest) (*deployerv1.ListServersResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	scope := pagetoken.Scope("ListServers")
	after, err := s.tokens.Decode(scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	resp := &deployerv1.ListServersResponse{}
	for _, server := range u.Servers.List() {
		if server.GetId() <= string(after) {
			continue
		}
		if len(resp.Servers) == size {
			resp.NextPageToken = s.tokens.Encode(scope, []byte(resp.Servers[size-1].GetId()))
			break
		}
		resp.Servers = append(resp.Servers, server)
	}
	return resp, nil
}
