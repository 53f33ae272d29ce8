package token

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

// Prober asks Bitbucket who the owner of an access token is. Errors are those of pkg/bitbucket.
type Prober interface {
	Probe(ctx context.Context, token seal.Secret) error
}

// Times of the probes: an answer holds for a while, so that a storm of 401s costs a call a minute.
const (
	probeTimeout  = 5 * time.Second
	acceptedFor   = time.Minute
	undecidedFor  = 5 * time.Second
	undecidedMost = time.Minute
)

// verdict is what Bitbucket makes of a token when it is asked for nothing but its owner.
type verdict int

const (
	// undecided: no answer that says anything.
	undecided verdict = iota
	accepted
	rejected
	// heldBack: the call was not made, to stay within our own budget of calls.
	heldBack
)

func (v verdict) String() string {
	return [...]string{"undecided", "accepted", "rejected", "held_back"}[v]
}

// probe is a question about one token, and its answer for as long as that holds.
type probe struct {
	connection string
	generation uint64
	done       chan struct{}
	verdict    verdict   // once done is closed
	until      time.Time // the answer is not used after it
}

// probed returns what Bitbucket makes of the record's access token. A 401 says nothing about a
// connection while Bitbucket accepts its token elsewhere (BITBUCKET.md#presenting-a-token). All who ask at
// the same time, and for a while after, share one call.
func (m *Manager) probed(ctx context.Context, rec *authstorev1.Integration) (verdict, error) {
	ws := rec.GetWorkspace()
	m.mu.Lock()
	p := m.probes[ws]
	running := p != nil && p.until.IsZero()
	if p == nil || p.connection != rec.GetConnectionId() || p.generation != rec.GetGeneration() || !running && !m.cfg.Now().Before(p.until) {
		p = &probe{connection: rec.GetConnectionId(), generation: rec.GetGeneration(), done: make(chan struct{})}
		if m.closed {
			m.mu.Unlock()
			return undecided, errClosing
		}
		m.probes[ws] = p
		ctx := context.WithoutCancel(ctx)
		m.work.Go(func() { m.ask(ctx, rec, p) })
	}
	m.mu.Unlock()
	select {
	case <-p.done:
		return p.verdict, nil
	case <-ctx.Done():
		return undecided, slow(ctx)
	}
}

// ask makes the call of a probe. Only 401 rejects: a refusal of another kind knows the token's owner.
func (m *Manager) ask(ctx context.Context, rec *authstorev1.Integration, p *probe) {
	v, life := undecided, undecidedFor
	defer func() {
		m.mu.Lock()
		p.verdict, p.until = v, m.cfg.Now().Add(life)
		m.mu.Unlock()
		close(p.done)
	}()
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	token, err := m.cfg.Tokens.OpenAccess(rec.GetWorkspace(), rec.GetAccess().GetSealed())
	if err == nil {
		err = m.cfg.Prober.Probe(ctx, token)
	}
	var e *bitbucket.Error
	switch {
	case err == nil, bitbucket.IsKind(err, bitbucket.KindScopeMissing, bitbucket.KindForbidden, bitbucket.KindAccessRestricted):
		v, life = accepted, acceptedFor
	case bitbucket.IsKind(err, bitbucket.KindUnauthorized):
		v, life = rejected, 0 // what follows from it is in the record
	case errors.As(err, &e):
		if e.Kind == bitbucket.KindRateLimited && e.Status == 0 {
			v = heldBack
		}
		life = min(max(e.RetryAfter, undecidedFor), undecidedMost)
	}
	m.cfg.Metrics.probes.WithLabelValues(v.String()).Inc()
	attrs := []slog.Attr{slog.String(logs.KeyWorkspace, rec.GetWorkspace()), slog.String(logs.KeyConnection, p.connection), slog.String("verdict", v.String())}
	if err != nil {
		attrs = append(attrs, logs.Err(err))
	}
	m.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "bitbucket answered 401 and was asked whether it accepts the token", attrs...)
}

// errUndecided is the answer to a caller whose token was rejected while Bitbucket cannot be asked
// whether that is about the token.
var errUndecided = apierr.New(apierr.ReasonBitbucketUnavailable,
	"Bitbucket answered 401, and cannot be asked at the moment whether it still accepts the connection's token. Try again in a moment.", apierr.WithRetryAfter(undecidedFor))
