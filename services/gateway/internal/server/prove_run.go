package server

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
)

// proofCutOff is after how long a proof that still says that it runs was cut off with its process.
const proofCutOff = proveTime + 15*time.Second

// ProveIntegration implements the RPC.
func (s *Server) ProveIntegration(ctx context.Context, req *gatewayv1.ProveIntegrationRequest) (*gatewayv1.ProveIntegrationResponse, error) {
	report, err := s.prove(ctx, req.GetWorkspace(), false)
	if err != nil {
		return nil, err
	}
	return &gatewayv1.ProveIntegrationResponse{Report: report}, nil
}

// RunProof implements the RPC.
func (s *Server) RunProof(ctx context.Context, req *gatewayv1.RunProofRequest) (*gatewayv1.RunProofResponse, error) {
	if err := apierr.CheckRequestID(req.GetRequestId()); err != nil {
		return nil, err
	}
	report, err := s.prove(ctx, req.GetWorkspace(), req.GetWriteStatus())
	if err != nil {
		return nil, err
	}
	return &gatewayv1.RunProofResponse{Report: report}, nil
}

// GetProof implements the RPC.
func (s *Server) GetProof(ctx context.Context, req *gatewayv1.GetProofRequest) (*gatewayv1.GetProofResponse, error) {
	raw, err := s.cfg.Tenants.Proof(ctx, req.GetWorkspace())
	if err != nil {
		return nil, err
	}
	report := &gatewayv1.ProofReport{}
	if raw == nil || proto.Unmarshal(raw, report) != nil {
		return nil, apierr.New(apierr.ReasonNotFound, "The connection was not proved yet. Prove it under Integrations.")
	}
	if report.GetRunning() && s.cfg.Now().Sub(report.GetTime().AsTime()) > proofCutOff {
		for i, c := range report.GetChecks() {
			if c.GetState() == gatewayv1.ProofCheck_RUNNING {
				report.Checks[i] = failed(c.GetName(), "The proof was cut off before this was checked.", "Prove it again.")
			}
		}
		conclude(report)
	}
	return &gatewayv1.GetProofResponse{Report: report}, nil
}

// prove makes all checks. It goes on when the caller does not wait for it: GetProof has what came of it.
func (s *Server) prove(ctx context.Context, workspace string, writeStatus bool) (*gatewayv1.ProofReport, error) {
	now := s.cfg.Now()
	if wait := s.proofs.take(workspace, now); wait > 0 {
		return nil, apierr.New(apierr.ReasonRateLimited, "The connection was proved a moment ago. Prove it again in half a minute.", apierr.WithRetryAfter(wait))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), proveTime)
	defer cancel()
	p := &proof{cfg: s.cfg, workspace: workspace, writeStatus: writeStatus}
	p.report = &gatewayv1.ProofReport{Workspace: workspace, Time: timestamppb.New(now), Version: s.cfg.Info.GetVersion(), Running: true}
	p.apps = sync.OnceValues(func() (*deployerv1.ListAppsResponse, error) {
		return s.cfg.Deployer.ListApps(ctx, &deployerv1.ListAppsRequest{Workspace: workspace, PageSize: pagetoken.MaxPage})
	})
	return p.run(ctx), nil
}

// conclude says what the checks come to.
func conclude(r *gatewayv1.ProofReport) {
	r.Running, r.Passed = false, true
	for _, c := range r.GetChecks() {
		r.Passed = r.GetPassed() && c.GetState() != gatewayv1.ProofCheck_FAILED
	}
	r.Text = proofText(r)
}

// proof is one run.
type proof struct {
	cfg         Config
	workspace   string
	writeStatus bool
	// apps lists the workspace's, once.
	apps func() (*deployerv1.ListAppsResponse, error)

	mu     sync.Mutex
	report *gatewayv1.ProofReport
	parts  []checks // in the order in which they are read
}

type checks = []*gatewayv1.ProofCheck

// part is some checks that are made one after the other, or together. show takes what is known of them so far.
type part struct {
	names []string // what is told of them before anything is known
	run   func(ctx context.Context, show func(checks)) checks
}

// quiet wraps a part that has nothing to tell before its end.
func quiet(run func(context.Context) checks) func(context.Context, func(checks)) checks {
	return func(ctx context.Context, _ func(checks)) checks { return run(ctx) }
}

// run makes all checks, those that do not depend on each other at the same time, and keeps what is known.
func (p *proof) run(ctx context.Context) *gatewayv1.ProofReport {
	parts := []part{
		{[]string{"connection", "callback", "scopes", "token"}, quiet(p.connection)},
		{[]string{"delivery", "clock"}, quiet(p.delivery)},
		{[]string{"disk"}, quiet(p.disk)},
		{[]string{"repositories"}, p.repositories},
		{[]string{statusName}, quiet(p.status)},
	}
	for _, part := range parts {
		var begun checks
		for _, name := range part.names {
			begun = append(begun, running(name))
		}
		p.parts = append(p.parts, begun)
	}
	p.show(ctx, -1, nil)
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() {
			p.show(ctx, i, part.run(ctx, func(c checks) { p.show(ctx, i, c) }))
		})
	}
	wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	conclude(p.report)
	p.keep(ctx)
	return p.report
}

// show takes over what is known of a part, and keeps the report for those who look.
func (p *proof) show(ctx context.Context, i int, c checks) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i >= 0 {
		p.parts[i] = c
	}
	p.report.Checks = slices.Concat(p.parts...)
	p.keep(ctx)
}

// keep stores the report as it is. A proof does not fail for it: whoever waits gets it.
func (p *proof) keep(ctx context.Context) {
	raw, err := proto.Marshal(p.report)
	if err == nil {
		err = p.cfg.Tenants.KeepProof(context.WithoutCancel(ctx), p.workspace, raw)
	}
	if err != nil {
		p.cfg.Logger.WarnContext(ctx, "progress of a proof not kept", slog.String(logs.KeyWorkspace, p.workspace), logs.Err(err))
	}
}

func running(name string) *gatewayv1.ProofCheck {
	return &gatewayv1.ProofCheck{Name: name, State: gatewayv1.ProofCheck_RUNNING, Message: "Being checked."}
}

// proofText is the report as text.
func proofText(r *gatewayv1.ProofReport) string {
	var b strings.Builder
	verdict := "all passed"
	if !r.GetPassed() {
		verdict = "something failed"
	}
	fmt.Fprintf(&b, "Devpilot %s, workspace %s, %s: %s\n", r.GetVersion(), r.GetWorkspace(), r.GetTime().AsTime().UTC().Format(time.RFC3339), verdict)
	for _, c := range r.GetChecks() {
		fmt.Fprintf(&b, "%-8s%s: %s (%d ms)\n", c.GetState(), c.GetName(), c.GetMessage(), c.GetDurationMillis())
		if c.GetRemedy() != "" {
			fmt.Fprintf(&b, "        -> %s\n", c.GetRemedy())
		}
	}
	return b.String()
}
