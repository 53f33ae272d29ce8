package rpc_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"devpilot.io/bitbucket/pkg/identity"
)

// gatewayKey reads the gateway's private key and its id the way an operator could: from the file.
func gatewayKey(t *testing.T, keys *identity.Keys) (ed25519.PrivateKey, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := keys.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Services map[string][]struct{ Public, Private string } `json:"services"`
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		t.Fatal(err)
	}
	seed, err := base64.RawURLEncoding.DecodeString(f.Services["gateway"][0].Private)
	if err != nil {
		t.Fatal(err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	sum := sha256.Sum256(key.Public().(ed25519.PublicKey))
	return key, base64.RawURLEncoding.EncodeToString(sum[:9])
}
