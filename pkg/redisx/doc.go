// Package redisx is how services use Redis: a client whose every call is short and whose absence is
// cheap, a cache, a lock for work that need not be done twice, and the shared budget of calls to
// Bitbucket.
//
// Redis holds only what may be lost (DESIGN.md#state). Nothing here may therefore fail a
// request by itself: a caller takes ErrUnavailable for "not cached", "not locked" or "ask the local
// share", and goes on.
//
// It depends on go-redis, redis_rate, gobreaker and, for the types of its budget, on pkg/bitbucket.
package redisx
