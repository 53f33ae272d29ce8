package kv_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/kv"
)

func TestEncodeKey(t *testing.T) {
	for _, c := range []struct {
		parts []string
		want  string
	}{
		{[]string{"acme-inc", "web"}, "acme-inc.web"},
		{[]string{"acme", "feature/login"}, "acme.=ZmVhdHVyZS9sb2dpbg"},
		{[]string{"Web_1-x"}, "Web_1-x"},
		{[]string{""}, "="},
		{[]string{"a.b"}, "=YS5i"},
		{[]string{"=YS5i"}, "=PVlTNWk"}, // looks encoded, is not
		{[]string{"a", "", "b"}, "a.=.b"},
	} {
		if got := kv.EncodeKey(c.parts...); got != c.want {
			t.Errorf("%q: %q, want %q", c.parts, got, c.want)
		}
		back, err := kv.DecodeKey(c.want)
		if err != nil || !slices.Equal(back, c.parts) {
			t.Errorf("%q decoded: %q, %v", c.want, back, err)
		}
	}
}

func TestDecodeKey_refusesWhatEncodeKeyNeverMakes(t *testing.T) {
	for _, key := range []string{"", "a..b", "a b", "=!", "=YS5i=", "a/b", "=YS5j1"} {
		if parts, err := kv.DecodeKey(key); !errors.Is(err, kv.ErrBadKey) {
			t.Errorf("%q: %q, %v", key, parts, err)
		}
	}
}

// Different parts give different keys, whatever they hold.
func FuzzEncodeKey(f *testing.F) {
	for _, s := range []string{"", "a", "=", "=YQ", "a.b", "feature/ümläut", "*", ">", " ", "\x00", "main"} {
		f.Add(s, "x")
		f.Add("x", s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		key := kv.EncodeKey(a, b)
		back, err := kv.DecodeKey(key)
		if err != nil || len(back) != 2 || back[0] != a || back[1] != b {
			t.Fatalf("%q, %q → %q → %q, %v", a, b, key, back, err)
		}
		if strings.Count(key, ".") != 1 || strings.ContainsAny(key, " *>") {
			t.Fatalf("%q, %q → %q", a, b, key)
		}
	})
}
