package kv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/keymutex"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
)

const (
	// opTimeout bounds an operation whose context has no deadline.
	opTimeout = 4 * time.Second
	// unsentTimeout is how long a request that could not be sent is tried again: a restart of
	// the embedded server takes less.
	unsentTimeout = 2 * time.Second
	// leaderTimeout is how long a request is tried again that a cluster answered with "not now", while
	// another of its servers becomes the leader.
	leaderTimeout   = 4 * time.Second
	unsentFirstWait = 20 * time.Millisecond  // before a request that could not be sent is tried again
	unsentMaxWait   = 250 * time.Millisecond // between two tries of such a request at most
	// askTimeout is how long one question waits before it is asked again: one that was on its
	// way when the connection broke is never answered. Each further one waits twice as long: a
	// server that is only slow would else get ever more of them, and answer none in time.
	askTimeout = time.Second
	// history is 1 but for SecureErase. There replaced values must stay findable until they
	// are erased, so that the bucket remembers several; nothing but erasing reads them.
	history      = 1
	eraseHistory = 64 // replaced values that a bucket keeps until they are erased
	// markerTTL is how long the marker of a deleted key stays, for watchers and relays.
	markerTTL = 7 * 24 * time.Hour
	// expiryMarkerTTL is the same for keys that expired.
	expiryMarkerTTL = time.Hour

	headerOp       = "KV-Operation"
	opDelete       = "DEL"
	headerMsgTTL   = "Nats-TTL"
	headerLastSubj = "Nats-Expected-Last-Subject-Sequence"
)

var validName = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

// StreamName is the bare name of the stream behind the bucket called name.
func StreamName(name string) string { return "KV_" + name }

// subjectPrefix is what precedes a bucket's keys in its stream's subjects.
func subjectPrefix(name string) string { return "$KV." + name + "." }

// store is a bucket of bytes.
type store struct {
	cfg    Config
	js     jetstream.JetStream
	stream jetstream.Stream
	prefix string // of its subjects, in NATS
	name   string // of its stream, in NATS
	// inventory is nil where none is kept.
	inventory *inventory
	// wrote is the newest revision that this process wrote.
	wrote *atomic.Uint64
	// recent is nil where updates are not possible, and where replaced values are not to linger.
	recent *recent
	// updates is held by who updates a key.
	updates keymutex.Map
}

// definition is the bucket's stream: key-value layout, as other tools know it, without direct gets.
func definition(cfg Config) stream.Definition {
	c := jetstream.StreamConfig{
		Name:              StreamName(cfg.Name),
		Subjects:          []string{subjectPrefix(cfg.Name) + ">"},
		Retention:         jetstream.LimitsPolicy,
		Storage:           jetstream.FileStorage,
		Discard:           jetstream.DiscardNew,
		MaxMsgsPerSubject: history,
		MaxBytes:          cfg.MaxBytes,
		MaxMsgs:           -1,
		MaxConsumers:      -1,
		MaxMsgSize:        -1,
		Duplicates:        2 * time.Minute,
		AllowRollup:       true,
		DenyDelete:        true,
		AllowDirect:       false,
		AllowMsgTTL:       true,
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = -1
	}
	if cfg.SecureErase {
		c.DenyDelete, c.MaxMsgsPerSubject = false, eraseHistory
	}
	if cfg.TTL {
		c.SubjectDeleteMarkerTTL = expiryMarkerTTL
	}
	return stream.Definition{Config: c, Version: max(cfg.Version, 1)}
}

