package status

import (
	"net/http"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// A proof writes a status of its own, which leaves those of deployments alone and which the next proof overwrites;
// what is refused is told at once.
func TestProve_writesAStatusOfItsOwn(t *testing.T) {
	w := newWorld(t)
	s := w.sender()
	w.run(s)
	w.record(1, completed)
	deployed := w.shows("connection-1", "SUCCESSFUL")
	prove := func() error {
		name, err := s.Prove(t.Context(), lane.Key{Workspace: "acme", App: "web"}, w.commit)
		if err == nil && name != "acme/web" {
			t.Errorf("written to %q", name)
		}
		return err
	}
	for range 2 {
		if err := prove(); err != nil {
			t.Fatal(err)
		}
	}
	all := w.statuses()
	proof := all[proofKey("acme", "connection-1")]
	if len(all) != 2 || proof.State != "SUCCESSFUL" || proof.Name != "Devpilot: connection" || proof.URL != "https://devpilot.example.com/w/acme/settings/integrations" || len(proof.Key) > 40 {
		t.Errorf("%d statuses, the proof's is %+v", len(all), proof)
	}
	if got := all[deployed.Key]; got.Name != deployed.Name || got.State != deployed.State {
		t.Errorf("the deployment's became %+v", got)
	}

	fault, err := w.control.Inject(t.Context(), emulator.Fault{Method: http.MethodPost, Route: statusRoute, Repository: "acme/web", Status: http.StatusForbidden})
	if err != nil {
		t.Fatal(err)
	}
	if err := prove(); !apierr.Has(err, apierr.ReasonAccessRestricted) || strings.Contains(apierr.From(err).Message(), w.token.Reveal()) {
		t.Errorf("refused: %v", err)
	}
	if err := w.control.RemoveFault(t.Context(), fault); err != nil {
		t.Fatal(err)
	}
	w.set(func() { w.tokenErr = apierr.New(apierr.ReasonWorkspaceExcluded, "An admin narrowed this workspace.") })
	calls := w.calls()
	if err := prove(); !apierr.Has(err, apierr.ReasonWorkspaceExcluded) {
		t.Errorf("without a token: %v", err)
	}
	w.set(func() { w.tokenErr, w.connection = nil, &storev1.Connection{Disconnected: true} })
	if err := prove(); !apierr.Has(err, apierr.ReasonNotConnected) {
		t.Errorf("disconnected: %v", err)
	}
	if n := w.calls(); n != calls {
		t.Errorf("%d calls without a token", n-calls)
	}
}
