// Package natsstore keeps what webhook owns in JetStream: the buckets of webhooks, of the ways to
// find them, of their ledgers, deliveries and refused requests, and the streams of the inbox and of
// push events.
//
// No method walks a bucket. A webhook is found by workspace and id, by id alone (index "i."), by
// workspace and repository (index "r."), or by its place in the workspace's directory (index "n.").
// These three are written once, before the webhook itself, and never change: a webhook keeps its id
// for good, so that a repository that is watched again gets the URL that Bitbucket may still have.
// Deliveries lie in a ring of slots per webhook, so that old ones make room without being deleted.
//
// What people are shown is read from copies in memory; what is decided, from the leader.
//
// Depends on pkg/kv, pkg/stream and the stored protos. It knows no rule of the domain.
package natsstore
