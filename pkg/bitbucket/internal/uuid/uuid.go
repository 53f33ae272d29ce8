// Package uuid normalises Bitbucket's identifiers, which come with braces from the API, without
// them in the X-Hook-UUID header (BITBUCKET.md#delivery-headers), and in either case.
package uuid

import "strings"

// Normalize returns the identifier without surrounding braces and spaces, in lower case. It does
// not check the shape: what is not a UUID comes back merely trimmed and lower-cased.
func Normalize(s string) string {
	s = strings.TrimSpace(s)
	if len(s) >= 2 && s[0] == '{' && s[len(s)-1] == '}' {
		s = s[1 : len(s)-1]
	}
	return strings.ToLower(s)
}

// Valid reports whether s is a normalised UUID: 8-4-4-4-12 lower-case hexadecimal digits.
func Valid(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
	}
	return true
}
