package token

import (
	"context"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/seal"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

// Integrations is the store of integrations. Errors are those of pkg/kv: ErrNotFound, ErrConflict,
// ErrUnavailable (after which a write may or may not have happened).
type Integrations interface {
	Get(ctx context.Context, workspace string) (*authstorev1.Integration, uint64, error)
	CompareAndSet(ctx context.Context, workspace string, rec *authstorev1.Integration, rev uint64) (uint64, error)
}

// Schedules is the store of schedules. fn gets nil when there is none, returns nil to remove it, and
// may run several times.
type Schedules interface {
	Update(ctx context.Context, workspace string, fn func(cur *authstorev1.Schedule) *authstorev1.Schedule) error
}

// Sealer seals tokens for a workspace's record and opens them.
type Sealer interface {
	SealAccess(workspace string, token seal.Secret) ([]byte, error)
	OpenAccess(workspace string, sealed []byte) (seal.Secret, error)
	SealRefresh(workspace string, token seal.Secret) (sealed, id []byte, err error)
	OpenRefresh(workspace string, sealed []byte) (seal.Secret, error)
}

// Refresher is Bitbucket's token endpoint. Its errors are *bitbucket.OAuthError.
type Refresher interface {
	Refresh(ctx context.Context, refreshToken seal.Secret) (bitbucket.Grant, error)
}

// Token is an access token with what its holder must know.
type Token struct {
	Access       seal.Secret
	ExpireTime   time.Time // zero when Bitbucket did not say
	ConnectionID string
	SiteURL      string // the only site it may be sent to
	APIURL       string
	AccountUUID  string
}

// What Timing's fields are where nothing else is said (DESIGN.md#a-token-that-never-races).
const (
	// refresh bounds an attempt, from taking the lease to the last byte of Bitbucket's answer.
	refresh = 15 * time.Second
	// takeOver is how long a record must be seen unchanged before another's lease is taken.
	takeOver = 30 * time.Second
	// firstPoll is the first pause between polls of a record that another process refreshes, and maxPoll the longest.
	firstPoll, maxPoll = 25 * time.Millisecond, time.Second
	// drain is how long shutdown waits for refreshes that are on their way.
	drain = 20 * time.Second
	// scan is how often the keeper looks for what is due.
	scan = 5 * time.Second
	// stagger is how much later than due a replica may come, so that they do not come together.
	stagger = 20 * time.Second
	// sweep is how often the schedules are checked against the integrations.
	sweep = time.Hour
)

// Timing holds the protocol's times; the zero value of each field means its default, which says what it is. Tests
// shorten them.
type Timing struct {
	Refresh, TakeOver time.Duration
	Poll, MaxPoll     time.Duration
	Drain             time.Duration
	Scan, Stagger     time.Duration
	Sweep             time.Duration
}

func (t Timing) withDefaults() Timing {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&t.Refresh, refresh)
	def(&t.TakeOver, takeOver)
	def(&t.Poll, firstPoll)
	def(&t.MaxPoll, maxPoll)
	def(&t.Drain, drain)
	def(&t.Scan, scan)
	def(&t.Stagger, stagger)
	def(&t.Sweep, sweep)
	return t
}

// The life that callers may ask for.
const (
	DefaultMinLife = 5 * time.Minute
	MaxMinLife     = time.Hour
)

// used is how precisely the last use of a connection is kept: a write per use would cost more than
// the tokens.
const used = 30 * time.Minute

// recently is how long ago tokens must have been renewed before a person can have it done again.
const recently = 10 * time.Second
