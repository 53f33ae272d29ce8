// Package store keeps auth's records in JetStream: the integrations, sealed and erasable, and one
// small schedule per integration that every process watches.
//
// "Tokens deleted" is meant literally (DESIGN.md#secrets): tokens are sealed before they reach a
// bucket, and every replaced or removed revision of the integrations bucket is overwritten on disk.
//
// It depends on pkg/kv and pkg/seal.
package store
