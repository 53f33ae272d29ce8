// Package checkup finds out whether an installation is well, one thing at a time, and says what to do about what is not:
// the checks of `devpilot doctor`, which the services answer for themselves too ([Server]). Nothing that is made to find
// out stays.
//
// Flow: whoever is asked lists its [Task]s (about NATS: nats.go, permissions.go; Redis: redis.go; keys: keys.go; what is
// seen from outside and at Bitbucket: outside.go) → [Run] makes all at once, each within its time → [Check]s, a [State]
// and sentences without secrets.
//
// Depends on pkg/stream, kv, redisx, installation, identity, seal and bitbucket, where what is checked is decided, and on
// pkg/rpc for the service; on no settings.
package checkup
