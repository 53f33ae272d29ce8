package seal_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"devpilot.io/bitbucket/pkg/seal"
)

func newKeyset(t *testing.T) *seal.Keyset {
	t.Helper()
	k, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustSeal(t *testing.T, k *seal.Keyset, plain, ad string) []byte {
	t.Helper()
	ct, err := k.Seal([]byte(plain), []byte(ad))
	if err != nil {
		t.Fatal(err)
	}
	return ct
}

func TestKeyset_sealAndOpen(t *testing.T) {
	k := newKeyset(t)
	for _, size := range []int{0, 1, 2600, 8 << 10, 1 << 20} { // tokens have no ceiling, DESIGN.md#secrets
		plain := strings.Repeat("x", size)
		ct := mustSeal(t, k, plain, "integration/acme-inc")
		if size > 8 && bytes.Contains(ct, []byte(plain)) {
			t.Fatal("the plaintext shows")
		}
		got, err := k.Open(ct, []byte("integration/acme-inc"))
		if err != nil || string(got) != plain {
			t.Errorf("size %d: %v", size, err)
		}
	}
}

func TestKeyset_openRefusesOtherRecordsChangesAndKeys(t *testing.T) {
	k := newKeyset(t)
	ct := mustSeal(t, k, "token", "integration/acme-inc")
	flipped := bytes.Clone(ct)
	flipped[len(flipped)-1] ^= 1
	for name, try := range map[string]func() ([]byte, error){
		"another record": func() ([]byte, error) { return k.Open(ct, []byte("integration/other")) },
		"changed":        func() ([]byte, error) { return k.Open(flipped, []byte("integration/acme-inc")) },
		"cut":            func() ([]byte, error) { return k.Open(ct[:len(ct)-3], []byte("integration/acme-inc")) },
		"empty":          func() ([]byte, error) { return k.Open(nil, nil) },
		"another key":    func() ([]byte, error) { return newKeyset(t).Open(ct, []byte("integration/acme-inc")) },
	} {
		if got, err := try(); !errors.Is(err, seal.ErrOpen) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestKeyset_secrets(t *testing.T) {
	k := newKeyset(t)
	ct, err := k.SealSecret(seal.NewSecret(planted), []byte("ad"))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := k.OpenSecret(ct, []byte("ad")); err != nil || s.Reveal() != planted {
		t.Errorf("%v", err)
	}
	if _, err := k.OpenSecret(ct, []byte("other")); !errors.Is(err, seal.ErrOpen) {
		t.Errorf("%v", err)
	}
}

func TestKeyset_rotationHasNoGap(t *testing.T) {
	old := newKeyset(t)
	before := mustSeal(t, old, "before", "ad")
	added, id, err := old.AddKey()
	if err != nil {
		t.Fatal(err)
	}
	// While one replica has the new key and another has not, both must read both.
	during := mustSeal(t, added, "during", "ad")
	if _, err := old.Open(during, []byte("ad")); err != nil {
		t.Errorf("a replica without the new key cannot open what the first sealed: %v", err)
	}
	promoted, err := added.Promote(id)
	if err != nil {
		t.Fatal(err)
	}
	after := mustSeal(t, promoted, "after", "ad")
	for name, ct := range map[string][]byte{"before": before, "during": during, "after": after} {
		if got, err := added.Open(ct, []byte("ad")); err != nil || string(got) != name {
			t.Errorf("not yet promoted replica: %s: %v", name, err)
		}
		if got, err := promoted.Open(ct, []byte("ad")); err != nil || string(got) != name {
			t.Errorf("promoted replica: %s: %v", name, err)
		}
	}
	dropped, err := promoted.DropKey(old.KeyIDs()[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dropped.Open(after, []byte("ad")); err != nil {
		t.Errorf("after dropping the old key: %v", err)
	}
	if _, err := dropped.Open(before, []byte("ad")); !errors.Is(err, seal.ErrOpen) {
		t.Errorf("a dropped key still opens: %v", err)
	}
	if ids := dropped.KeyIDs(); len(ids) != 1 || ids[0] != id {
		t.Errorf("keys %v", ids)
	}
	if _, err := dropped.DropKey(id); err == nil {
		t.Error("the primary was dropped")
	}
	if _, err := dropped.Promote(id + 1); err == nil {
		t.Error("an unknown key was promoted")
	}
}

func TestKeysetFile_createLoadReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyset.json")
	k, err := seal.CreateKeysetFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	ct := mustSeal(t, k, "token", "ad")
	loaded, err := seal.LoadKeysetFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := loaded.Open(ct, []byte("ad")); err != nil || string(got) != "token" {
		t.Errorf("%v", err)
	}
	if _, err := seal.CreateKeysetFile(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second create: %v", err)
	}
	more, _, err := loaded.AddKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := more.SaveFile(path); err != nil {
		t.Fatal(err)
	}
	again, err := seal.LoadKeysetFile(path)
	if err != nil || len(again.KeyIDs()) != 2 {
		t.Fatalf("%v", err)
	}
	if info, err = os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v after replace, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) != 0 {
		t.Errorf("files left behind: %v", left)
	}
}

func TestKeysetFile_ofTwoCreatorsOneWins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyset.json")
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, err := seal.CreateKeysetFile(path)
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, fs.ErrExist):
				t.Errorf("%v", err)
			default: // whoever lost must be able to read the winner's file at once
				if _, err := seal.LoadKeysetFile(path); err != nil {
					t.Errorf("%v", err)
				}
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d creators won", won.Load())
	}
}

