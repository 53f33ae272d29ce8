package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/transport"
)

// noServices says why no other service is asked.
func (x *exam) noServices() checkup.Check {
	if x.flags.Service == whole {
		return checkup.Well("All in one process.")
	}
	return checkup.Skip("%s calls no other service.", x.flags.Service)
}

// service asks another service for its health, as a caller does.
func (x *exam) service(ctx context.Context, name string) checkup.Check {
	address := x.flags.address(name)
	variable := addressVariable(name)
	if address == "" {
		return checkup.Skip("%s is not set.", variable)
	}
	keys, err := x.keys()
	if err != nil {
		return checkup.Skip("Without identity keys nobody is called; see identity-keys.")
	}
	certificate, err := x.flags.Open(x.flags.Service, logs.Discard())
	if err != nil {
		return checkup.Skip("Without the certificate nobody is called; see settings.")
	}
	conn, err := rpc.Dial(rpc.ClientConfig{Service: x.flags.Service, TargetService: name, Target: address, Keys: keys, Certificate: certificate})
	if err != nil {
		return checkup.Fail(fmt.Sprintf("%s cannot be called: %v.", name, err), "Put "+variable+" right, and see identity-keys.")
	}
	defer func() { _ = conn.Close() }()
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		if c, refused := refusal(ctx, certificate, x.flags.Service, name, address); refused {
			return c
		}
	}
	switch {
	case err != nil:
		return checkup.Fail(fmt.Sprintf("%s at %s does not answer: %s", name, address, apierr.From(err).Message()), "Start "+name+", and put "+variable+" right: host:port, several joined by commas.")
	case answer.GetStatus() != healthpb.HealthCheckResponse_SERVING:
		return checkup.Fail(fmt.Sprintf("%s at %s answers and does not serve (%s).", name, address, answer.GetStatus()), "Look at its /readyz and its log.")
	}
	return checkup.Well("%s serves at %s.", name, address)
}

// refusalTimeout bounds finding out what a connection is refused for.
const refusalTimeout = 3 * time.Second

// refusal tells whether a certificate is what a service cannot be called for: its own, or the one that it is shown.
func refusal(ctx context.Context, certificate *transport.Certificate, caller, name, target string) (c checkup.Check, refused bool) {
	if certificate == nil {
		return checkup.Check{}, false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refusalTimeout)
	defer cancel()
	for address := range strings.SplitSeq(strings.TrimPrefix(target, "dns:///"), ",") {
		address = strings.TrimSpace(address)
		err := certificate.Try(ctx, address, name)
		var plain tls.RecordHeaderError
		var alert tls.AlertError
		switch why := checkup.Untrusted(err); {
		case why != "":
			return checkup.Fail(fmt.Sprintf("%s at %s is not trusted: %s.", name, address, why), "Renew its certificate (devpilot certificates), or put its authority into DEVPILOT_TLS_CA_FILE."), true
		case errors.As(err, &plain):
			return checkup.Fail(fmt.Sprintf("%s at %s does not encrypt, and this process is to.", name, address), "Set DEVPILOT_TLS_CERT_FILE, DEVPILOT_TLS_KEY_FILE and DEVPILOT_TLS_CA_FILE of "+name+"."), true
		case errors.As(err, &alert), err != nil && strings.Contains(err.Error(), "remote error: tls"):
			return checkup.Fail(fmt.Sprintf("%s at %s refuses the certificate of %s: %v.", name, address, caller, err),
				"Put the authority of DEVPILOT_TLS_CERT_FILE into DEVPILOT_TLS_CA_FILE of "+name+", and renew the certificate where it has ended (devpilot certificates)."), true
		}
	}
	return checkup.Check{}, false
}
