// Package scope knows which scopes Devpilot needs of a Bitbucket account and what the consumer form
// calls them (BITBUCKET.md#scopes). It depends on nothing.
package scope

import (
	"fmt"
	"slices"
	"strings"
)

// required lists what must be granted, in the order in which it is shown.
var required = []string{"repository", "account", "webhook"}

// implied says which broader scopes include a required one. repository:admin implies neither read
// nor write.
var implied = map[string][]string{
	"repository": {"repository:write", "pullrequest", "pullrequest:write"},
	"account":    {"account:write"},
}

// checkboxes are the labels in Bitbucket's consumer form.
var checkboxes = map[string]string{
	"repository": "Repositories: Read",
	"account":    "Account: Read",
	"webhook":    "Webhooks: Read and write",
}

// Required returns the scopes that Devpilot needs. The slice is the caller's.
func Required() []string { return slices.Clone(required) }

// Missing returns the required scopes that the grant lacks, also by implication.
func Missing(granted []string) []string {
	var missing []string
	for _, s := range required {
		if !slices.Contains(granted, s) && !slices.ContainsFunc(implied[s], func(b string) bool { return slices.Contains(granted, b) }) {
			missing = append(missing, s)
		}
	}
	return missing
}

// Extra returns the granted scopes that are more than Devpilot needs. A broader scope that stands in
// for a required one is more, too.
func Extra(granted []string) []string {
	var extra []string
	for _, s := range granted {
		if !slices.Contains(required, s) {
			extra = append(extra, s)
		}
	}
	return extra
}

// Checkboxes names scopes as the consumer form does, for people: `"Webhooks: Read and write"`.
func Checkboxes(scopes []string) string {
	var names []string
	for _, s := range scopes {
		name, ok := checkboxes[s]
		if !ok {
			name = s
		}
		names = append(names, fmt.Sprintf("%q", name))
	}
	switch len(names) {
	case 0:
		return ""
	case 1:
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}
