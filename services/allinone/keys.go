package allinone

import (
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/seal"
)

// MakeKeys makes what services in processes of their own need: an encryption keyset for each,
// the identity keys (all in one file, and a file per service that holds only that service's private key) and an
// admin token. It overwrites nothing; the names of the files are printed, never what is in them.
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
	for _, service := range keyHolders {
		path := seal.KeysetFileOf(directory, service)
		_, err := seal.CreateKeysetFile(path)
		if err := made(filepath.Base(path), err); err != nil {
			return err
		}
	}
	keys, err := identity.CreateKeysFile(filepath.Join(directory, "identity.json"), keyHolders...)
	if err := made("identity.json", err); err != nil {
		return err
	}
	for _, service := range keyHolders {
		name := "identity-" + service + ".json"
		if err := made(name, keys.For(service).WriteFile(filepath.Join(directory, name))); err != nil {
			return err
		}
	}
	return made("admin.token", seal.WriteSecretFile(AdminTokenFile(directory), newAdminToken()))
}

func newAdminToken() []byte { return []byte("dpa_" + rand.Text() + rand.Text() + "\n") }
