package gateway_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

func TestBadge_whoeverHasTheLinkSeesAWordAndNothingElse(t *testing.T) {
	g := start(t)
	state := deployerv1.ReadBadgeResponse_LIVE
	g.deployer.on("ReadBadge", func(_ context.Context, m proto.Message) (proto.Message, error) {
		if m.(*deployerv1.ReadBadgeRequest).GetKey() != "known-key" {
			return nil, apierr.New(apierr.ReasonNotFound, "There is no such badge.")
		}
		return &deployerv1.ReadBadgeResponse{State: state}, nil
	})
	c := g.anybody()
	for of, word := range map[deployerv1.ReadBadgeResponse_State]string{
		deployerv1.ReadBadgeResponse_LIVE: "live", deployerv1.ReadBadgeResponse_FAILED: "failed",
		deployerv1.ReadBadgeResponse_DEPLOYING: "deploying", deployerv1.ReadBadgeResponse_NONE: "not deployed",
	} {
		state = of
		a := c.get("/badges/known-key.svg").want(http.StatusOK)
		if body := string(a.body); !strings.Contains(body, ">"+word+"<") || strings.Contains(body, "known-key") {
			t.Errorf("%v: %s", of, body)
		}
		if h := a.header; h.Get("Content-Type") != "image/svg+xml" || h.Get("Cache-Control") != "public, max-age=30" || h.Get("Set-Cookie") != "" {
			t.Errorf("%v: headers %v", of, h)
		}
	}
	for _, path := range []string{"/badges/other.svg", "/badges/known-key", "/badges/", "/badges/.svg", "/badges/known-key.svg/x", "/badges/" + strings.Repeat("a", 600) + ".svg"} {
		if p := c.get(path).problem(http.StatusNotFound, "NOT_FOUND"); strings.Contains(p.Detail, "known-key") {
			t.Errorf("%s: %v", path, p)
		}
	}
	c.post("/badges/known-key.svg", nil).problem(http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED")
}
