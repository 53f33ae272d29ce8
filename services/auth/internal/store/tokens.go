package store

import (
	"crypto/sha256"
	"fmt"

	"devpilot.io/bitbucket/pkg/seal"
)

// Tokens seals tokens for the record of a workspace and opens them again. A sealed token that is
// copied to another workspace's record, or from one field to another kind of field, does not open.
type Tokens struct{ keyset *seal.Keyset }

// NewTokens uses the keyset for sealing and opening.
func NewTokens(keyset *seal.Keyset) Tokens { return Tokens{keyset} }

func accessData(workspace string) []byte {
	return []byte(BucketIntegrations + "/" + Key(workspace) + "/access")
}

func refreshData(workspace string) []byte {
	return []byte(BucketIntegrations + "/" + Key(workspace) + "/refresh")
}

// SealAccess seals an access token.
func (t Tokens) SealAccess(workspace string, token seal.Secret) ([]byte, error) {
	return t.keyset.SealSecret(token, accessData(workspace))
}

// OpenAccess opens what SealAccess sealed.
func (t Tokens) OpenAccess(workspace string, sealed []byte) (seal.Secret, error) {
	s, err := t.keyset.OpenSecret(sealed, accessData(workspace))
	if err != nil {
		return seal.Secret{}, fmt.Errorf("access token of workspace %s: %w", workspace, err)
	}
	return s, nil
}

// SealRefresh seals a refresh token, the current one or a spare. id tells equal tokens apart from
// different ones without opening them.
func (t Tokens) SealRefresh(workspace string, token seal.Secret) (sealed, id []byte, err error) {
	sealed, err = t.keyset.SealSecret(token, refreshData(workspace))
	if err != nil {
		return nil, nil, err
	}
	return sealed, refreshID(token), nil
}

// OpenRefresh opens what SealRefresh sealed.
func (t Tokens) OpenRefresh(workspace string, sealed []byte) (seal.Secret, error) {
	s, err := t.keyset.OpenSecret(sealed, refreshData(workspace))
	if err != nil {
		return seal.Secret{}, fmt.Errorf("refresh token of workspace %s: %w", workspace, err)
	}
	return s, nil
}

// refreshID is a digest under a prefix of its own, so that it is no plain SHA-256 of a token that
// something else might hold.
func refreshID(token seal.Secret) []byte {
	h := sha256.New()
	h.Write([]byte("devpilot refresh token\x00"))
	h.Write([]byte(token.Reveal()))
	return h.Sum(nil)[:16]
}
