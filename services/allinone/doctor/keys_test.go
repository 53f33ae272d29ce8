package doctor

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/services/allinone"
)

func TestRun_keysThatAreWrong(t *testing.T) {
	w := newWorld(t)
	other := filepath.Join(t.TempDir(), "other")
	if err := allinone.MakeKeys(&bytes.Buffer{}, other); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "broken.json")
	if err := os.WriteFile(broken, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.begin(w.keys)
	w.fails([]failing{
		{"foreign keyset", "auth", "keyset", map[string]string{"DEVPILOT_ENCRYPTION_KEYSET_FILE": other}, checkup.Failed, "does not open what is stored", "its service began with"},
		{"broken keyset", "auth", "keyset", map[string]string{"DEVPILOT_ENCRYPTION_KEYSET_FILE": broken}, checkup.Failed, "cannot be used", "restore it from a backup"},
		{"key of another service", "auth", "identity-keys", map[string]string{"DEVPILOT_IDENTITY_KEY_FILE": filepath.Join(w.keys, "identity-repo.json")}, checkup.Failed, "no private key of auth", "make-keys"},
	})
}
