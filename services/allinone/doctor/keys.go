package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/allinone"
)

// errNotYet says that a file will be made by the first start.
var errNotYet = errors.New("the first start makes it")

// keyFile is the file of a setting, or that of the data directory.
func (x *exam) keyFile(set string, own func(dataDir string) string) string {
	if set == "" && x.flags.Service == whole {
		return own(x.flags.DataDir)
	}
	return set
}

// sealers are the services whose keysets the program needs.
func (x *exam) sealers() []string {
	if x.flags.Service == whole {
		return allinone.Sealers()
	}
	return []string{x.flags.Service}
}

func (x *exam) loadKeysets() (seal.Keysets, error) {
	keysets, err := seal.LoadKeysets(x.keyFile(x.flags.EncryptionKeysetFile, allinone.KeysetFile), x.sealers()...)
	return keysets, x.notYet(err, x.flags.EncryptionKeysetFile)
}

func (x *exam) loadKeys() (*identity.Keys, error) {
	keys, err := identity.LoadKeysFile(x.keyFile(x.flags.IdentityKeyFile, allinone.IdentityFile))
	return keys, x.notYet(err, x.flags.IdentityKeyFile)
}

// notYet tells a file that the first start makes from one that is missing.
func (x *exam) notYet(err error, set string) error {
	if errors.Is(err, fs.ErrNotExist) && set == "" && x.flags.Service == whole && !x.hasStore() {
		return errNotYet
	}
	return err
}

// lookForOwner finds out whose the stores are.
func (x *exam) lookForOwner(ctx context.Context) (string, error) {
	keysets, err := x.keysets()
	if err != nil {
		return "", err
	}
	if x.flags.NATSURL.IsZero() {
		return x.embeddedOwner(ctx, keysets)
	}
	c, err := x.nats()
	if err != nil {
		return "", err
	}
	return installation.Look(ctx, c.js, keysets)
}

// checkKeyset checks that the keyset can be read and opens what is stored.
func (x *exam) checkKeyset(context.Context) Check {
	path := x.keyFile(x.flags.EncryptionKeysetFile, allinone.KeysetFile)
	if path == "" {
		return skipped("DEVPILOT_ENCRYPTION_KEYSET_FILE is not set.")
	}
	_, err := x.keysets()
	switch {
	case errors.Is(err, errNotYet):
		return skipped("There is none yet: the first start makes %s.", path)
	case err != nil:
		return failed(fmt.Sprintf("The keyset %s cannot be used: %v.", path, err), "Name the keyset that the service began with in DEVPILOT_ENCRYPTION_KEYSET_FILE; restore it from a backup if it is lost: without it what is stored cannot be read.")
	}
	found := "The keyset " + path
	if x.program.withoutNATS {
		return ok("%s can be read; %s stores nothing with it.", found, x.flags.Service)
	}
	id, err := x.owner()
	switch {
	case errors.Is(err, installation.ErrKeyset):
		return failed(found+" does not open what is stored in NATS: it is another installation's.",
			"Give each process the keyset that its service began with, or, for another installation on the same NATS, a name of its own (DEVPILOT_INSTALLATION).")
	case err != nil:
		return warning(fmt.Sprintf("%s can be read. Whether it opens what is stored is not known: %v.", found, err), "See what nats says.")
	case id == "":
		return ok("%s can be read. Nothing is stored yet that it would have to open.", found)
	}
	return ok("%s opens what is stored.", found)
}

// checkKeys checks that the program has its own identity key, and the public ones of all.
func (x *exam) checkKeys(context.Context) Check {
	path := x.keyFile(x.flags.IdentityKeyFile, allinone.IdentityFile)
	if path == "" {
		return skipped("DEVPILOT_IDENTITY_KEY_FILE is not set.")
	}
	keys, err := x.keys()
	const remedy = "Give each service its own file of those that `devpilot make-keys` makes together (identity-<service>.json)."
	switch {
	case errors.Is(err, errNotYet):
		return skipped("There are none yet: the first start makes %s.", path)
	case err != nil:
		return failed(fmt.Sprintf("The identity keys %s cannot be used: %v.", path, err), remedy)
	}
	own := []string{x.flags.Service}
	if x.flags.Service == whole {
		own = services()
	}
	for _, name := range own {
		if _, err := identity.NewSigner(keys, name); err != nil {
			return failed(fmt.Sprintf("%s has no private key of %s.", path, name), remedy)
		}
	}
	missing := slices.DeleteFunc(services(), func(name string) bool { return slices.Contains(keys.Services(), name) })
	if len(missing) > 0 {
		return failed(fmt.Sprintf("%s lacks the public keys of %s: calls of them are refused.", path, strings.Join(missing, ", ")), remedy)
	}
	return ok("%s has the private key of %s, and the public ones of all.", path, strings.Join(own, ", "))
}
