package server

import (
	"context"

	"devpilot.io/bitbucket/pkg/apierr"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
)

// RunDoctor implements the RPC.
func (s *Server) RunDoctor(ctx context.Context, req *gatewayv1.RunDoctorRequest) (*gatewayv1.RunDoctorResponse, error) {
	if err := apierr.CheckRequestID(req.GetRequestId()); err != nil {
		return nil, err
	}
	report, err := s.cfg.Doctor.Run(ctx)
	if err != nil {
		return nil, err
	}
	return &gatewayv1.RunDoctorResponse{Report: report}, nil
}

// GetDoctorReport implements the RPC.
func (s *Server) GetDoctorReport(ctx context.Context, _ *gatewayv1.GetDoctorReportRequest) (*gatewayv1.GetDoctorReportResponse, error) {
	report, err := s.cfg.Doctor.Last(ctx)
	if err != nil {
		return nil, err
	}
	return &gatewayv1.GetDoctorReportResponse{Report: report}, nil
}
