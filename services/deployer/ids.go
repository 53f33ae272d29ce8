package deployer

import (
	"crypto/rand"
	"strings"
)

// randomSuffix tells processes of one host apart.
func randomSuffix() string { return strings.ToLower(rand.Text()[:8]) }
