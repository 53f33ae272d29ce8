package routes

import (
	"net/http"
	"strings"
	"testing"
	"time"

	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
)

// Each call that is to go was said to go long before, and something takes its place.
func TestDeprecated_keepsThePromise(t *testing.T) {
	names := map[string]bool{}
	for _, r := range All() {
		names[r.RPC], names[r.Template] = true, true
	}
	for name, d := range deprecated {
		if err := d.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !names[name] {
			t.Errorf("there is no call %s", name)
		}
	}
	said := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	good := Deprecation{Since: said, Sunset: said.AddDate(0, 0, 180), Instead: "Use listApps."}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for what, change := range map[string]func(*Deprecation){
		"180 days are promised": func(d *Deprecation) { d.Sunset = d.Sunset.Add(-time.Hour) },
		"no day":                func(d *Deprecation) { d.Since = time.Time{} },
		"takes its place":       func(d *Deprecation) { d.Instead = "listApps" },
	} {
		bad := good
		change(&bad)
		if err := bad.Check(); err == nil || what != "180 days are promised" && !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestDeprecated_marksRoutesByCallAndByTemplate(t *testing.T) {
	d := Deprecation{Since: time.Unix(1772323200, 0), Sunset: time.Date(2026, 12, 24, 0, 0, 0, 0, time.UTC), Instead: "Use getMe."}
	table := NewTableWith(map[string]Deprecation{gatewayv1.GatewayService_GetInfo_FullMethodName: d, EventsTemplate: d})
	marked := map[string]bool{}
	for _, r := range table.all {
		if r.Deprecated != nil {
			marked[r.OperationID()] = true
		}
	}
	if len(marked) != 2 || !marked["getInfo"] || !marked["streamEvents"] {
		t.Errorf("marked: %v", marked)
	}
	h := http.Header{}
	d.Write(h, "/docs/api/getInfo")
	for name, want := range map[string]string{
		"Deprecation": "@1772323200", "Sunset": "Thu, 24 Dec 2026 00:00:00 GMT", "Link": `</docs/api/getInfo>; rel="deprecation"; type="text/html"`,
	} {
		if h.Get(name) != want {
			t.Errorf("%s: %s, not %s", name, h.Get(name), want)
		}
	}
}
