package redisx

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"golang.org/x/time/rate"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/logs"
)

const (
	// hourlyLimit is what Bitbucket allows an OAuth consumer per pool and rolling hour, all
	// tenants together (BITBUCKET.md#budgets).
	hourlyLimit = 1000
	// backgroundShare is how much of the burst background calls may use up; the rest is for
	// people.
	backgroundShare = 0.7
	// workspaceShare is the part of the burst, and of what comes in over the hour, that is a workspace's own
	// share. One that used it is still served, while more than neighboursShare is left.
	workspaceShare = 0.2
	// neighboursShare is the part of the burst that workspaces which used their share leave to those that did not.
	neighboursShare = 0.15
	// maxHold bounds a hold: who asks for more than a day does not mean it.
	maxHold = 24 * time.Hour
	// maxHeld bounds how many refused calls are remembered per resource; a few widen the hold.
	maxHeld = 64
)

// BudgetConfig describes the budget of one OAuth consumer.
type BudgetConfig struct {
	Client redis.UniversalClient
	// Consumer is the OAuth consumer's client id: the calls of all who use it are counted together.
	Consumer string
	// Limit is the calls per rolling hour and pool; 1,000 when zero.
	Limit int
	// LocalShare is the part of the limit that this process takes while Redis is away; a tenth
	// when zero.
	LocalShare float64
	// Service is the name under which calls are counted.
	Service string
	// Registerer is for the metrics; nil: none.
	Registerer prometheus.Registerer
	// Logger is told when the budget changes over to its local share; nil discards.
	Logger *slog.Logger
}

// Budget shares the calls to Bitbucket between all replicas of all services. It is a
// bitbucket.Budget and safe for concurrent use.
//
// The limit holds for any hour: half of it may come in one burst, the other half trickles in over
// the hour. A workspace that used its share of it leaves the last of each burst to the others, so that one which
// asks all the time holds up itself alone.
type Budget struct {
	cfg     BudgetConfig
	limiter *redis_rate.Limiter
	now     func() time.Time
	metrics budgetMetrics

	mu    sync.Mutex
	local map[string]*rate.Limiter     // by pool
	held  map[bitbucket.Call]time.Time // what Redis was not told of
	away  bool
}

var _ bitbucket.Budget = (*Budget)(nil)

