// Package kv keeps records in JetStream buckets: protobuf values under string keys, every update a
// compare-and-set on the revision.
//
// Buckets are made by our own hand in nats.go's key-value layout, because its CreateOrUpdateKeyValue
// turns direct gets on, and with them 5 to 9 % of reads right after an acknowledged write on three
// replicas were old (DESIGN.md#jetstream). Every read here is answered by the stream's leader.
//
// A Bucket's methods respect their context, and bound themselves to a few seconds when it has no
// deadline. Trouble with the store is ErrUnavailable; ToAPI turns every error of this package into
// the public form.
//
// It depends on pkg/stream, pkg/apierr, pkg/logs and nats.go.
package kv
