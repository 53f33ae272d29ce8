package hook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"

	"devpilot.io/bitbucket/pkg/seal"
)

// Header names of a delivery (BITBUCKET.md#delivery-headers). Their case on the wire is arbitrary.
const (
	HeaderEvent     = "X-Event-Key"
	HeaderHook      = "X-Hook-UUID"    // without braces in captures; NormalizeUUID both sides
	HeaderRequest   = "X-Request-UUID" // the delivery's id; whether retries reuse it is not known
	HeaderAttempt   = "X-Attempt-Number"
	HeaderSignature = "X-Hub-Signature"
)

// Event keys that a receiver tells apart.
const (
	EventPush = "repo:push"
	// EventProof is our own: a request that we send to ourselves to prove that deliveries arrive.
	EventProof = "devpilot:proof"
	EventPing  = "diagnostics:ping" // of Data Center; Bitbucket Cloud sends none on creation
)

// The reasons for which a signature is not accepted.
var (
	// ErrSignatureMissing: there is no signature header, so the hook has no secret at Bitbucket.
	ErrSignatureMissing = errors.New("hook: no signature")
	// ErrSignatureMalformed: the header is not `sha256=` and 64 hexadecimal digits.
	ErrSignatureMalformed = errors.New("hook: malformed signature")
	// ErrSignatureMismatch: the body was signed with another secret, or changed on its way.
	ErrSignatureMismatch = errors.New("hook: signature does not match")
	// ErrNoSecret: no secret was given to verify with. An empty one is never used.
	ErrNoSecret = errors.New("hook: no secret to verify with")
)

const signaturePrefix = "sha256="

// Verify checks the signature header over the raw body: HMAC-SHA256 with the secret's UTF-8 bytes
// (BITBUCKET.md#signature). It returns the index of the secret that matched, so that the caller
// learns when a rotated one is no longer used. All secrets are always tried, and compared in
// constant time: the time tells neither which one matched nor how much of a signature was right.
func Verify(body []byte, header string, secrets ...seal.Secret) (matched int, err error) {
	header = strings.TrimSpace(header)
	if header == "" {
		return -1, ErrSignatureMissing
	}
	digits, ok := strings.CutPrefix(header, signaturePrefix)
	if !ok || len(digits) != hex.EncodedLen(sha256.Size) {
		return -1, ErrSignatureMalformed
	}
	given, err := hex.DecodeString(digits)
	if err != nil {
		return -1, ErrSignatureMalformed
	}
	matched, usable := -1, false
	for i, secret := range secrets {
		if secret.IsZero() {
			continue
		}
		usable = true
		if equal := hmac.Equal(given, sum(body, secret)); equal && matched < 0 {
			matched = i
		}
	}
	switch {
	case !usable:
		return -1, ErrNoSecret
	case matched < 0:
		return -1, ErrSignatureMismatch
	default:
		return matched, nil
	}
}

// Sign makes the header value for a body, as Bitbucket does.
func Sign(body []byte, secret seal.Secret) string {
	return signaturePrefix + hex.EncodeToString(sum(body, secret))
}

func sum(body []byte, secret seal.Secret) []byte {
	mac := hmac.New(sha256.New, []byte(secret.Reveal()))
	mac.Write(body) // never fails, as hash.Hash documents
	return mac.Sum(nil)
}
