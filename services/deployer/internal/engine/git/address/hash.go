package address

import (
	"encoding/hex"
	"strings"
)

// ValidHash tells whether s is the hash of an object, in full.
func ValidHash(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 20
}

// ValidBeginning tells whether s may be the beginning of a commit's hash that a person gives, or all of it.
func ValidBeginning(s string) bool {
	return len(s) >= 7 && len(s) <= 40 && strings.Trim(s, "0123456789abcdef") == ""
}

// ValidCommit tells whether s is a commit's full hash as git writes it.
func ValidCommit(s string) bool { return ValidHash(s) && strings.ToLower(s) == s }
