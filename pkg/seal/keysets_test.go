package seal_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"devpilot.io/bitbucket/pkg/seal"
)

// One file is the keyset of all; a directory has one for each service, and none stands in for another.
func TestLoadKeysets_fileAndDirectory(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "encryption.json")
	if _, err := seal.CreateKeysetFile(file); err != nil {
		t.Fatal(err)
	}
	shared, err := seal.LoadKeysets(file, "auth", "gateway")
	if err != nil || len(shared) != 2 || shared["auth"] != shared["gateway"] {
		t.Fatalf("of a file: %v, %v", shared, err)
	}
	if _, err := seal.LoadKeysets(dir, "auth"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory without that of auth: %v", err)
	}
	for _, service := range []string{"auth", "gateway"} {
		if _, err := seal.CreateKeysetFile(seal.KeysetFileOf(dir, service)); err != nil {
			t.Fatal(err)
		}
	}
	own, err := seal.LoadKeysets(dir, "auth", "gateway")
	if err != nil {
		t.Fatal(err)
	}
	ct := mustSeal(t, own["auth"], "token", "ad")
	if _, err := own["auth"].Open(ct, []byte("ad")); err != nil {
		t.Error(err)
	}
	if _, err := own["gateway"].Open(ct, []byte("ad")); !errors.Is(err, seal.ErrOpen) {
		t.Errorf("gateway opens what auth sealed: %v", err)
	}
}
