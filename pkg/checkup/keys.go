package checkup

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/installation"
)

// BadKeyset says that a keyset cannot be read.
func BadKeyset(path string, err error) Check {
	return Fail(fmt.Sprintf("The keyset %s cannot be used: %v.", path, err), "Name the keyset that the service began with in DEVPILOT_ENCRYPTION_KEYSET_FILE; restore it from a backup if it is lost: without it what is stored cannot be read.")
}

// Keyset checks that a keyset, which can be read, opens what is stored. owner is the id of the installation in NATS: see
// installation.Look.
func Keyset(path string, owner func() (id string, err error)) Check {
	found := "The keyset " + path
	id, err := owner()
	switch {
	case errors.Is(err, installation.ErrKeyset):
		return Fail(found+" does not open what is stored in NATS: it is another installation's.",
			"Give each process the keyset that its service began with, or, for another installation on the same NATS, a name of its own (DEVPILOT_INSTALLATION).")
	case err != nil:
		return Warn(fmt.Sprintf("%s can be read. Whether it opens what is stored is not known: %v.", found, err), "See what nats says.")
	case id == "":
		return Well("%s can be read. Nothing is stored yet that it would have to open.", found)
	}
	return Well("%s opens what is stored.", found)
}

const keysRemedy = "Give each service its own file of those that `devpilot make-keys` makes together (identity-<service>.json)."

// BadKeys says that identity keys cannot be read.
func BadKeys(path string, err error) Check {
	return Fail(fmt.Sprintf("The identity keys %s cannot be used: %v.", path, err), keysRemedy)
}

// Keys checks that a file has the private keys of some services, and the public ones of all.
func Keys(path string, keys *identity.Keys, own, all []string) Check {
	for _, name := range own {
		if _, err := identity.NewSigner(keys, name); err != nil {
			return Fail(fmt.Sprintf("%s has no private key of %s.", path, name), keysRemedy)
		}
	}
	missing := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return slices.Contains(keys.Services(), name) })
	if len(missing) > 0 {
		return Fail(fmt.Sprintf("%s lacks the public keys of %s: calls of them are refused.", path, strings.Join(missing, ", ")), keysRemedy)
	}
	return Well("%s has the private key of %s, and the public ones of all.", path, strings.Join(own, ", "))
}
