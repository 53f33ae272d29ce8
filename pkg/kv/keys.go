package kv

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
)

// encodedMark begins a part that is base64url. A slug cannot hold it, so that no slug is ever
// taken for an encoded part.
const encodedMark = "="

// maxKey keeps keys, which are subjects, below the server's control line of 4 KiB.
const maxKey = 2048

var (
	slug      = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	validKey  = regexp.MustCompile(`^[-/_=A-Za-z0-9]+(\.[-/_=A-Za-z0-9]+)*$`)
	validWild = regexp.MustCompile(`^(\*|[-/_=A-Za-z0-9]+)(\.(\*|[-/_=A-Za-z0-9]+))*(\.>)?$|^>$`)
)

// EncodeKey joins parts with '.' to a key. A part of letters, digits, '_' and '-' stands for
// itself; any other, the empty one too, becomes '=' and base64url. Different parts give different
// keys: DecodeKey gives them back.
func EncodeKey(parts ...string) string {
	var b strings.Builder
	for i, p := range parts {
		if i > 0 {
			b.WriteByte('.')
		}
		if slug.MatchString(p) {
			b.WriteString(p)
			continue
		}
		b.WriteString(encodedMark)
		b.WriteString(base64.RawURLEncoding.EncodeToString([]byte(p)))
	}
	return b.String()
}

// DecodeKey returns the parts that EncodeKey joined.
func DecodeKey(key string) ([]string, error) {
	parts := strings.Split(key, ".")
	for i, p := range parts {
		coded, ok := strings.CutPrefix(p, encodedMark)
		if !ok {
			if !slug.MatchString(p) {
				return nil, fmt.Errorf("%w: part %d", ErrBadKey, i)
			}
			continue
		}
		plain, err := base64.RawURLEncoding.Strict().DecodeString(coded)
		if err != nil {
			return nil, fmt.Errorf("%w: part %d: %w", ErrBadKey, i, err)
		}
		parts[i] = string(plain)
	}
	return parts, nil
}

func checkKey(key string) error {
	if len(key) > maxKey || !validKey.MatchString(key) {
		return fmt.Errorf("%w: %q", ErrBadKey, key)
	}
	return nil
}

func checkFilter(filter string) error {
	if len(filter) > maxKey || !validWild.MatchString(filter) {
		return fmt.Errorf("%w: filter %q", ErrBadKey, filter)
	}
	return nil
}
