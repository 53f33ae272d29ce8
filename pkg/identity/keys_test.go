package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeysFile_roundTripAndModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.json")
	made, err := CreateKeysFile(path, "gateway", "auth")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	loaded, err := LoadKeysFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSigner(made, Gateway)
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.SignUser(jane)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := NewVerifier(loaded, "auth").User(token); err != nil || got != jane {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := CreateKeysFile(path, "gateway"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second create: %v", err)
	}
}

func TestKeys_ForKeepsOnlyTheNamedPrivateHalves(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "repo.json")
	if err := w.keys.For("repo").WriteFile(path); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(raw, []byte(`"private"`)); n != 1 {
		t.Errorf("%d private keys in the file of one service", n)
	}
	keys, err := LoadKeysFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewSigner(keys, Gateway); err == nil {
		t.Error("repo can sign as the gateway")
	}
	if _, err := NewSigner(keys, "repo"); err != nil {
		t.Errorf("repo cannot sign as itself: %v", err)
	}
	w.keys = keys
	full := newWorld(t)
	if _, err := w.verifier("repo").User(full.user(t, jane)); !errors.Is(err, ErrInvalid) {
		t.Error("keys of another installation are accepted")
	}
}

func TestKeys_rotationAcceptsBothKeys(t *testing.T) {
	w := newWorld(t)
	next, err := NewKeys("gateway")
	if err != nil {
		t.Fatal(err)
	}
	oldToken := w.user(t, jane)
	both := w.keys.For()
	both.services["gateway"] = append(next.services["gateway"], both.services["gateway"]...)
	rotated := world{keys: both, clock: w.clock}
	for name, token := range map[string]string{"old": oldToken, "new": rotated.user(t, jane)} {
		if _, err := rotated.verifier("auth").User(token); err != nil {
			t.Errorf("%s key: %v", name, err)
		}
	}
}

func TestLoadKeysFile_refusesAndDoesNotQuote(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t)
	good := filepath.Join(dir, "good.json")
	if err := w.keys.WriteFile(good); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	var f keysFile
	if err := json.Unmarshal(raw, &f); err != nil {
		t.Fatal(err)
	}
	seed := f.Services["auth"][0].Private
	entry := func(public, private string) string {
		return fmt.Sprintf(`{"services":{"auth":[{"public":%q,"private":%q}]}}`, public, private)
	}
	for name, content := range map[string]string{
		"not JSON":            seed,
		"unknown member":      `{"services":{},"extra":"` + seed + `"}`,
		"empty":               `{}`,
		"short public":        entry("AAAA", seed),
		"short private":       entry(f.Services["auth"][0].Public, seed[:8]),
		"halves do not match": entry(f.Services["repo"][0].Public, seed),
	} {
		path := filepath.Join(dir, "bad.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKeysFile(path); err == nil || strings.Contains(err.Error(), seed) || strings.Contains(err.Error(), seed[:8]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if out := fmt.Sprintf("%v %+v %#v", w.keys, w.keys, w.keys); strings.Contains(out, seed) {
		t.Error("keys print themselves")
	}
}

func TestNewKeys_refusesANamelessService(t *testing.T) {
	if _, err := NewKeys("auth", ""); err == nil {
		t.Error("accepted")
	}
}