// NewBudget makes a budget on a client of Connect.
func NewBudget(cfg BudgetConfig) *Budget {
	if cfg.Limit == 0 {
		cfg.Limit = hourlyLimit
	}
	if cfg.LocalShare == 0 {
		cfg.LocalShare = 0.1
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Budget{
		cfg: cfg, limiter: redis_rate.NewLimiter(cfg.Client), now: time.Now,
		metrics: newBudgetMetrics(cfg.Registerer), local: map[string]*rate.Limiter{}, held: map[bitbucket.Call]time.Time{},
	}
}

// limit is the rate and burst of one priority, for a workspace that has used its share or has not. All spend
// from the same account; the smaller a burst is, the sooner its calls wait while others still get through.
func (b *Budget) limit(p bitbucket.Priority, over bool) redis_rate.Limit {
	half := max(b.cfg.Limit/2, 1)
	part := 1.0
	if p == bitbucket.Background {
		part = backgroundShare
	}
	if over {
		part -= neighboursShare
	}
	return redis_rate.Limit{Rate: half, Burst: max(int(math.Round(float64(half)*part)), 1), Period: time.Hour}
}

// share is what a workspace may use before it leaves a part of each burst to the others.
func (b *Budget) share() redis_rate.Limit {
	calls := max(int(math.Round(float64(b.cfg.Limit/2)*workspaceShare)), 1)
	return redis_rate.Limit{Rate: calls, Burst: calls, Period: time.Hour}
}

// over tells whether a workspace has used its share of a pool.
func (b *Budget) over(ctx context.Context, pool, workspace string) (bool, error) {
	if workspace == "" {
		return false, nil
	}
	res, err := b.limiter.AllowN(ctx, shareKey(b.cfg.Consumer, pool, workspace), b.share(), 0)
	if err != nil {
		return false, err
	}
	return res.Remaining == 0, nil
}

// Take spends one call, or says how long to wait. While Redis is away it spends from a fixed local
// share.
func (b *Budget) Take(ctx context.Context, c bitbucket.Call, p bitbucket.Priority, workspace string) time.Duration {
	c = hashed(c)
	refused, err := b.refused(ctx, c.Resource)
	b.mu.Lock()
	now := b.now()
	for k, until := range b.held {
		if !until.After(now) {
			delete(b.held, k)
		} else if until.After(refused[k]) {
			refused[k] = until
		}
	}
	b.mu.Unlock()
	if until := bitbucket.Held(c, refused, now); !until.IsZero() {
		return max(until.Sub(now), time.Millisecond)
	}
	var wait time.Duration
	if err == nil {
		wait, err = b.shared(ctx, pool(c.Resource), p, workspace)
	}
	b.noteAway(ctx, err)
	if err != nil {
		return b.takeLocal(c.Resource, p)
	}
	return wait
}

// readHolds returns what is still held, each with the milliseconds that are left by Redis' own clock:
// those of the replicas may differ.
var readHolds = redis.NewScript(`
redis.replicate_commands()
local t = redis.call("TIME")
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local held = redis.call("ZRANGEBYSCORE", KEYS[1], "(" .. now, "+inf", "WITHSCORES")
for i = 2, #held, 2 do held[i] = tostring(held[i] - now) end
return held`)

// writeHold holds ARGV[1] for ARGV[2] milliseconds from now, and at most ARGV[3] of them.
var writeHold = redis.NewScript(`
redis.replicate_commands()
local t = redis.call("TIME")
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call("ZADD", KEYS[1], now + ARGV[2], ARGV[1])
redis.call("ZREMRANGEBYSCORE", KEYS[1], "-inf", now)
redis.call("ZREMRANGEBYRANK", KEYS[1], 0, -1 - ARGV[3])
local last = redis.call("ZRANGE", KEYS[1], -1, -1, "WITHSCORES")
redis.call("PEXPIRE", KEYS[1], last[2] - now)`)

// refused are the calls of a resource that Bitbucket answered with 429, and until when each waits.
// The map is never nil.
func (b *Budget) refused(ctx context.Context, r bitbucket.Resource) (map[bitbucket.Call]time.Time, error) {
	refused := map[bitbucket.Call]time.Time{}
	list, err := readHolds.Run(ctx, b.cfg.Client, []string{holdKey(b.cfg.Consumer, string(r))}).StringSlice()
	now := b.now()
	for i := 0; i+1 < len(list); i += 2 {
		route, object, _ := strings.Cut(list[i], " ")
		left, _ := strconv.ParseFloat(list[i+1], 64)
		refused[bitbucket.Call{Resource: r, Route: bitbucket.Route(route), Object: object}] = now.Add(time.Duration(left * float64(time.Millisecond)))
	}
	return refused, err
}

// hashed hides the object: it names a customer.
func hashed(c bitbucket.Call) bitbucket.Call {
	if c.Object != "" {
		sum := sha256.Sum256([]byte(c.Object))
		c.Object = hex.EncodeToString(sum[:8])
	}
	return c
}

func (b *Budget) shared(ctx context.Context, pool string, p bitbucket.Priority, workspace string) (time.Duration, error) {
	over, err := b.over(ctx, pool, workspace)
	if err != nil {
		return 0, err
	}
	res, err := b.limiter.AllowN(ctx, budgetKey(b.cfg.Consumer, pool), b.limit(p, over), 1)
	if err != nil {
		return 0, err
	}
	b.metrics.left.WithLabelValues(pool, p.String()).Set(float64(b.left(p, res.ResetAfter)))
	if res.Allowed == 0 {
		return max(res.RetryAfter, time.Millisecond), nil
	}
	if workspace != "" {
		// A call that is not counted is made all the same: it was taken from what all share.
		_, _ = b.limiter.AllowN(ctx, shareKey(b.cfg.Consumer, pool, workspace), b.share(), 1)
	}
	return 0, nil
}

// left is how many calls of a priority may be made at once while reset is the time until all are there again.
func (b *Budget) left(p bitbucket.Priority, reset time.Duration) int {
	limit := b.limit(p, false)
	each := limit.Period / time.Duration(limit.Rate)
	return max(limit.Burst-int((reset+each-1)/each), 0)
}

func (b *Budget) takeLocal(r bitbucket.Resource, p bitbucket.Priority) time.Duration {
	b.mu.Lock()
	l, ok := b.local[pool(r)]
	if !ok {
		share := float64(b.cfg.Limit) * b.cfg.LocalShare / 2
		l = rate.NewLimiter(rate.Limit(share/time.Hour.Seconds()), max(int(math.Round(share)), 1))
		b.local[pool(r)] = l
	}
	b.mu.Unlock()
	now := b.now()
	if p == bitbucket.Background && l.Burst() > 1 {
		if reserve := float64(l.Burst()) * (1 - backgroundShare); l.TokensAt(now) < reserve+1 {
			return time.Duration((reserve + 1 - l.TokensAt(now)) / float64(l.Limit()) * float64(time.Second))
		}
	}
	res := l.ReserveN(now, 1)
	if wait := res.DelayFrom(now); wait > 0 {
		res.CancelAt(now)
		return wait
	}
	return 0
}

// Exhausted makes everybody wait with the call: Bitbucket has answered 429 to one of us. What Redis
// cannot be told this process remembers.
func (b *Budget) Exhausted(ctx context.Context, c bitbucket.Call, wait time.Duration) {
	if wait <= 0 {
		wait = bitbucket.DefaultHold
	}
	wait = min(wait, maxHold)
	c = hashed(c)
	err := writeHold.Run(ctx, b.cfg.Client, []string{holdKey(b.cfg.Consumer, string(c.Resource))},
		string(c.Route)+" "+c.Object, wait.Milliseconds(), maxHeld).Err()
	if errors.Is(err, redis.Nil) { // the script returns nothing
		err = nil
	}
	b.mu.Lock()
	if err == nil {
		delete(b.held, c)
	} else if len(b.held) < maxHeld {
		b.held[c] = b.now().Add(wait)
	}
	b.mu.Unlock()
	b.noteAway(ctx, err)
}

// noteAway logs the change between the shared budget and the local share, once each way.
func (b *Budget) noteAway(ctx context.Context, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	b.mu.Lock()
	changed := b.away != (err != nil)
	b.away = err != nil
	b.mu.Unlock()
	switch {
	case !changed:
	case err != nil:
		b.cfg.Logger.WarnContext(ctx, "redis is away, calls to bitbucket are limited to a local share", logs.Err(err))
	default:
		b.cfg.Logger.InfoContext(ctx, "redis is back, calls to bitbucket share one budget again")
	}
}