func openStore(ctx context.Context, js jetstream.JetStream, cfg Config) (*store, error) {
	if !validName.MatchString(cfg.Name) {
		return nil, fmt.Errorf("kv: bad bucket name %q", cfg.Name)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	st, err := stream.Ensure(ctx, js, definition(cfg), stream.Options{Logger: cfg.Logger})
	var api *jetstream.APIError
	if errors.As(err, &api) && api.Code/100 == 4 {
		return nil, fmt.Errorf("kv: open %s: %w", cfg.Name, err) // refused for what it is: waiting does not help
	}
	if err != nil {
		return nil, storeError(ctx, "open", cfg.Name, "", err)
	}
	if st.CachedInfo().Config.AllowDirect {
		return nil, fmt.Errorf("kv: bucket %s allows direct gets, which may be old", cfg.Name)
	}
	s := namedStore(js, st, cfg)
	if !cfg.TTL && !cfg.SecureErase {
		s.recent = newRecent()
	}
	if cfg.SecureErase {
		if err := s.eraseLeftovers(ctx); err != nil {
			return nil, err
		}
	}
	if cfg.Inventory != "" {
		if s.inventory, err = openInventory(ctx, s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// namedStore knows the names that the bucket has in NATS.
func namedStore(js jetstream.JetStream, st jetstream.Stream, cfg Config) *store {
	names := stream.InstallationOf(js)
	return &store{cfg: cfg, js: js, stream: st, prefix: names.Subject(subjectPrefix(cfg.Name)), name: names.Stream(StreamName(cfg.Name)), wrote: wroteTo(js, cfg.Name)}
}

func bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, opTimeout)
}

// untilTaken repeats f, for a short while, as long as its request could not be sent at all, or nobody could
// take it.
func untilTaken(ctx context.Context, f func() error) error {
	began := time.Now()
	pauses := stream.Pauses(unsentFirstWait, unsentMaxWait)
	for {
		err := f()
		if err == nil || time.Since(began) >= patience(err) {
			return err
		}
		if sleep(ctx, pauses.NextBackOff()) != nil {
			return err
		}
	}
}

// ask has f ask the leader, which gets twice the time whenever it has not answered in time.
func ask(ctx context.Context, f func(context.Context) error) error {
	for timeout := askTimeout; ; timeout *= 2 {
		err := untilTaken(ctx, func() error {
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			return f(ctx)
		})
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return err
		}
	}
}

// last returns the newest message of key, be it a value or a marker. A key that never was is
// ErrMsgNotFound.
func (s *store) last(ctx context.Context, key string) (m *jetstream.RawStreamMsg, err error) {
	err = ask(ctx, func(ctx context.Context) error {
		m, err = s.stream.GetLastMsgForSubject(ctx, s.prefix+key)
		return err
	})
	return m, err
}

func isMarker(h nats.Header) bool {
	return h.Get(headerOp) != "" || h.Get(jetstream.MarkerReasonHeader) != ""
}

func (s *store) get(ctx context.Context, key string) ([]byte, uint64, error) {
	if err := checkKey(key); err != nil {
		return nil, 0, err
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	m, err := s.last(ctx, key)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		if err := s.missing(ctx, key); err != nil {
			return nil, 0, err
		}
	}
	if err != nil {
		return nil, 0, storeError(ctx, "get", s.cfg.Name, key, err)
	}
	if isMarker(m.Header) {
		return nil, 0, fmt.Errorf("%w: get %s/%s", ErrNotFound, s.cfg.Name, key)
	}
	return m.Data, m.Sequence, nil
}

// missing is a LossError when there should be a message of the key although there is none.
func (s *store) missing(ctx context.Context, key string) error {
	if s.inventory == nil {
		return nil
	}
	return s.inventory.missing(ctx, key)
}

// noLoss is a LossError when a key that seems free was lost: nothing is written in its place.
func (s *store) noLoss(ctx context.Context, key string) error {
	if s.inventory == nil || !s.inventory.isKnown(key) {
		return nil
	}
	if _, err := s.last(ctx, key); !errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil // whatever is wrong, the write that follows meets it too
	}
	return s.inventory.missing(ctx, key)
}

// put writes a message at an expected revision; 0 expects none. A value that was stored goes into
// the inventory.
func (s *store) put(ctx context.Context, m *nats.Msg, rev uint64) (uint64, error) {
	m.Header.Set(headerLastSubj, strconv.FormatUint(rev, 10))
	var ack *jetstream.PubAck
	err := untilTaken(ctx, func() (err error) {
		ack, err = s.js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
		return err
	})
	if err != nil {
		return 0, err
	}
	raise(s.wrote, ack.Sequence)
	key := m.Subject[len(s.prefix):]
	if isMarker(m.Header) {
		s.recent.forget(key)
		return ack.Sequence, nil
	}
	s.recent.keep(key, m.Data, ack.Sequence)
	if s.inventory != nil {
		s.inventory.wrote(key, ack.Sequence)
	}
	return ack.Sequence, nil
}

