// Package registry is the life of webhooks: what apps watch, what is registered at Bitbucket, and
// the secrets between the two (DESIGN.md#webhook-life and DESIGN.md#disconnect).
//
// Every wish (an app was saved, somebody pressed Register, the integration was removed) is written
// into the webhook's record as a request that counts up. Whoever works on the webhook takes the
// lease in the record, compares what is at Bitbucket with what is wanted, puts it right, and writes
// what came of it together with the number of the request that it serves. So it does not matter
// which replica works, how often, or whether one dies on the way: the next run starts from what is
// there. The lease has no end by the clock. It may be taken over once it was seen unchanged for 30
// s by the waiter's own clock, and what a run does at Bitbucket is bounded by less.
//
// A run lists all pages of the repository's hooks first and takes the one with our exact URL, or
// the one we registered, for ours: it is updated (URL, event, active, secret), others with our URL
// are deleted, and only where there is none a new one is made; then it lists again, because
// Bitbucket lets two be made at the same moment.
//
// Depends on pkg/bitbucket, pkg/seal, pkg/apierr and on the store and the cache.
package registry
