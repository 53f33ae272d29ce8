package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/redisx"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
)

// budgetTimeout bounds the question how the budget stands: without an answer the limits alone are told.
const budgetTimeout = 2 * time.Second

// GetBudget tells how many of the calls that Bitbucket allows are used and left, and by whom.
func (s *Server) GetBudget(ctx context.Context, req *authv1.GetBudgetRequest) (*authv1.GetBudgetResponse, error) {
	if err := needWorkspace(req.GetWorkspace()); err != nil {
		return nil, err
	}
	asking, cancel := context.WithTimeout(ctx, budgetTimeout)
	defer cancel()
	usage, err := s.cfg.Budget.Usage(asking, req.GetWorkspace())
	if err != nil {
		limit := int32(s.cfg.Budget.Limit()) // a thousand
		return &authv1.GetBudgetResponse{Budgets: []*authv1.CallBudget{{Name: redisx.PoolAPI, Limit: limit}, {Name: redisx.PoolWebhooks, Limit: limit}}}, ctx.Err()
	}
	out := &authv1.GetBudgetResponse{Shared: true}
	for _, u := range usage {
		b := &authv1.CallBudget{
			Name: u.Pool, Limit: int32(u.Limit), Used: int32(u.Used), Left: int32(u.Left), LeftBackground: int32(u.LeftBackground), UsedElsewhere: int32(u.UsedElsewhere), // thousands
		}
		if u.BackgroundWait > 0 {
			b.BackgroundTime = timestamppb.New(s.cfg.Now().Add(u.BackgroundWait))
		}
		for _, use := range u.Uses {
			b.Uses = append(b.Uses, &authv1.CallUse{Service: use.Service, Call: use.Call, Interactive: use.Interactive, Calls: int32(use.Calls)}) // thousands
		}
		out.Budgets = append(out.Budgets, b)
	}
	return out, nil
}
