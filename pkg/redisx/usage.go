package redisx

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/bitbucket"
)

// The pools of calls, each with a limit of its own at Bitbucket (BITBUCKET.md#budgets).
const (
	PoolAPI      = "API"      // all of the REST API
	PoolWebhooks = "WEBHOOKS" // what is asked about webhooks
)

// pool is the pool that calls of a resource are taken from.
func pool(r bitbucket.Resource) string {
	if r == bitbucket.ResourceHooks {
		return PoolWebhooks
	}
	return PoolAPI
}

const (
	useSlot = 5 * time.Minute       // while for which calls are counted together
	useLife = time.Hour + 2*useSlot // life of a count
	// useTimeout bounds what a count may cost a call.
	useTimeout = time.Second
)

// Made counts a call. What cannot be counted is made all the same: the count is for people, and the
// limits are kept by Take. It implements bitbucket.Meter.
func (b *Budget) Made(ctx context.Context, c bitbucket.Call, p bitbucket.Priority, workspace string) {
	b.metrics.made.WithLabelValues(b.cfg.Service, string(c.Route), p.String()).Inc()
	b.mu.Lock()
	away := b.away
	b.mu.Unlock()
	if away {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, useTimeout)
	defer cancel()
	key := useKey(b.cfg.Consumer, pool(c.Resource), b.now().Unix()/int64(useSlot.Seconds()))
	pipe := b.cfg.Client.Pipeline()
	pipe.HIncrBy(ctx, key, strings.Join([]string{b.cfg.Service, string(c.Route), p.String(), ownerID(workspace)}, " "), 1)
	pipe.Expire(ctx, key, useLife)
	_, _ = pipe.Exec(ctx)
}

// ownerID hides the workspace: it names a customer.
func ownerID(workspace string) string {
	if workspace == "" {
		return "-"
	}
	sum := sha256.Sum256([]byte(workspace))
	return hex.EncodeToString(sum[:8])
}

// Usage is how a pool stands.
type Usage struct {
	Pool           string
	Limit          int // calls an hour
	Used           int // in the last hour, of all
	Left           int // that the workspace may make at once
	LeftBackground int // of those, by what runs in the background
	// BackgroundWait is how long the background waits for its next call; 0 when it need not.
	BackgroundWait time.Duration
	Uses           []Use // of the workspace that was asked for, most first
	UsedElsewhere  int   // by others
}

// Use is who made calls.
type Use struct {
	Service, Call string
	Interactive   bool
	Calls         int
}

// Limit is the calls per rolling hour and pool.
func (b *Budget) Limit() int { return b.cfg.Limit }

// Usage tells how the pools stand, and what a workspace's connection used. An error means that Redis is
// away: then this process knows of no other's calls.
func (b *Budget) Usage(ctx context.Context, workspace string) ([]Usage, error) {
	var out []Usage
	for _, name := range []string{PoolAPI, PoolWebhooks} {
		u := Usage{Pool: name, Limit: b.cfg.Limit}
		if err := b.usage(ctx, workspace, &u); err != nil {
			return nil, fmt.Errorf("redisx: read the use of calls: %w", err)
		}
		out = append(out, u)
	}
	return out, nil
}

func (b *Budget) usage(ctx context.Context, workspace string, u *Usage) error {
	over, err := b.over(ctx, u.Pool, workspace)
	if err != nil {
		return err
	}
	key := budgetKey(b.cfg.Consumer, u.Pool)
	all, err := b.limiter.AllowN(ctx, key, b.limit(bitbucket.Interactive, over), 0)
	if err != nil {
		return err
	}
	behind, err := b.limiter.AllowN(ctx, key, b.limit(bitbucket.Background, over), 0)
	if err != nil {
		return err
	}
	u.Left, u.LeftBackground = all.Remaining, behind.Remaining
	if behind.Remaining == 0 {
		u.BackgroundWait = max(b.untilNext(over, all.ResetAfter), time.Second)
	}
	now := b.now().Unix() / int64(useSlot.Seconds())
	pipe := b.cfg.Client.Pipeline()
	var slots []*redis.MapStringStringCmd
	for i := range int64(time.Hour / useSlot) {
		slots = append(slots, pipe.HGetAll(ctx, useKey(b.cfg.Consumer, u.Pool, now-i)))
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	own, owner := map[Use]int{}, ownerID(workspace)
	for _, s := range slots {
		for field, count := range s.Val() {
			parts := strings.Split(field, " ")
			n, err := strconv.Atoi(count)
			if err != nil || len(parts) != 4 {
				continue
			}
			u.Used += n
			if parts[3] != owner {
				u.UsedElsewhere += n
				continue
			}
			own[Use{Service: parts[0], Call: parts[1], Interactive: parts[2] == bitbucket.Interactive.String()}] += n
		}
	}
	for use, n := range own {
		use.Calls = n
		u.Uses = append(u.Uses, use)
	}
	slices.SortFunc(u.Uses, func(a, b Use) int {
		return cmp.Or(b.Calls-a.Calls, strings.Compare(a.Service+a.Call, b.Service+b.Call))
	})
	return nil
}

// untilNext is how long the background waits for its next call while reset is the time until all calls
// are there again: its burst is smaller than that of people by a share of the whole.
func (b *Budget) untilNext(over bool, reset time.Duration) time.Duration {
	limit := b.limit(bitbucket.Background, over)
	each := limit.Period / time.Duration(limit.Rate)
	return reset - time.Duration(limit.Burst-1)*each
}

type budgetMetrics struct {
	made *prometheus.CounterVec
	left *prometheus.GaugeVec
}

func newBudgetMetrics(reg prometheus.Registerer) budgetMetrics {
	return budgetMetrics{
		made: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_bitbucket_budget_used_total",
			Help: "Calls to Bitbucket's REST API out of the budget, by service, kind of call and priority.",
		}, []string{"service", "call", "priority"})),
		left: register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "devpilot_bitbucket_budget_left",
			Help: "Calls to Bitbucket that a priority may make at once, by budget, as of the last one that this process made.",
		}, []string{"budget", "priority"})),
	}
}

// register adds a collector, or returns the one that another budget added to the same registry.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	var dup prometheus.AlreadyRegisteredError
	if err := reg.Register(c); errors.As(err, &dup) {
		if there, ok := dup.ExistingCollector.(C); ok {
			return there
		}
	}
	return c
}
