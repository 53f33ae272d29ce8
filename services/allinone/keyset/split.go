package keyset

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/allinone"
)

// SplitSettings are those of `devpilot keyset split`. To embed in a kong struct.
type SplitSettings struct {
	Directory string `arg:"" help:"Directory that has encryption.json, the keyset of all services."`
}

// Split makes a keyset for each service out of the one that all have. It opens and seals what that one does, and holds a
// new key of the service's own, which opens and does not seal yet. What is there already is kept.
func Split(w io.Writer, f SplitSettings) error {
	from := filepath.Join(f.Directory, "encryption.json")
	shared, err := seal.LoadKeysetFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not there: name the directory with the keyset that all services have now", from)
	}
	if err != nil {
		return err
	}
	for _, service := range allinone.Services() {
		path := seal.KeysetFileOf(f.Directory, service)
		own, _, err := shared.AddKey()
		if err == nil {
			err = own.CreateFile(path)
		}
		if errors.Is(err, fs.ErrExist) {
			err = keeps(path, shared)
		}
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w, path); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(w, "Give each service its own of these files in the place of encryption.json, and restart its processes, one after the other. Then: devpilot keyset promote")
	return err
}

// keeps is an error where the keyset that is there lacks a key of the shared one: then it was made of another.
func keeps(path string, shared *seal.Keyset) error {
	own, err := seal.LoadKeysetFile(path)
	if err != nil {
		return err
	}
	for _, id := range shared.KeyIDs() {
		if !slices.Contains(own.KeyIDs(), id) {
			return fmt.Errorf("%s is there already and does not open what encryption.json seals: move it away, or use it as it is", path)
		}
	}
	return nil
}
