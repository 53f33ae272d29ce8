package sites_test

import (
	"testing"

	"devpilot.io/bitbucket/services/deployer/internal/worker/sites"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// A server whose apps were moved away serves nothing of them, also before anything is live elsewhere.
func TestDescribe_whatWasMovedAwayIsNotServed(t *testing.T) {
	t.Parallel()
	a := &storev1.App{Generation: 1, Serve: &deployerv1.ServeOptions{Directory: "."}}
	l := &storev1.Lane{
		Generation: 1, LastNumber: 3, Live: &storev1.Live{Number: 2, Directory: "2", Server: "eu"},
		Kept: []*storev1.Kept{{Number: 2, Directory: "2", Server: "eu"}},
	}
	if site := sites.Describe(a, l, "eu"); len(site.Releases) != 1 || site.Elsewhere != "" {
		t.Fatalf("%+v", site)
	}
	l.Live.Lost = true
	if site := sites.Describe(a, l, "eu"); len(site.Releases) != 0 || site.Elsewhere != "eu" {
		t.Fatalf("%+v", site)
	}
}
