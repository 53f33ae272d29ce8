package doctor

import (
	"context"
	"errors"
	"io/fs"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/checkup"
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
	js, err := x.jetStream()
	if err != nil {
		return "", err
	}
	return installation.Look(ctx, js, keysets)
}

// errNoNATS says that the program names no NATS.
var errNoNATS = errors.New("no NATS is named")

// jetStream is that of the NATS that the program names.
func (x *exam) jetStream() (jetstream.JetStream, error) {
	if x.nats == nil {
		return nil, errNoNATS
	}
	return x.nats.JetStream()
}

// checkKeyset checks that the keyset can be read and opens what is stored.
func (x *exam) checkKeyset(context.Context) checkup.Check {
	path := x.keyFile(x.flags.EncryptionKeysetFile, allinone.KeysetFile)
	if path == "" {
		return checkup.Skip("DEVPILOT_ENCRYPTION_KEYSET_FILE is not set.")
	}
	_, err := x.keysets()
	switch {
	case errors.Is(err, errNotYet):
		return checkup.Skip("There is none yet: the first start makes %s.", path)
	case err != nil:
		return checkup.BadKeyset(path, err)
	case x.program.withoutNATS:
		return checkup.Well("The keyset %s can be read; %s stores nothing with it.", path, x.flags.Service)
	}
	return checkup.Keyset(path, x.owner)
}

// checkKeys checks that the program has its own identity key, and the public ones of all.
func (x *exam) checkKeys(context.Context) checkup.Check {
	path := x.keyFile(x.flags.IdentityKeyFile, allinone.IdentityFile)
	if path == "" {
		return checkup.Skip("DEVPILOT_IDENTITY_KEY_FILE is not set.")
	}
	keys, err := x.keys()
	switch {
	case errors.Is(err, errNotYet):
		return checkup.Skip("There are none yet: the first start makes %s.", path)
	case err != nil:
		return checkup.BadKeys(path, err)
	}
	own := []string{x.flags.Service}
	if x.flags.Service == whole {
		own = allinone.Services()
	}
	return checkup.Keys(path, keys, own, allinone.Services())
}
