package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/pasted"
	"devpilot.io/bitbucket/pkg/seal"
)

// Keys holds public keys of all services and private keys of some. Immutable; safe for concurrent
// use.
type Keys struct {
	services map[string][]key
}

type key struct {
	id      string
	public  ed25519.PublicKey
	private ed25519.PrivateKey // nil where not held
}

// keysFile is the JSON form: {"services": {"auth": [{"public": "…", "private": "…"}]}}, keys in
// base64url without padding, private as the 32-byte seed. The first key of a service that has a
// private half signs, all of them verify.
type keysFile struct {
	Services map[string][]keyEntry `json:"services"`
}

type keyEntry struct {
	Public  string `json:"public"`
	Private string `json:"private,omitempty"`
}

// NewKeys makes one new key pair per service, in memory only.
func NewKeys(services ...string) (*Keys, error) {
	k := &Keys{services: make(map[string][]key, len(services))}
	for _, s := range services {
		if s == "" {
			return nil, errors.New("identity: a service without a name")
		}
		pub, priv, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("identity: make key for %s: %w", s, err)
		}
		k.services[s] = []key{{id: keyID(pub), public: pub, private: priv}}
	}
	return k, nil
}

// CreateKeysFile makes keys for the services and writes them to path, mode 0600, synced; it fails
// with fs.ErrExist when the file is there.
func CreateKeysFile(path string, services ...string) (*Keys, error) {
	k, err := NewKeys(services...)
	if err != nil {
		return nil, err
	}
	if err := k.WriteFile(path); err != nil {
		return nil, err
	}
	return k, nil
}

// WriteFile writes the keys to a new file, mode 0600, synced; it fails with fs.ErrExist when the
// file is there.
func (k *Keys) WriteFile(path string) error {
	f := keysFile{Services: make(map[string][]keyEntry, len(k.services))}
	for s, keys := range k.services {
		for _, key := range keys {
			e := keyEntry{Public: base64.RawURLEncoding.EncodeToString(key.public)}
			if key.private != nil {
				e.Private = base64.RawURLEncoding.EncodeToString(key.private.Seed())
			}
			f.Services[s] = append(f.Services[s], e)
		}
	}
	raw, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("identity: encode keys: %w", err)
	}
	if err := seal.WriteSecretFile(path, append(raw, '\n')); err != nil {
		return fmt.Errorf("identity: write keys: %w", err)
	}
	return nil
}

// LoadKeysFile reads a keys file. Unknown members are refused.
func LoadKeysFile(path string) (*Keys, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("identity: read keys: %w", err)
	}
	dec := json.NewDecoder(strings.NewReader(pasted.Text(string(raw))))
	dec.DisallowUnknownFields()
	var f keysFile
	if err := dec.Decode(&f); err != nil {
		// The decoder's text can quote what it read, which is secret.
		return nil, fmt.Errorf("identity: %s is not a file of identity keys", path)
	}
	k := &Keys{services: make(map[string][]key, len(f.Services))}
	for s, entries := range f.Services {
		for i, e := range entries {
			parsed, err := e.parse()
			if err != nil {
				return nil, fmt.Errorf("identity: %s: key %d of service %q: %w", path, i+1, s, err)
			}
			k.services[s] = append(k.services[s], parsed)
		}
	}
	if len(k.services) == 0 {
		return nil, fmt.Errorf("identity: %s holds no keys", path)
	}
	return k, nil
}

func (e keyEntry) parse() (key, error) {
	pub, err := base64.RawURLEncoding.DecodeString(e.Public)
	if err != nil || len(pub) != ed25519.PublicKeySize {
		return key{}, errors.New("the public half is not an Ed25519 key in base64url")
	}
	k := key{id: keyID(pub), public: pub}
	if e.Private == "" {
		return k, nil
	}
	seed, err := base64.RawURLEncoding.DecodeString(e.Private)
	if err != nil || len(seed) != ed25519.SeedSize {
		return key{}, errors.New("the private half is not an Ed25519 seed in base64url")
	}
	k.private = ed25519.NewKeyFromSeed(seed)
	if !k.public.Equal(k.private.Public()) {
		return key{}, errors.New("the private half does not belong to the public one")
	}
	return k, nil
}

// For returns keys with all public halves and only the private ones of the named services: what
// the file of a single service should hold.
func (k *Keys) For(services ...string) *Keys {
	n := &Keys{services: make(map[string][]key, len(k.services))}
	for s, keys := range k.services {
		kept := slices.Clone(keys)
		if !slices.Contains(services, s) {
			for i := range kept {
				kept[i].private = nil
			}
		}
		n.services[s] = kept
	}
	return n
}

// Services lists the services that have keys, sorted.
func (k *Keys) Services() []string { return slices.Sorted(maps.Keys(k.services)) }

// String never shows key material.
func (k *Keys) String() string { return fmt.Sprintf("identity keys of %v", k.Services()) }

// GoString never shows key material.
func (k *Keys) GoString() string { return k.String() }

func (k *Keys) signing(service string) (key, error) {
	for _, key := range k.services[service] {
		if key.private != nil {
			return key, nil
		}
	}
	return key{}, fmt.Errorf("identity: no private key of service %q", service)
}

func (k *Keys) verifying(service, id string) (ed25519.PublicKey, bool) {
	for _, key := range k.services[service] {
		if key.id == id {
			return key.public, true
		}
	}
	return nil, false
}

func keyID(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}
