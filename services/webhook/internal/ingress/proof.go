package ingress

import (
	"net/http"
)

// HeaderProof is what a verified proof is answered with: its own signature again, under the webhook's secret
// and a prefix that no delivery has. Who does not know the secret cannot make it, and it tells nothing of it.
const HeaderProof = "X-Devpilot-Proof"

// ProofAnswer is what is signed of a proof that was verified.
func ProofAnswer(body []byte) []byte { return append([]byte("devpilot-proof-answer:"), body...) }

// proof answers a request that we sent to ourselves. It is verified like any delivery and then neither stored
// nor routed: it says nothing about the hook at Bitbucket, and no push follows from it.
func proof(req *request) *answer {
	a := accept(http.StatusOK, "proof", "Devpilot has reached itself; nothing follows from this.")
	a.proof = req.proof
	return a
}
