package handshake

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"devpilot.io/bitbucket/pkg/redisx"
)

// Life is how long each step of a handshake may take.
const Life = 10 * time.Minute

// startKey: sealed authstorev1.Handshake under the digest of the id, until the start page was
// visited; TTL Life.
func startKey(id string) string { return redisx.Key("auth", "handshake", digest(id)) }

// stateKey: sealed authstorev1.Handshake under the digest of the state, until Bitbucket redirected
// back; TTL Life.
func stateKey(state string) string { return redisx.Key("auth", "state", digest(state)) }

// pendingKey: authstorev1.PendingHandshake, the handshake of a workspace begun last, until it is
// answered; TTL Life.
func pendingKey(workspace string) string { return redisx.Key("auth", "pending", workspace) }

func digest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
