package redisx

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	"golang.org/x/time/rate"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/logs"
)

const (
	// hourlyLimit is what Bitbucket allows an OAuth consumer per resource and rolling hour, all
	// tenants together (bitbucket.md section 4.9).
	hourlyLimit = 1000
	// backgroundShare is how much of the burst background calls may use up; the rest is for
	// people.
	backgroundShare = 0.7
	// defaultHold is how long everybody waits after a 429 that gave no time.
	defaultHold = time.Minute
	maxHold     = time.Hour
)

// BudgetConfig describes the budget of one OAuth consumer.
type BudgetConfig struct {
	Client redis.UniversalClient
	// Consumer is the OAuth consumer's client id: the calls of all who use it are counted together.
	Consumer string
	// Limit is the calls per rolling hour and resource; 1,000 when zero.
	Limit int
	// LocalShare is the part of the limit that this process takes while Redis is away; a tenth
	// when zero.
	LocalShare float64
	// Logger is told when the budget changes over to its local share; nil discards.
	Logger *slog.Logger
}

// Budget shares the calls to Bitbucket between all replicas of all services. It is a
// bitbucket.Budget and safe for concurrent use.
//
// The limit holds for any hour: half of it may come in one burst, the other half trickles in over
// the hour.
type Budget struct {
	cfg     BudgetConfig
	limiter *redis_rate.Limiter
	now     func() time.Time

	mu    sync.Mutex
	local map[bitbucket.Resource]*rate.Limiter
	held  map[bitbucket.Resource]time.Time
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
		local: map[bitbucket.Resource]*rate.Limiter{}, held: map[bitbucket.Resource]time.Time{},
	}
}

// limit is the rate and burst of one priority. Both priorities spend from the same account; the
// smaller burst makes background calls wait while people still get through.
func (b *Budget) limit(p bitbucket.Priority) redis_rate.Limit {
	half := max(b.cfg.Limit/2, 1)
	l := redis_rate.Limit{Rate: half, Burst: half, Period: time.Hour}
	if p == bitbucket.Background {
		l.Burst = max(int(float64(half)*backgroundShare), 1)
	}
	return l
}

// Take spends one call, or says how long to wait. While Redis is away it spends from a fixed local
// share.
func (b *Budget) Take(ctx context.Context, r bitbucket.Resource, p bitbucket.Priority) time.Duration {
	if wait := b.locallyHeld(r); wait > 0 {
		return wait
	}
	wait, err := b.shared(ctx, r, p)
	b.noteAway(ctx, err)
	if err != nil {
		return b.takeLocal(r, p)
	}
	return wait
}

func (b *Budget) shared(ctx context.Context, r bitbucket.Resource, p bitbucket.Priority) (time.Duration, error) {
	held, err := b.cfg.Client.PTTL(ctx, holdKey(b.cfg.Consumer, string(r))).Result()
	if err != nil {
		return 0, err
	}
	if held > 0 {
		return held, nil
	}
	res, err := b.limiter.AllowN(ctx, budgetKey(b.cfg.Consumer, string(r)), b.limit(p), 1)
	if err != nil {
		return 0, err
	}
	if res.Allowed > 0 {
		return 0, nil
	}
	return max(res.RetryAfter, time.Millisecond), nil
}

func (b *Budget) takeLocal(r bitbucket.Resource, p bitbucket.Priority) time.Duration {
	b.mu.Lock()
	l, ok := b.local[r]
	if !ok {
		share := float64(b.cfg.Limit) * b.cfg.LocalShare / 2
		l = rate.NewLimiter(rate.Limit(share/time.Hour.Seconds()), max(int(math.Round(share)), 1))
		b.local[r] = l
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

// Exhausted makes everybody wait: Bitbucket has answered 429 to one of us.
func (b *Budget) Exhausted(ctx context.Context, r bitbucket.Resource, wait time.Duration) {
	if wait <= 0 {
		wait = defaultHold
	}
	wait = min(wait, maxHold)
	b.mu.Lock()
	b.held[r] = b.now().Add(wait)
	b.mu.Unlock()
	b.noteAway(ctx, b.cfg.Client.Set(ctx, holdKey(b.cfg.Consumer, string(r)), "429", wait).Err())
}

// locallyHeld is what is left of a hold that this process has caused itself; it works without
// Redis.
func (b *Budget) locallyHeld(r bitbucket.Resource) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	until, ok := b.held[r]
	if !ok {
		return 0
	}
	left := until.Sub(b.now())
	if left <= 0 {
		delete(b.held, r)
	}
	return max(left, 0)
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
