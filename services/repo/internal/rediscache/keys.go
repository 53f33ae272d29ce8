package rediscache

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"devpilot.io/bitbucket/pkg/redisx"
)

const service = "repo"

// The times to live.
const (
	// snapshotLife: a form that is opened once a day still begins with a list.
	snapshotLife = 24 * time.Hour
	// fetchLockLife is how long the others wait for a replica that died while it fetched a list.
	fetchLockLife = 10 * time.Second
)

// snapshotKey: string, JSON of a catalog.Snapshot, compressed; snapshotLife.
func snapshotKey(workspace string) string { return redisx.Key(service, "snapshot", workspace) }

// markKey: string, "<fetch time in nanoseconds> <connection>" of the snapshot; snapshotLife. It is
// read on every listing, so that a replica learns cheaply of a newer snapshot.
func markKey(workspace string) string { return redisx.Key(service, "mark", workspace) }

// fetchKey: string, the owner's token of a lock; fetchLockLife, extended while the fetch goes on.
func fetchKey(workspace string) string { return redisx.Key(service, "fetch", workspace) }

// refreshKey: string "1", there while a refresh that a person asked for is too recent for another
// one; a minute.
func refreshKey(workspace, connection string) string {
	return redisx.Key(service, "refresh", workspace, connection)
}

// answerKey: string, JSON of an answer that equal questions share; seconds. The question is hashed:
// it holds what a person typed.
func answerKey(question string) string {
	sum := sha256.Sum256([]byte(question))
	return redisx.Key(service, "answer", hex.EncodeToString(sum[:16]))
}
