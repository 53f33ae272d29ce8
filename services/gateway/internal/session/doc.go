// Package session keeps browsers signed in.
//
// A session is a sealed cookie: who, since when, under which epoch. Redis has no part in it. It is listed
// in the account of who signed in, which is read on every use, and lives as long as it is; the epoch ends
// all at once. Cookies of before are not listed: a record per session that was signed out ends them. A used
// session gets a new cookie now and then, so that it ends only after not being used; after MaxLife, or the
// shorter life that a provider's sessions have, it ends in any case. Who signed in by a provider is asked
// about there again now and then.
//
// Browsers sign in with the admin token or a one-time code. Codes are random, stored hashed with a
// time to live, and taken out by the first that shows them, whichever replica that asks.
//
// It depends on pkg/kv, pkg/seal and pkg/apierr.
package session
