package bitbucket

import (
	"net/url"

	"devpilot.io/bitbucket/pkg/bitbucket/internal/uuid"
)

// NormalizeUUID returns Bitbucket's identifier the way Devpilot keeps it: no braces, lower case
// (DESIGN.md#words). What is not a UUID comes back trimmed and lower-cased.
func NormalizeUUID(s string) string { return uuid.Normalize(s) }

// IsUUID reports whether s is a UUID in the normalised form of [NormalizeUUID].
func IsUUID(s string) bool { return uuid.Valid(s) }

// pathID escapes one path segment that is a slug or a UUID. A UUID gets its braces back, percent
// encoded: raw braces are answered with odd 400s (BITBUCKET.md#uuids).
func pathID(idOrSlug string) string {
	if id := uuid.Normalize(idOrSlug); uuid.Valid(id) {
		return "%7B" + id + "%7D"
	}
	return url.PathEscape(idOrSlug)
}
