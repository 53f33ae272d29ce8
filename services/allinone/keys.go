package allinone

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/nats-io/nkeys"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/seal"
)

// MakeKeys makes what services in processes of their own need: an encryption keyset for each,
// the identity keys (all in one file, and a file per service that holds only that service's private key), nkeys for
// NATS and an admin token. It overwrites nothing; the names of the files are printed, never what is in them.
func MakeKeys(w io.Writer, directory string) error {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return fmt.Errorf("make the keys' directory: %w", err)
	}
	made := func(name string, err error) error {
		if err != nil {
			return fmt.Errorf("make %s: %w", name, err)
		}
		_, err = fmt.Fprintln(w, filepath.Join(directory, name))
		return err
	}
	for _, service := range Services() {
		path := seal.KeysetFileOf(directory, service)
		_, err := seal.CreateKeysetFile(path)
		if err := made(filepath.Base(path), err); err != nil {
			return err
		}
	}
	keys, err := identity.CreateKeysFile(filepath.Join(directory, "identity.json"), Services()...)
	if err := made("identity.json", err); err != nil {
		return err
	}
	for _, service := range Services() {
		name := "identity-" + service + ".json"
		if err := made(name, keys.For(service).WriteFile(filepath.Join(directory, name))); err != nil {
			return err
		}
	}
	for _, user := range natsUsers {
		seed, err := newSeed()
		if err != nil {
			return fmt.Errorf("make a user of NATS: %w", err)
		}
		path := SeedFile(directory, user)
		if err := made(filepath.Base(path), seal.WriteSecretFile(path, seed)); err != nil {
			return err
		}
	}
	return made("admin.token", seal.WriteSecretFile(AdminTokenFile(directory), newAdminToken()))
}

// natsUsers are the users of NATS that services in processes of their own, and people's tools, may be.
var natsUsers = []string{"auth", "webhook", "deployer", "deployer-api", "deployer-worker", "gateway", Operator}

// SeedFile is the seed of a user's nkey in a directory of MakeKeys.
func SeedFile(directory, user string) string { return filepath.Join(directory, "nats-"+user+".nk") }

func newSeed() ([]byte, error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return nil, err
	}
	return pair.Seed()
}

// publicKey is what NATS is told of a user.
func publicKey(directory, user string) (string, error) {
	seed, err := os.ReadFile(SeedFile(directory, user))
	if err != nil {
		return "", fmt.Errorf("read the nkey of %s: %w", user, err)
	}
	pair, err := nkeys.FromSeed(bytes.TrimSpace(seed))
	if err != nil {
		return "", fmt.Errorf("%s holds no seed of an nkey: %w", SeedFile(directory, user), err)
	}
	defer pair.Wipe()
	return pair.PublicKey()
}

func newAdminToken() []byte { return []byte("dpa_" + rand.Text() + rand.Text() + "\n") }
