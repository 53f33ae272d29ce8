package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// disconnect removes an integration: its tokens are gone for good, and what it left is told.
func disconnect(t *testing.T, s *shared) {
	site := s.site()
	repo := site.repository(t, "disconnect", "site")
	n := s.tenant(t, "disconnect")
	webhook := fmt.Sprint(dig(n.app("web", repo, "main"), "webhook", "id"))
	n.live("web", site.commit(t, repo, "main", "before"))
	n.settled("web")
	sealed := n.sealed()

	answer := n.api.must("DELETE", n.path("/integrations/bitbucket"), nil)
	left := objects(answer["webhooksLeft"])
	if dig(answer, "integration", "state") != "NOT_CONNECTED" || len(left) != 1 || left[0]["repositoryFullName"] != repo.name ||
		!strings.HasPrefix(fmt.Sprint(left[0]["settingsUrl"]), site.address) || answer["warning"] != nil {
		t.Errorf("removing answers %v", answer)
	}
	n.await(n.path("/apps/web"), func(app object) error {
		if dig(app, "autoDeployPaused", "reason") != "NOT_CONNECTED" || dig(app, "webhook", "state") != "LEFT_ON_BITBUCKET" {
			return fmt.Errorf("the app says %v, %v", app["autoDeployPaused"], app["webhook"])
		}
		return nil
	})
	n.onDisk(sealed).nothing()
	n.api.refused("GET", n.path("/repositories"), nil, "NOT_CONNECTED")
	if got := n.api.get(n.path("/integrations/bitbucket")); got["account"] != nil {
		t.Errorf("after removing, the account is %v", got["account"])
	}

	// Deliveries go on coming, and do nothing.
	site.commit(t, repo, "main", "while disconnected")
	if err := site.WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	attempts, err := site.Deliveries(t.Context(), onlyHook(t, site, repo), 0)
	if err != nil || len(attempts) != 2 {
		t.Fatalf("Bitbucket's requests: %d, %v", len(attempts), err)
	}
	if a := attempts[1]; a.Status != http.StatusOK || !strings.Contains(a.Response, "disconnected") {
		t.Errorf("a delivery to a disconnected workspace got %d %s", a.Status, a.Response)
	}
	if list := n.settled("web"); len(list) != 1 {
		t.Errorf("while disconnected there are %s", brief(list))
	}

	// Connecting again resumes: what was missed is found, what comes is deployed.
	if at := n.api.connect(n.workspace, "grant"); at.Query().Get("bitbucket") != "connected" {
		t.Fatalf("connecting again ended at %s", at)
	}
	if app := n.webhookState("web", "ACTIVE"); dig(app, "webhook", "id") != webhook || app["autoDeployPaused"] != nil {
		t.Errorf("connected again, the app says %v, %v", app["webhook"], app["autoDeployPaused"])
	}
	onlyHook(t, site, repo)
	n.live("web", site.head(t, repo, "main"))
	n.live("web", site.commit(t, repo, "main", "connected again"))
}

// sealed are pieces of what auth stores about the workspace, where its sealed tokens are.
func (n *tenant) sealed() map[string]string {
	n.t.Helper()
	const bucket = "DEVPILOT_AUTH_INTEGRATIONS"
	st, err := n.js(n.t).Stream(n.t.Context(), "KV_"+bucket)
	if err != nil {
		n.t.Fatal(err)
	}
	m, err := st.GetLastMsgForSubject(n.t.Context(), "$KV."+bucket+"."+n.workspace+".>")
	if err != nil {
		n.t.Fatal(err)
	}
	if len(m.Data) < 2*tokenLength {
		n.t.Fatalf("what is stored has %d bytes, too few for two tokens", len(m.Data))
	}
	pieces := map[string]string{}
	for i, at := range []int{len(m.Data) / 4, len(m.Data) / 2, 3 * len(m.Data) / 4} {
		pieces[fmt.Sprintf("piece %d of the stored integration", i)] = string(m.Data[at : at+64])
	}
	if look := n.onDisk(pieces); len(look.found) == 0 {
		n.t.Fatal("what is stored is not found on disk, so that it is gone later would prove nothing")
	}
	return pieces
}

// tokenLength is how long the emulator's tokens are.
const tokenLength = 2700

// onDisk searches all places for what was stored.
func (n *tenant) onDisk(pieces map[string]string) *search {
	n.t.Helper()
	look := newSearch(n.t, pieces)
	for _, place := range n.places() {
		look.files(place, n.kept())
	}
	return look
}
