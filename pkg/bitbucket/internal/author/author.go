// Package author reads git's author lines.
package author

import (
	"strings"
)

// Split splits "Jane <jane@example.test>" into name and address. A line that is only an address is
// both; anything else is all name.
func Split(raw string) (name, email string) {
	raw = strings.TrimSpace(raw)
	open := strings.LastIndexByte(raw, '<')
	if open < 0 || !strings.HasSuffix(raw, ">") {
		if strings.Contains(raw, "@") && !strings.ContainsAny(raw, " \t") {
			return raw, raw
		}
		return raw, ""
	}
	name = strings.Trim(strings.TrimSpace(raw[:open]), `"`)
	email = strings.TrimSpace(raw[open+1 : len(raw)-1])
	if name == "" {
		name = email
	}
	return name, email
}
