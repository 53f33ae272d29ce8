package seal

import (
	"os"
	"path/filepath"
)

// Keysets are the keysets of several services, by service. Some or all of them may be the same one.
type Keysets map[string]*Keyset

// Shared is one keyset for several services.
func Shared(k *Keyset, services ...string) Keysets {
	all := Keysets{}
	for _, s := range services {
		all[s] = k
	}
	return all
}

// KeysetFileOf is the file of a service's keyset, where path says where keysets are: that file itself, or, where it is a
// directory, encryption-<service>.json in it.
func KeysetFileOf(path, service string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(path, "encryption-"+service+".json")
	}
	return path
}

// LoadKeysets reads the keysets of services from where path says; see KeysetFileOf. The error is that of LoadKeysetFile.
func LoadKeysets(path string, services ...string) (Keysets, error) {
	all, read := Keysets{}, map[string]*Keyset{}
	for _, s := range services {
		file := KeysetFileOf(path, s)
		if read[file] == nil {
			k, err := LoadKeysetFile(file)
			if err != nil {
				return nil, err
			}
			read[file] = k
		}
		all[s] = read[file]
	}
	return all, nil
}
