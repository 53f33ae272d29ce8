package keyset

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/services/allinone"
)

// Files say which keysets are meant: those that DEVPILOT_ENCRYPTION_KEYSET_FILE names, else that of the data directory. To embed
// in a kong struct.
type Files struct {
	servicemain.KeyFlags `embed:""`

	Service []string `name:"service" enum:"auth,repo,webhook,deployer,gateway" help:"Only the keysets of these services, where each has its own."`
}

// file is a keyset file with the services that it is for.
type file struct {
	path     string
	services []string
	keyset   *seal.Keyset
}

func (f *file) String() string { return strings.Join(f.services, ", ") }

func (f *file) save(k *seal.Keyset) error {
	f.keyset = k
	return k.SaveFile(f.path)
}

// load reads the files.
func (f Files) load(dataDir string) ([]*file, error) {
	path, services := f.EncryptionKeysetFile, f.Service
	if path == "" {
		path = allinone.KeysetFile(dataDir)
	}
	if len(services) == 0 {
		services = allinone.Services()
	}
	var all []*file
	for _, service := range services {
		own := seal.KeysetFileOf(path, service)
		if len(all) > 0 && all[len(all)-1].path == own {
			all[len(all)-1].services = append(all[len(all)-1].services, service)
			continue
		}
		keyset, err := seal.LoadKeysetFile(own)
		if err != nil {
			return nil, fmt.Errorf("the encryption keyset of %s (DEVPILOT_ENCRYPTION_KEYSET_FILE): %w", service, err)
		}
		all = append(all, &file{path: own, services: []string{service}, keyset: keyset})
	}
	if len(f.Service) > 0 && len(all) == 1 && seal.KeysetFileOf(path, "") == path {
		return nil, errors.New("one keyset is for all services here: leave --service out")
	}
	return all, nil
}

// Settings are those of the commands that change files alone. To embed in a kong struct.
type Settings struct {
	servicemain.DataFlags `embed:""`
	Files                 `embed:""`
}

// Add gives each keyset a new key that opens and does not seal yet. One that has such a key keeps it.
func Add(w io.Writer, f Settings) error {
	files, err := f.load(f.DataDir)
	if err != nil {
		return err
	}
	for _, one := range files {
		if id, ok := one.keyset.Added(); ok {
			fmt.Fprintf(w, "%s: key %d was added before and does not seal yet.\n", one, id)
			continue
		}
		next, id, err := one.keyset.AddKey()
		if err == nil {
			err = one.save(next)
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s: key %d was added.\n", one, id)
	}
	_, err = fmt.Fprintln(w, "Restart all processes with these files, one after the other. Then: devpilot keyset promote")
	return err
}

// Promote has the key that was added last seal from now on. A keyset without one stays as it is.
func Promote(w io.Writer, f Settings) error {
	files, err := f.load(f.DataDir)
	if err != nil {
		return err
	}
	for _, one := range files {
		id, ok := one.keyset.Added()
		if !ok {
			fmt.Fprintf(w, "%s: key %d seals already, and none was added after it.\n", one, one.keyset.Primary())
			continue
		}
		next, err := one.keyset.Promote(id)
		if err == nil {
			err = one.save(next)
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s: key %d seals from the next start on.\n", one, id)
	}
	_, err = fmt.Fprintln(w, "Restart all processes with these files, one after the other. Then: devpilot keyset reseal")
	return err
}
