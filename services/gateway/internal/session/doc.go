// Package session keeps browsers signed in.
//
// A session is a sealed cookie: who, since when, under which epoch. Nothing is stored while it
// lives, and Redis has no part in it. What ends it before its time is in key-value, read on every
// use: the subject's epoch (sign out everywhere) and a record per session that was signed out,
// which disappears when the cookie could not be shown any more. A used session gets a new cookie
// now and then, so that it ends only after not being used; after MaxLife it ends in any case.
//
// Browsers sign in with the admin token or a one-time code. Codes are random, stored hashed with a
// time to live, and taken out by the first that shows them, whichever replica that asks.
//
// It depends on pkg/kv, pkg/seal and pkg/apierr.
package session
