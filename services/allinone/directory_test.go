package allinone

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDirectory_keysAndTokenAreMadeOnceForTheirOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	dir, err := openDirectory(path)
	if err != nil {
		t.Fatal(err)
	}
	token, err := dir.adminToken()
	if err != nil {
		t.Fatal(err)
	}
	keysets, err := dir.keysets("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dir.identityKeys(""); err != nil {
		t.Fatal(err)
	}
	sealed, err := keysets["auth"].Seal([]byte("text"), nil)
	if err != nil {
		t.Fatal(err)
	}

	again, err := openDirectory(path)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := again.adminToken(); err != nil || !second.Equal(token) {
		t.Fatalf("the second start has another admin token (%v)", err)
	}
	same, err := again.keysets("")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := same["gateway"].Open(sealed, nil); err != nil || string(text) != "text" {
		t.Fatalf("the second start cannot read what the first one sealed: %v", err)
	}
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", p, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestReadAdminToken_refusesWhatWasCutShort(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadAdminToken(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("without a file: %v", err)
	}
	if err := os.WriteFile(AdminTokenFile(dir), []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := ReadAdminToken(dir)
	if err == nil || strings.Contains(err.Error(), "short") || !strings.Contains(err.Error(), "delete the file") {
		t.Fatalf("a token cut short: %v", err)
	}
}

func TestMakeKeys_overwritesNothingAndPrintsNoSecret(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	var out bytes.Buffer
	if err := MakeKeys(&out, dir); err != nil {
		t.Fatal(err)
	}
	token, err := ReadAdminToken(dir)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), token.Reveal()) {
		t.Fatal("the admin token was printed")
	}
	if n := strings.Count(out.String(), "\n"); n != 2*len(Services())+len(natsUsers)+2 {
		t.Fatalf("%d files named: %s", n, out.String())
	}
	if err := MakeKeys(&out, dir); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("a second time: %v", err)
	}
	if now, err := ReadAdminToken(dir); err != nil || !now.Equal(token) {
		t.Fatal("the admin token was replaced")
	}
}
