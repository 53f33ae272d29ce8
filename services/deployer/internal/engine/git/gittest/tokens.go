package gittest

import (
	"context"
	"sync"

	"devpilot.io/bitbucket/pkg/seal"
)

// Tokens hands out the first, and each time one is rejected the next.
type Tokens struct {
	mu       sync.Mutex
	List     []string
	Rejected []string // those that were reported
	Err      error    // for all who ask
}

// Token hands out a token.
func (k *Tokens) Token(_ context.Context, _, _ string, rejected seal.Secret) (seal.Secret, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.Err != nil {
		return seal.Secret{}, k.Err
	}
	if !rejected.IsZero() {
		k.Rejected = append(k.Rejected, rejected.Reveal())
		if len(k.List) > 1 {
			k.List = k.List[1:]
		}
	}
	return seal.NewSecret(k.List[0]), nil
}