func TestLoadKeysetFile_errorsDoNotQuoteTheFile(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"not json": planted, "not a keyset": `{"primaryKeyId":1,"key":[{"keyData":{"value":"` + planted + `"}}]}`, "empty": ""} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := seal.LoadKeysetFile(path)
		if err == nil || strings.Contains(err.Error(), planted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := seal.LoadKeysetFile(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestKeyset_printsNoKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyset.json")
	k, err := seal.CreateKeysetFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, value, _ := strings.Cut(string(raw), `"value":"`)
	value, _, _ = strings.Cut(value, `"`)
	if len(value) < 32 {
		t.Fatalf("no key found in the file: %d bytes", len(raw))
	}
	for _, out := range []string{fmt.Sprintf("%v %+v %#v %s", k, k, k, k), fmt.Sprintf("%v", struct{ k *seal.Keyset }{k})} {
		if strings.Contains(out, value) {
			t.Error("a keyset prints its key")
		}
	}
}

func TestDeterministic_equalTextsAreEqualWithinAPurposeOnly(t *testing.T) {
	k := newKeyset(t)
	d := deterministic(t, k, "page-token")
	a, b := dseal(t, d, "cursor", "ad"), dseal(t, d, "cursor", "ad")
	if !bytes.Equal(a, b) || bytes.Equal(a, dseal(t, d, "cursor", "other")) || bytes.Equal(a, dseal(t, d, "cursoR", "ad")) {
		t.Error("equality is not that of the input")
	}
	if _, err := deterministic(t, k, "other").Open(a, []byte("ad")); !errors.Is(err, seal.ErrOpen) {
		t.Errorf("another purpose opened it: %v", err)
	}
	if _, err := k.Open(a, []byte("ad")); !errors.Is(err, seal.ErrOpen) {
		t.Errorf("the keyset itself opened it: %v", err)
	}
	// It must follow the keyset through rotation and a restart.
	added, id, err := k.AddKey()
	if err != nil {
		t.Fatal(err)
	}
	promoted, err := added.Promote(id)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := deterministic(t, promoted, "page-token").Open(a, []byte("ad")); err != nil || string(got) != "cursor" {
		t.Errorf("after rotation: %v", err)
	}
	for _, bad := range [][]byte{nil, a[:3], a[:8], append(bytes.Clone(a), 0)} {
		if _, err := d.Open(bad, []byte("ad")); !errors.Is(err, seal.ErrOpen) {
			t.Errorf("%x: %v", bad, err)
		}
	}
}

func deterministic(t *testing.T, k *seal.Keyset, purpose string) *seal.Deterministic {
	t.Helper()
	d, err := k.Deterministic(purpose)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func dseal(t *testing.T, d *seal.Deterministic, plain, ad string) []byte {
	t.Helper()
	ct, err := d.Seal([]byte(plain), []byte(ad))
	if err != nil {
		t.Fatal(err)
	}
	return ct
}

// A keyset that an editor saved with a byte order mark and its own line ends is the same keyset.
func TestLoadKeysetFile_savedByAnEditor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyset.json")
	k, err := seal.CreateKeysetFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := k.Seal([]byte("text"), nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("\ufeff"+strings.ReplaceAll(string(raw), "\n", "\r\n")+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := seal.LoadKeysetFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := again.Open(sealed, nil); err != nil || string(text) != "text" {
		t.Fatalf("%q, %v", text, err)
	}
}
