package keyset_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/allinone"
	"devpilot.io/bitbucket/services/allinone/keyset"
)

// A command that was run before, or was interrupted among the files, changes what is left and nothing twice.
func TestAddAndPromote_runAgainGoOn(t *testing.T) {
	dir := t.TempDir()
	for _, service := range allinone.Services() {
		if _, err := seal.CreateKeysetFile(seal.KeysetFileOf(dir, service)); err != nil {
			t.Fatal(err)
		}
	}
	read := func(service string) *seal.Keyset {
		t.Helper()
		k, err := seal.LoadKeysetFile(seal.KeysetFileOf(dir, service))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	before := read("auth").Primary()
	var f keyset.Settings
	f.EncryptionKeysetFile = dir
	one := f
	one.Service = []string{"auth"}
	for step, settings := range []keyset.Settings{one, f, f} { // as if it had been interrupted after auth
		if err := keyset.Add(&bytes.Buffer{}, settings); err != nil {
			t.Fatalf("add %d: %v", step, err)
		}
	}
	added, ok := read("auth").Added()
	for _, service := range allinone.Services() {
		if _, has := read(service).Added(); !ok || !has || len(read(service).KeyIDs()) != 2 {
			t.Errorf("%s: %s", service, read(service))
		}
	}
	for step, settings := range []keyset.Settings{one, f, f} {
		if err := keyset.Promote(&bytes.Buffer{}, settings); err != nil {
			t.Fatalf("promote %d: %v", step, err)
		}
	}
	if k := read("auth"); k.Primary() != added || len(k.Earlier()) != 1 || k.Earlier()[0] != before {
		t.Errorf("auth: %s after %d", k, before)
	}
}

// One file for all services is not changed for one of them.
func TestAdd_oneFileIsForAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "encryption.json")
	if _, err := seal.CreateKeysetFile(path); err != nil {
		t.Fatal(err)
	}
	var f keyset.Settings
	f.EncryptionKeysetFile, f.Service = path, []string{"auth"}
	if err := keyset.Add(&bytes.Buffer{}, f); err == nil || !strings.Contains(err.Error(), "leave --service out") {
		t.Errorf("for one of its services: %v", err)
	}
	f.Service = nil
	if err := keyset.Add(&bytes.Buffer{}, f); err != nil {
		t.Error(err)
	}
	k, err := seal.LoadKeysetFile(path)
	if err != nil || len(k.KeyIDs()) != 2 {
		t.Errorf("%v, %v", k, err)
	}
}
