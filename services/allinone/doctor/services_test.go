package doctor

import (
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"devpilot.io/bitbucket/pkg/checkup"
)

func TestRun_servicesThatAreNotWell(t *testing.T) {
	w := newWorld(t)
	w.fails([]failing{
		{"service gone", "gateway", "service-repo", map[string]string{"DEVPILOT_REPO_ADDR": "127.0.0.1:1"}, checkup.Failed, "repo at 127.0.0.1:1 does not answer", "Start repo"},
		{"service that does not serve", "gateway", "service-auth", map[string]string{"DEVPILOT_AUTH_ADDR": healthy(t, healthpb.HealthCheckResponse_NOT_SERVING)}, checkup.Failed, "auth", "auth"},
	})
}
