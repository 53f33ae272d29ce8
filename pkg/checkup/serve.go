package checkup

import (
	"context"
	"maps"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	doctorv1 "devpilot.io/bitbucket/proto/gen/devpilot/doctor/v1"
)

// AnswerTime is how long a service takes at most for its checks: who asks has a deadline beyond it.
const AnswerTime = 12 * time.Second

const late = "Look why it takes so long, and ask again."

// Subject is a process that is asked how it is.
type Subject struct {
	Service string
	Version string
	// Tasks are its checks. What they keep open ends with ctx.
	Tasks   func(ctx context.Context) []Task
	Secrets func() []string // that no check may show; nil: none
}

// Examine makes the checks.
func (s *Subject) Examine(ctx context.Context) []*doctorv1.DoctorCheck {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := timestamppb.Now()
	var all []*doctorv1.DoctorCheck
	how := How{Limit: AnswerTime, Late: late}
	if s.Secrets != nil {
		how.Secrets = s.Secrets()
	}
	for _, c := range Run(ctx, s.Tasks(ctx), how) {
		all = append(all, c.Proto(s.Service, began))
	}
	return all
}

// Answer makes the checks for whoever asks another process.
func (s *Subject) Answer(ctx context.Context) *doctorv1.ExamineResponse {
	return &doctorv1.ExamineResponse{Version: s.Version, Checks: s.Examine(ctx)}
}

// Proto is the check as services and the API tell it.
func (c Check) Proto(service string, asked *timestamppb.Timestamp) *doctorv1.DoctorCheck {
	return &doctorv1.DoctorCheck{
		Name: c.Name, Service: service, Where: c.Where, State: doctorv1.DoctorCheck_State(doctorv1.DoctorCheck_State_value[string(c.State)]),
		Found: c.Found, Remedy: c.Remedy, Time: asked, DurationMillis: int32(c.DurationMillis),
	}
}

// server answers for a process over gRPC.
type server struct {
	doctorv1.UnimplementedDoctorServiceServer
	subject *Subject
}

// Examine implements the RPC.
func (s *server) Examine(ctx context.Context, _ *doctorv1.ExamineRequest) (*doctorv1.ExamineResponse, error) {
	return s.subject.Answer(ctx), nil
}

// Register puts the doctor's RPCs beside those of a service.
func Register(r grpc.ServiceRegistrar, s *Subject) {
	doctorv1.RegisterDoctorServiceServer(r, &server{subject: s})
}

// WithPolicy is a service's policy with who may call these RPCs: the gateway, for an operator of the installation.
func WithPolicy(p rpc.Policy) rpc.Policy {
	p = maps.Clone(p)
	p[doctorv1.DoctorService_Examine_FullMethodName] = rpc.Rule{Callers: []string{identity.Gateway}, Operator: true}
	return p
}
