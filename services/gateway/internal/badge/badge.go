// Package badge serves an app's status badge: a small picture with one word, to whoever has its link.
// It names neither app nor workspace, and asks no caller who they are.
//
// It depends on internal/edge and the deployer's proto.
package badge

import (
	"fmt"
	"net/http"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	"devpilot.io/bitbucket/services/gateway/internal/edge"
)

// Prefix is what the path of every badge begins with; the deployer makes the rest.
const Prefix = "/badges/"

// maxKey bounds a key: two names of 63 characters, sealed, are shorter.
const maxKey = 512

// keepFor is for how many seconds a browser or a proxy may show the same badge.
const keepFor = 30

// looks has the word and the colour of each state.
var looks = map[deployerv1.ReadBadgeResponse_State]struct{ word, colour string }{
	deployerv1.ReadBadgeResponse_NONE:      {"not deployed", "#57606a"},
	deployerv1.ReadBadgeResponse_DEPLOYING: {"deploying", "#0b5fc0"},
	deployerv1.ReadBadgeResponse_LIVE:      {"live", "#1a7f37"},
	deployerv1.ReadBadgeResponse_FAILED:    {"failed", "#b42318"},
}

// picture takes the widths and the words; nothing in it comes from a caller or a workspace.
const picture = `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="20" role="img" aria-label="deployment: %[4]s">` +
	`<title>deployment: %[4]s</title><rect width="%[1]d" height="20" rx="3" fill="#32383f"/>` +
	`<path d="M84 0h%[2]da3 3 0 0 1 3 3v14a3 3 0 0 1-3 3H84z" fill="%[3]s"/>` +
	`<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11"><text x="8" y="14">deployment</text><text x="92" y="14">%[4]s</text></g></svg>`

// Handler serves badges.
type Handler struct {
	Deployer deployerv1.DeployerServiceClient
}

// Serve answers with the badge that the path names.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request) {
	edge.Of(r.Context()).Route = Prefix + "{key}.svg" // the key itself is in no log
	key, ok := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, Prefix), ".svg")
	if !ok || key == "" || len(key) > maxKey {
		edge.Fail(w, r, apierr.New(apierr.ReasonNotFound, "There is no such badge: its link was revoked, or is not whole."))
		return
	}
	resp, err := h.Deployer.ReadBadge(r.Context(), &deployerv1.ReadBadgeRequest{Key: key})
	if err != nil {
		edge.Fail(w, r, err)
		return
	}
	look, ok := looks[resp.GetState()]
	if !ok {
		look.word, look.colour = "unknown", "#57606a"
	}
	header := w.Header()
	header.Set("Content-Type", "image/svg+xml")
	header.Set("Cache-Control", fmt.Sprintf("public, max-age=%d", keepFor))
	header.Set("Cross-Origin-Resource-Policy", "cross-origin") // it is made to be shown elsewhere
	header.Set("X-Robots-Tag", "noindex")
	word := 7*len(look.word) + 13
	_, _ = fmt.Fprintf(w, picture, 87+word, word, look.colour, look.word) // a client that went away is no error of ours
}
