package doctor

import (
	"context"
	"fmt"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/rpc"
)

// noServices says why no other service is asked.
func (x *exam) noServices() Check {
	if x.flags.Service == whole {
		return ok("All in one process.")
	}
	return skipped("%s calls no other service.", x.flags.Service)
}

// service asks another service for its health, as a caller does.
func (x *exam) service(ctx context.Context, name string) Check {
	address := x.flags.address(name)
	variable := addressVariable(name)
	if address == "" {
		return skipped("%s is not set.", variable)
	}
	keys, err := x.keys()
	if err != nil {
		return skipped("Without identity keys nobody is called; see identity-keys.")
	}
	certificate, err := x.flags.Open(x.flags.Service, logs.Discard())
	if err != nil {
		return skipped("Without the certificate nobody is called; see settings.")
	}
	conn, err := rpc.Dial(rpc.ClientConfig{Service: x.flags.Service, TargetService: name, Target: address, Keys: keys, Certificate: certificate})
	if err != nil {
		return failed(fmt.Sprintf("%s cannot be called: %v.", name, err), "Put "+variable+" right, and see identity-keys.")
	}
	defer func() { _ = conn.Close() }()
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	switch {
	case err != nil:
		return failed(fmt.Sprintf("%s at %s does not answer: %s", name, address, apierr.From(err).Message()), "Start "+name+", and put "+variable+" right: host:port, several joined by commas.")
	case answer.GetStatus() != healthpb.HealthCheckResponse_SERVING:
		return failed(fmt.Sprintf("%s at %s answers and does not serve (%s).", name, address, answer.GetStatus()), "Look at its /readyz and its log.")
	}
	return ok("%s serves at %s.", name, address)
}
