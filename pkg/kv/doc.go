// Package kv keeps records in JetStream buckets: protobuf values under string keys, every update a
// compare-and-set on the revision.
//
// Buckets are made by our own hand in nats.go's key-value layout, because its CreateOrUpdateKeyValue
// turns direct gets on, and with them 5 to 9 % of reads right after an acknowledged write on three
// replicas were old (DESIGN.md#jetstream). What else nats.go's KeyValue lacks is why it is not used
// for the rest either: it cannot overwrite replaced values (SecureErase), notices no lost records
// (Inventory), and its watcher gives up on a key that is damaged on disk.
//
// A Bucket's reads are answered by the stream's leader. Its methods respect their context, and bound
// themselves to a few seconds when it has no deadline. Trouble with the store is ErrUnavailable; ToAPI
// turns every error of this package into the public form.
//
// # Reads from memory
//
// A Copy holds a bucket in memory by a watch, and knows which revision it has reached. Whoever shows
// records reads them through a View of it:
//
//	apps, err := copy.Fresh(ctx)        // once per request and bucket
//	a, rev, err := apps.Get(ctx, key)   // as often as needed; errors and revision as of Bucket.Get
//	ids, err := apps.Keys(ctx, "ws.", after, 50)
//
// The rule is: a reader sees everything that was acknowledged before its request began, whoever wrote
// it and through whichever process. A process that has only heard of a write later would break that
// for a caller who writes through one replica and reads through another, and neither waiting a while
// nor a note from the writing process to the others changes it: both may be late. Fresh therefore asks
// the bucket's leader for its last revision and waits until the copy has it. That is one small
// question for all reads of a request (and for all requests that wait to ask at the same time),
// instead of one read for each record. When the copy does not get there within a fraction of a
// second, when its first pass is not complete, or when the bucket was purged, made again or has
// outgrown the copy, the same View reads from the leader: slower, never older.
//
// Over a NATS that nobody else can reach (NewSoleSession) there is no other process: what the session wrote
// is all there is, and Fresh asks the leader only where the watch skipped something or the connection broke.
//
// AtLeast asks nobody: its View has what this process wrote, and what was written up to a revision
// that the caller knows, from another record for instance. It is for records whose revision another
// record tells, and for what changes without a caller who waits for it.
//
// A View is for showing, never for deciding: what is written back is read from the Bucket, or stored
// by compare-and-set at the revision that the View gave.
//
// Deletions are seen as markers. What goes without one (purges, lost files) is noticed by Fresh when
// fewer messages are left than the copy has keys, and by every new pass, which follows each break of
// the connection; a key that the inventory has and the copy has not is asked of the leader, which
// answers with the *LossError. Memory is bounded by CopyConfig.MaxBytes. Metrics count hits and
// fallbacks by reason, and show the lag and the bytes of each copy.
//
// Mirror is the other half: few records that are wanted decoded, with a call for each change, by
// those who act on changes and may be late. It promises nothing about how far it is.
//
// It depends on pkg/stream, pkg/apierr, pkg/logs, nats.go and golang-lru.
package kv
