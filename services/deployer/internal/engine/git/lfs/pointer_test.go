package lfs

import (
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
)

// parsePointer reads a pointer; what is none, or uses an extension, is a file like any other.
func parsePointer(b []byte) (pointer, bool) {
	p, err := decodePointer(b)
	return p, err == nil
}

func TestParsePointer_asGitLFSReadsThem(t *testing.T) {
	p := "version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("ab", 32) + "\nsize 12345\n"
	for name, text := range gittest.PointerForms(p) {
		if got, ok := parsePointer([]byte(text)); !ok || got.oid != strings.Repeat("ab", 32) || got.size != 12345 {
			t.Errorf("%s: %q is %+v", name, text, got)
		}
	}
	for name, text := range gittest.NotPointerForms(p) {
		if got, ok := parsePointer([]byte(text)); ok {
			t.Errorf("%s: %q is taken for %+v", name, text, got)
		}
	}
}

func TestParsePointer(t *testing.T) {
	oid := strings.Repeat("ab", 32)
	good := "version https://git-lfs.github.com/spec/v1\noid sha256:" + oid + "\nsize 12345\n"
	if p, ok := parsePointer([]byte(good)); !ok || p.oid != oid || p.size != 12345 {
		t.Fatalf("%+v %v", p, ok)
	}
	for _, bad := range []string{
		"", "version https://git-lfs.github.com/spec/v1\n", strings.Replace(good, "v1", "v2", 1), strings.Replace(good, oid, oid[:62], 1), strings.Replace(good, oid, strings.ToUpper(oid), 1),
		strings.Replace(good, oid, "../../../../../../etc/passwd", 1), strings.Replace(good, "12345", "-1", 1), strings.Replace(good, "12345", "+1", 1), strings.Replace(good, "12345", "99999999999999999999", 1),
		strings.Replace(good, "sha256:", "", 1), "x" + good, good + "more\n", strings.Replace(good, "oid", "ext-0-foo sha256:"+oid+"\noid", 1), good + strings.Repeat("\n", maxPointer),
		"oid sha256:" + oid + "\nversion https://git-lfs.github.com/spec/v1\nsize 1\n",
	} {
		if p, ok := parsePointer([]byte(bad)); ok {
			t.Errorf("%q is taken for %+v", bad, p)
		}
	}
}

func FuzzParsePointer(f *testing.F) {
	f.Add("version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("ab", 32) + "\nsize 12345\n")
	f.Fuzz(func(t *testing.T, text string) {
		if p, ok := parsePointer([]byte(text)); ok && (len(p.oid) != 64 || p.size < 0 || strings.ContainsAny(p.oid, "./")) {
			t.Fatalf("%+v", p)
		}
	})
}
