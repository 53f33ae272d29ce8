// Package hook verifies and parses what Bitbucket Cloud sends to a webhook (BITBUCKET.md#deliveries).
//
// The order is the receiver's duty: cap the body, [Verify] the raw bytes, only then [Parse]. Verify
// works in constant time and accepts one or two secrets, so that a secret can be rotated without a
// gap. Parse reads every change of a push (several branches, tags, deletions, forced updates, none
// at all) and tolerates missing fields: a signed delivery is never thrown away for one odd change.
//
// Depends on pkg/seal, and on go-json-experiment for the reading of JSON: what the standard library's
// encoding/json/jsontext will be, and as strict.
package hook
