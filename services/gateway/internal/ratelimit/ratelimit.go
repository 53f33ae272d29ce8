// Package ratelimit bounds how many requests a program sends: an API key, or a token of an identity provider. People
// in browsers and the admin token are not bounded.
//
// The count is in Redis, shared by all replicas. While Redis is away nobody is refused: a limit protects others from
// one program, and refusing all of them would be worse than what it is for.
//
// Answers carry RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers), so that a program can slow down
// before it is refused. A request goes: who calls → Take → headers → the rest of internal/rest.
//
// It depends on redis_rate and pkg/redisx.
package ratelimit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/redisx"
)

// The fields of an answer, and the name of the policy in them.
const (
	HeaderPolicy = "RateLimit-Policy"
	HeaderLimit  = "RateLimit"
	policy       = "program"
)

// Limiter counts requests. It is safe for concurrent use.
type Limiter struct {
	limiter *redis_rate.Limiter
	limit   redis_rate.Limit
	logger  *slog.Logger
	away    atomic.Bool
}

// New makes a limiter of so many requests a minute for each program; nil, which bounds nothing, for none.
func New(client redis.UniversalClient, perMinute int, logger *slog.Logger) *Limiter {
	if perMinute == 0 {
		return nil
	}
	return &Limiter{limiter: redis_rate.NewLimiter(client), limit: redis_rate.PerMinute(perMinute), logger: logger}
}

// Take counts a request of a program and says in the answer's headers what is left: RATE_LIMITED where nothing is.
func (l *Limiter) Take(ctx context.Context, h http.Header, program string) error {
	if l == nil {
		return nil
	}
	res, err := l.limiter.Allow(ctx, key(program), l.limit)
	if err != nil {
		if ctx.Err() == nil && !l.away.Swap(true) {
			l.logger.WarnContext(ctx, "requests of programs are not counted", logs.Err(err))
		}
		return nil
	}
	if l.away.Swap(false) {
		l.logger.InfoContext(ctx, "requests of programs are counted again")
	}
	h.Set(HeaderPolicy, fmt.Sprintf("%q;q=%d;w=%d", policy, l.limit.Burst, seconds(l.limit.Period)))
	h.Set(HeaderLimit, fmt.Sprintf("%q;r=%d;t=%d", policy, res.Remaining, seconds(res.ResetAfter)))
	if res.Allowed > 0 {
		return nil
	}
	wait := time.Duration(seconds(res.RetryAfter)) * time.Second
	return apierr.Newf(apierr.ReasonRateLimited, "This key or token sends more than %d requests a minute, which is the most. Send the next one in %s.", l.limit.Burst, wait).
		With(apierr.WithRetryAfter(wait))
}

// seconds rounds up: who waits for so long is not refused again.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// key: string (redis_rate's arrival time, under its own prefix "rate:"), lives as long as the program is in debt, a
// minute at most. The program is hashed: tokens name whose they are.
func key(program string) string {
	sum := sha256.Sum256([]byte(program))
	return redisx.Key("gateway", "requests", hex.EncodeToString(sum[:12]))
}