// raise sets n to rev where that is more.
func raise(n *atomic.Uint64, rev uint64) {
	for old := n.Load(); old < rev && !n.CompareAndSwap(old, rev); old = n.Load() {
	}
}

func (s *store) message(key string, data []byte) *nats.Msg {
	return &nats.Msg{Subject: s.prefix + key, Data: data, Header: nats.Header{}}
}

func (s *store) create(ctx context.Context, key string, data []byte, ttl time.Duration) (uint64, error) {
	if err := checkKey(key); err != nil {
		return 0, err
	}
	if ttl != 0 && (!s.cfg.TTL || ttl < time.Second) {
		return 0, fmt.Errorf("kv: create %s/%s: a time to live of %v is not possible in this bucket", s.cfg.Name, key, ttl)
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	if err := s.noLoss(ctx, key); err != nil {
		return 0, err
	}
	m := s.message(key, data)
	if ttl != 0 {
		m.Header.Set(headerMsgTTL, strconv.FormatInt(int64(ttl/time.Second), 10)+"s")
	}
	rev, err := s.put(ctx, m, 0)
	if !isWrongLast(err) {
		return rev, storeError(ctx, "create", s.cfg.Name, key, err)
	}
	// Something is there: a value, or the marker of one that is gone.
	old, err := s.last(ctx, key)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound): // the marker expired this moment
		rev, err = s.put(ctx, m, 0)
	case err != nil:
		return 0, storeError(ctx, "create", s.cfg.Name, key, err)
	case !isMarker(old.Header):
		return 0, fmt.Errorf("%w: create %s/%s", ErrExists, s.cfg.Name, key)
	default:
		rev, err = s.put(ctx, m, old.Sequence)
	}
	if isWrongLast(err) {
		return 0, fmt.Errorf("%w: create %s/%s", ErrExists, s.cfg.Name, key)
	}
	return rev, storeError(ctx, "create", s.cfg.Name, key, err)
}

func (s *store) compareAndSet(ctx context.Context, key string, data []byte, rev uint64) (uint64, error) {
	if err := checkKey(key); err != nil {
		return 0, err
	}
	if s.cfg.TTL {
		return 0, fmt.Errorf("%w: %s/%s", ErrCreateOnly, s.cfg.Name, key)
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	if rev == 0 {
		if err := s.noLoss(ctx, key); err != nil {
			return 0, err
		}
	}
	stored, err := s.put(ctx, s.message(key, data), rev)
	if err != nil {
		return 0, storeError(ctx, "update", s.cfg.Name, key, err)
	}
	if s.cfg.SecureErase && rev != 0 {
		if err := s.eraseBefore(ctx, key, stored); err != nil {
			s.cfg.Logger.WarnContext(ctx, "replaced value not erased yet", slog.String(logs.KeyBucket, s.cfg.Name), slog.String(logs.KeyKey, key), logs.Err(err))
		}
	}
	return stored, nil
}

func (s *store) delete(ctx context.Context, key string, rev uint64) error {
	if err := checkKey(key); err != nil {
		return err
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	for range updateTries {
		at := rev
		if at == 0 {
			m, err := s.last(ctx, key)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				if err := s.missing(ctx, key); err != nil {
					return err
				}
			}
			if err != nil {
				return storeError(ctx, "delete", s.cfg.Name, key, err)
			}
			if isMarker(m.Header) {
				return fmt.Errorf("%w: delete %s/%s", ErrNotFound, s.cfg.Name, key)
			}
			at = m.Sequence
		}
		if s.inventory != nil {
			if err := s.inventory.deleting(ctx, key, at); err != nil {
				return err
			}
		}
		m := s.message(key, nil)
		m.Header.Set(headerOp, opDelete)
		m.Header.Set(headerMsgTTL, strconv.FormatInt(int64(markerTTL/time.Second), 10)+"s")
		marker, err := s.put(ctx, m, at)
		if rev == 0 && isWrongLast(err) {
			continue
		}
		if err == nil && s.inventory != nil {
			s.inventory.forget(key)
		}
		if err == nil && s.cfg.SecureErase {
			err = s.eraseBefore(ctx, key, marker)
		}
		return storeError(ctx, "delete", s.cfg.Name, key, err)
	}
	return fmt.Errorf("%w: delete %s/%s", ErrConflict, s.cfg.Name, key)
}
