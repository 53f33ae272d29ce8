package allinone

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/pasted"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
)

// directory is the data directory:
//
//	admin.token       the admin token, 0600
//	keys/             the encryption keyset and the identity keys, 0600
//	nats/             JetStream: all that must not be lost
//	stores.sock       where a running program has it read, for backups
//	emulator/         the emulator's repositories and state, apart from ours
//	apps/, cache/ …   the deployer's releases and mirrors
//	scenario.json     what of a scenario was played, where there is one; beside it its people
type directory struct{ path string }

func openDirectory(path string) (directory, error) {
	abs, err := filepath.Abs(path)
	if err == nil {
		err = os.MkdirAll(filepath.Join(abs, "keys"), 0o700)
	}
	if err != nil {
		return directory{}, fmt.Errorf("the data directory (--data-dir, DEVPILOT_DATA_DIR) cannot be made: %w", err)
	}
	return directory{abs}, nil
}

func (d directory) nats() string     { return StoreDir(d.path) }
func (d directory) emulator() string { return filepath.Join(d.path, "emulator") }

// keysets loads the encryption keysets: those that the operator named, else our own one for all services, which the
// first start makes. In one process nothing would be won by more.
func (d directory) keysets(named string) (seal.Keysets, error) {
	if named != "" {
		return seal.LoadKeysets(named, Services()...)
	}
	path := KeysetFile(d.path)
	keysets, err := seal.LoadKeysets(path, Services()...)
	if !errors.Is(err, fs.ErrNotExist) {
		return keysets, err
	}
	keyset, err := seal.CreateKeysetFile(path)
	return seal.Shared(keyset, Services()...), err
}

// identityKeys loads the keys by which the services know each other, likewise.
func (d directory) identityKeys(named string) (*identity.Keys, error) {
	if named != "" {
		return identity.LoadKeysFile(named)
	}
	path := IdentityFile(d.path)
	keys, err := identity.LoadKeysFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return identity.CreateKeysFile(path, Services()...)
	}
	return keys, err
}

// Services are all services: each holds an identity key and an encryption keyset.
func Services() []string { return servicemain.Services() }

// Sealers are the services that seal what they store in NATS, and have a canary there. What repo seals is nowhere stored.
func Sealers() []string { return []string{"auth", "webhook", "deployer", "gateway"} }

// StoreDir is where the embedded NATS of a data directory has its store.
func StoreDir(dataDir string) string { return filepath.Join(dataDir, "nats") }

// KeysetFile is where the encryption keyset of a data directory is.
func KeysetFile(dataDir string) string { return filepath.Join(dataDir, "keys", "encryption.json") }

// IdentityFile is where the identity keys of a data directory are.
func IdentityFile(dataDir string) string { return filepath.Join(dataDir, "keys", "identity.json") }

// AdminTokenFile is where the admin token of a data directory is.
func AdminTokenFile(dataDir string) string { return filepath.Join(dataDir, "admin.token") }

// adminToken loads the admin token; the first start makes it.
func (d directory) adminToken() (seal.Secret, error) {
	token, err := ReadAdminToken(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := seal.WriteSecretFile(AdminTokenFile(d.path), newAdminToken()); err != nil {
			return seal.Secret{}, fmt.Errorf("store the admin token: %w", err)
		}
		return ReadAdminToken(d.path)
	}
	return token, err
}

// minAdminToken is the least length of an admin token that was not cut short by hand.
const minAdminToken = 32

// ReadAdminToken reads the admin token of a data directory.
func ReadAdminToken(dataDir string) (seal.Secret, error) {
	path := AdminTokenFile(dataDir)
	raw, err := os.ReadFile(path)
	if err != nil {
		return seal.Secret{}, fmt.Errorf("read the admin token: %w", err)
	}
	token := pasted.Line(string(raw))
	if len(token) < minAdminToken {
		return seal.Secret{}, fmt.Errorf("%s holds no admin token: delete the file and start Devpilot again to get a new one", path)
	}
	return seal.NewSecret(token), nil
}
