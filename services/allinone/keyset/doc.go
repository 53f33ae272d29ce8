// Package keyset is `devpilot keyset`: it changes the encryption keysets of an installation while it runs. Each command
// changes a file at once or not at all, or goes on where it ended, so that one that was killed is run again.
//
// Depends on pkg/seal and the services' knowledge of what they seal.
package keyset
