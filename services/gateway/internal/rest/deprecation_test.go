package rest_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	"devpilot.io/bitbucket/services/gateway/internal/rest"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

// informed answers GetInfo.
type informed struct{ grpc.ClientConnInterface }

func (informed) Invoke(_ context.Context, _ string, _, reply any, _ ...grpc.CallOption) error {
	proto.Merge(reply.(proto.Message), &gatewayv1.GetInfoResponse{Info: &gatewayv1.Info{Version: "test"}})
	return nil
}

// An answer of a call that is to go says so, and since when, until when, and where to read on; one of another call
// does not.
func TestDeprecated_isSaidInEachAnswer(t *testing.T) {
	said := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	with := func(table map[string]routes.Deprecation) http.Header {
		api, err := rest.New(rest.Config{Table: routes.NewTableWith(table), Gateway: rest.Conn{ClientConnInterface: informed{}, Now: time.Now}, Now: time.Now, Timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		api.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/info", nil))
		if w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return w.Header()
	}
	h := with(map[string]routes.Deprecation{gatewayv1.GatewayService_GetInfo_FullMethodName: {Since: said, Sunset: said.AddDate(1, 0, 0), Instead: "Use getMe."}})
	if h.Get("Deprecation") != "@1772323200" || h.Get("Sunset") != "Mon, 01 Mar 2027 00:00:00 GMT" || h.Get("Link") != `</docs/api/getInfo>; rel="deprecation"; type="text/html"` {
		t.Errorf("headers %v", h)
	}
	h = with(nil)
	for _, name := range []string{"Deprecation", "Sunset", "Link"} {
		if h.Get(name) != "" {
			t.Errorf("%s: %s", name, h.Get(name))
		}
	}
}
