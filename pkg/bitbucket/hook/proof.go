package hook

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"devpilot.io/bitbucket/pkg/seal"
)

// HeaderProof is what a verified proof is answered with: its own signature again, under the same secret and
// a prefix that no delivery has. Who does not know the secret cannot make it, and it tells nothing of it.
const HeaderProof = "X-Devpilot-Proof"

// maxProofAnswer bounds what is read of an answer, in bytes.
const maxProofAnswer = 64 << 10

// SignProof is the HeaderProof of a proof that was verified.
func SignProof(body []byte, secret seal.Secret) string { return Sign(proofAnswer(body), secret) }

func proofAnswer(body []byte) []byte { return append([]byte("devpilot-proof-answer:"), body...) }

// Proof is what came of a signed request to ourselves.
type Proof struct {
	PublicURL string // scheme and host that were asked
	Status    int    // of the answer; 0 without one
	Verified  bool   // the answer is of who knows the secret
	Trouble   string // a sentence, where it is not verified
}

// Prove sends a signed request to an address of ours, as Bitbucket would, and holds the answer against the
// secret. The client must follow no redirect. Nothing that is said of trouble holds the secret or the path.
func Prove(ctx context.Context, client *http.Client, address string, secret seal.Secret) Proof {
	p := Proof{PublicURL: address}
	if u, err := url.Parse(address); err == nil {
		p.PublicURL = u.Scheme + "://" + u.Host
	}
	body := fmt.Sprintf(`{"proof":%q}`, rand.Text())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		p.Trouble = "The public URL cannot be asked."
		return p
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(HeaderEvent, EventProof)
	req.Header.Set(HeaderSignature, Sign([]byte(body), secret))
	answer, err := client.Do(req)
	if err != nil {
		p.Trouble = p.PublicURL + " does not answer: " + Cause(err)
		return p
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxProofAnswer))
	_ = answer.Body.Close()
	p.Status = answer.StatusCode
	_, err = Verify(proofAnswer([]byte(body)), answer.Header.Get(HeaderProof), secret)
	p.Verified = err == nil
	switch {
	case p.Verified:
	case p.Status >= 300 && p.Status < 400:
		p.Trouble = fmt.Sprintf("%s answers %d and sends elsewhere; Bitbucket follows no redirect.", p.PublicURL, p.Status)
	case p.Status == http.StatusUnauthorized:
		p.Trouble = p.PublicURL + " answers 401: the request was changed on its way, so that its signature does not match any more."
	case p.Status == http.StatusOK:
		p.Trouble = p.PublicURL + " answers 200, but it is not this Devpilot that answers there."
	default:
		p.Trouble = fmt.Sprintf("%s answers %d instead of 200.", p.PublicURL, p.Status)
	}
	return p
}

// Cause is an error of an HTTP client without the address that it happened at.
func Cause(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return err.Error()
}

// Path is what precedes a webhook's id in the path that Bitbucket calls.
const Path = "/webhooks/bitbucket/"

// InstallationID is the place of a webhook's id in the path at which an installation proves that its
// deliveries arrive, before there is any webhook.
const InstallationID = "installation"

// InstallationSecret is what such a proof is signed with: it follows from the installation's keyset.
func InstallationSecret(keyset *seal.Keyset) (seal.Secret, error) {
	d, err := keyset.Deterministic("proof of deliveries")
	if err != nil {
		return seal.Secret{}, err
	}
	text, err := d.Seal([]byte(InstallationID), nil)
	if err != nil {
		return seal.Secret{}, err
	}
	return seal.NewSecret(fmt.Sprintf("%x", text)), nil
}
