package ingress

import (
	"net/http"

	"devpilot.io/bitbucket/pkg/bitbucket/hook"
)

// proof answers a request that we sent to ourselves. It is verified like any delivery and then neither stored
// nor routed: it says nothing about the hook at Bitbucket, and no push follows from it.
func proof(signed string) *answer {
	a := accept(http.StatusOK, "proof", "Devpilot has reached itself; nothing follows from this.")
	a.proof = signed
	return a
}

// proveInstallation answers a proof that is of no webhook but of the installation.
func (h *Handler) proveInstallation(w http.ResponseWriter, req *request, used *share) *answer {
	used.stranger = true
	body, a := readBody(w, req.http, used)
	if a != nil {
		return a
	}
	if _, err := hook.Verify(body, req.http.Header.Get(hook.HeaderSignature), h.cfg.Installation); err != nil {
		return badSignature(err)
	}
	return proof(hook.SignProof(body, h.cfg.Installation))
}
