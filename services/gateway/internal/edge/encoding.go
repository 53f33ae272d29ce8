package edge

import (
	"slices"
	"strings"
)

// Accepts reads an Accept-Encoding header. A quality of 0 means no (RFC 9110 section 12.5.3).
func Accepts(header, encoding string) bool {
	for entry := range strings.SplitSeq(header, ",") {
		name, parameters, _ := strings.Cut(entry, ";")
		if strings.EqualFold(strings.TrimSpace(name), encoding) {
			q := strings.ReplaceAll(strings.ToLower(parameters), " ", "")
			return !slices.Contains([]string{"q=0", "q=0.0", "q=0.00", "q=0.000"}, q)
		}
	}
	return false
}
