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

// ValidCommit tells whether s is a commit's full hash as git writes it.
func ValidCommit(s string) bool { return ValidHash(s) && strings.ToLower(s) == s }
