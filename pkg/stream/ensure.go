package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/logs"
)

// settingsVersion is the metadata key of the version of a stream's or consumer's settings.
const settingsVersion = "devpilot-settings-version"

const (
	ensureTries = 5 // tries to set up a stream that others set up too
	// tryTimeout is how long one try to set up a stream or consumer waits for its answers.
	tryTimeout = 2 * time.Second
	// unknownTimeout is how long a stream that is there may be unknown to the leader of a cluster: the server that
	// holds it answers that it was made, and the leader may not have heard of it yet.
	unknownTimeout = 4 * time.Second
	// unknownFirstWait is the pause before such a stream is asked for again; the pauses double.
	unknownFirstWait = 20 * time.Millisecond
	// unknownMaxWait is the longest of those pauses.
	unknownMaxWait = 250 * time.Millisecond
)

// JetStream API error codes that nats.go gives no name to.
const (
	codeInsufficientResources = 10023
	codeStorageExceeded       = 10047
)

// ErrNoRoom says that the server's storage limit leaves no room for the streams. Waiting does not help.
var ErrNoRoom = errors.New("JetStream's storage limit leaves no room")

// ErrPermanent is what an error is when trying again brings the same: for those who open their
// stores again and again until they are there.
var ErrPermanent = errors.New("stream: waiting does not help")

type noRoom struct {
	stream string
	size   int64 // that it is to have
	shared bool  // it has a share
	fit    *Fit  // of all streams; nil where it is not known, or not what is too large
	err    error
}

func (e *noRoom) Error() string {
	const remedy = "give NATS a larger store (all-in-one: a larger volume for the data directory, or free space on it)"
	if e.fit == nil {
		return fmt.Sprintf("JetStream's storage limit leaves no room for the stream %s of %d MiB: %s, or set DEVPILOT_STREAMS_MIB lower, the same for every process. NATS says: %v", e.stream, e.size>>20, remedy, e.err)
	}
	needs, has, records := e.fit.Needs()>>20, e.fit.Has()>>20, int64(RecordsBytes>>20)
	return fmt.Sprintf("JetStream's store is too small: this installation needs %d MiB, %d for its streams (DEVPILOT_STREAMS_MIB) and %d for records, and the store has %d MiB for it: %s, or set DEVPILOT_STREAMS_MIB, the same for every process, to %d or less",
		needs, needs-records, records, has, remedy, max(has-records, 0))
}

// again tries once more where there is room after all: what a start that failed left behind takes less now, or
// somebody else measured it, which nobody does meanwhile. Otherwise it finds out what is needed.
func (e *noRoom) again(ctx context.Context, js jetstream.JetStream, logger *slog.Logger, ensure func() (jetstream.Stream, error)) (jetstream.Stream, error) {
	turn, cancel := withTimeout(ctx, turnTimeout)
	defer cancel()
	release, err := takeTurn(turn, js)
	if err != nil {
		return nil, e // without a turn no number is right
	}
	defer release()
	if e.shared && lowerUnused(turn, js, logger) {
		s, err := ensure()
		if full := new(noRoom); !errors.As(err, &full) {
			return s, err
		}
	}
	fit, err := measure(turn, js)
	switch {
	case err == nil && fit.Has() < fit.Needs():
		e.fit = &fit
		return nil, e
	case err == nil && e.shared:
		return ensure()
	}
	return nil, e
}

func (e *noRoom) Is(target error) bool { return target == ErrNoRoom || target == ErrPermanent }
func (e *noRoom) Unwrap() error        { return e.err }

// Options are of one stream.
type Options struct {
	// Logger hears of settings that were left alone; nil discards.
	Logger *slog.Logger
}

func (o Options) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}

// Ensure creates the stream, or updates one whose settings have a lower version, and returns it.
// A higher version is left alone, so that an old replica that restarts during a rolling update
// does not take newer settings back. At the same version only settings that somebody else turned
// (see drifted) are put right.
//
// Replicas are raised to what is wished and never lowered: whoever knows nothing of the others' settings
// would else take a copy away that they count on.
//
// Sizes, where a stream has a share (see Shares), are raised to it and never lowered, for the same reason.
// When the store has no room for that the error is ErrNoRoom, and says what the streams need and what there is.
func Ensure(ctx context.Context, js jetstream.JetStream, def Definition, opts Options) (jetstream.Stream, error) {
	s, err := ensure(ctx, js, def, opts)
	var full *noRoom
	if errors.As(err, &full) {
		s, err = full.again(ctx, js, opts.logger(), func() (jetstream.Stream, error) { return ensure(ctx, js, def, opts) })
	}
	if err != nil {
		return nil, fmt.Errorf("stream: ensure %s: %w", InstallationOf(js).Stream(def.Config.Name), err)
	}
	return s, nil
}

func ensure(ctx context.Context, js jetstream.JetStream, def Definition, opts Options) (jetstream.Stream, error) {
	cfg, settings := def.Config, SettingsOf(js)
	names, share := settings.Installation, shareOf(cfg.Name, settings.bytes())
	cfg.Name, cfg.Subjects = names.Stream(cfg.Name), names.Subjects(cfg.Subjects)
	cfg.Replicas = wished(js)
	if share > 0 {
		cfg.MaxBytes = share
	}
	cfg.Metadata = versioned(cfg.Metadata, def.Version)
	return settled(ctx, func(ctx context.Context) (jetstream.Stream, error) {
		wish := cfg.Replicas
		s, err := js.Stream(ctx, cfg.Name)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			s, wish, err = createStream(ctx, js, cfg, share > 0)
			if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
				return nil, errUnsettled // another replica was faster; read what it made
			}
		case err == nil:
			s, wish, err = updateStream(ctx, js, s, cfg, def.Version, share > 0, opts)
		}
		if err != nil {
			return nil, err
		}
		if versionOf(s.CachedInfo().Config.Metadata) < def.Version {
			return nil, errUnsettled
		}
		settings.Replication.report(ctx, s, wish, opts.logger())
		if !settings.Fitted {
			settings.Replication.size(ctx, s, share, opts.logger())
		}
		opened(js, cfg.Name)
		return s, nil
	})
}

// errUnsettled says that somebody else set the same up meanwhile: look again.
var errUnsettled = errors.New("its settings keep changing")

// settled calls once until it is neither unsettled nor without an answer. A cluster whose leaders change, as
// they do while it starts, loses answers: what was asked for may be there, and asking again finds it. So does
// asking again for a while where a stream seems not to be there.
func settled[T any](ctx context.Context, once func(context.Context) (T, error)) (T, error) {
	ctx, cancel := withTimeout(ctx, 2*apiTimeout)
	defer cancel()
	began, pauses := time.Now(), Pauses(unknownFirstWait, unknownMaxWait)
	for try := 1; ; try++ {
		one, done := context.WithTimeout(ctx, tryTimeout)
		v, err := once(one)
		done()
		if errors.Is(err, jetstream.ErrStreamNotFound) && time.Since(began) < unknownTimeout && pause(ctx, pauses.NextBackOff()) {
			try--
			continue
		}
		lost := errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil
		if err == nil || !lost && !errors.Is(err, errUnsettled) || try == ensureTries {
			return v, err
		}
	}
}

// pause waits, and tells whether ctx still goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	return ctx.Err() == nil
}

// createStream makes a stream with as many replicas as are wished or, where that is left to us, as can be,
// and says how many that are.
func createStream(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig, shared bool) (s jetstream.Stream, wish int, err error) {
	s, err = js.CreateStream(ctx, cfg)
	if tooFewServers(err) && SettingsOf(js).Replicas > 0 {
		return nil, 0, &tooFew{stream: cfg.Name, replicas: cfg.Replicas, single: !clustered(js), err: err}
	}
	if tooFewServers(err) {
		cfg.Replicas = 1
		s, err = js.CreateStream(ctx, cfg)
	}
	if tooLarge(err) {
		err = &noRoom{stream: cfg.Name, size: max(cfg.MaxBytes, 0), shared: shared, err: err}
	}
	return s, cfg.Replicas, err
}

// tooLarge tells that the server's storage limit leaves no room for a stream of this size.
func tooLarge(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == codeInsufficientResources || api.ErrorCode == codeStorageExceeded || noStorage(api))
}

func updateStream(ctx context.Context, js jetstream.JetStream, s jetstream.Stream, want jetstream.StreamConfig, version int, shared bool, opts Options) (updated jetstream.Stream, wish int, err error) {
	have := s.CachedInfo().Config
	stored := versionOf(have.Metadata)
	wish = want.Replicas
	switch {
	case shared:
		want.MaxBytes = larger(want.MaxBytes, have.MaxBytes)
	case stored == version:
		want.MaxBytes = have.MaxBytes
	}
	switch {
	case stored > version:
		opts.logger().WarnContext(ctx, "stream has newer settings than this process knows; left alone",
			logs.KeyStream, want.Name, "stored_version", stored, "own_version", version)
		return s, max(wish, have.Replicas), nil
	case stored == version && !drifted(have, want) && want.MaxBytes == have.MaxBytes:
		return raiseReplicas(ctx, js, s, wish)
	}
	if have.AllowMsgTTL {
		want.AllowMsgTTL = true // cannot be switched off again
	}
	for k, v := range have.Metadata {
		if _, ok := want.Metadata[k]; !ok {
			want.Metadata[k] = v
		}
	}
	want.Replicas = have.Replicas // raised apart: for want of servers nothing else is to fail
	updated, err = js.UpdateStream(ctx, want)
	if tooLarge(err) {
		err = &noRoom{stream: want.Name, size: want.MaxBytes, shared: shared, err: err}
	}
	if err != nil {
		return nil, 0, err
	}
	return raiseReplicas(ctx, js, updated, wish)
}

// drifted tells whether settings differ that have a meaning for correctness. AllowDirect is the
// one that others turn back on: nats.go's CreateOrUpdateKeyValue does.
func drifted(have, want jetstream.StreamConfig) bool {
	return have.AllowDirect != want.AllowDirect ||
		have.MirrorDirect != want.MirrorDirect ||
		have.DenyDelete != want.DenyDelete ||
		have.DenyPurge != want.DenyPurge ||
		have.AllowRollup != want.AllowRollup ||
		have.MaxMsgsPerSubject != want.MaxMsgsPerSubject && want.MaxMsgsPerSubject > 0 ||
		have.Discard != want.Discard ||
		have.MaxAge != want.MaxAge ||
		!slices.Equal(have.Subjects, want.Subjects)
}

// EnsureConsumer creates the durable consumer cfg.Durable of a stream, both by their bare names, or updates one whose settings have a
// lower version; a higher version is left alone (see Ensure).
func EnsureConsumer(ctx context.Context, js jetstream.JetStream, stream string, cfg jetstream.ConsumerConfig, version int) (jetstream.Consumer, error) {
	names := InstallationOf(js)
	stream, cfg = names.Stream(stream), names.consumer(cfg)
	cfg.Metadata = versioned(cfg.Metadata, version)
	c, err := settled(ctx, func(ctx context.Context) (jetstream.Consumer, error) {
		c, err := js.Consumer(ctx, stream, cfg.Durable)
		switch {
		case errors.Is(err, jetstream.ErrConsumerNotFound):
			c, err = js.CreateConsumer(ctx, stream, cfg)
			if errors.Is(err, jetstream.ErrConsumerExists) {
				return nil, errUnsettled
			}
		case err == nil && versionOf(c.CachedInfo().Config.Metadata) < version:
			cfg.Replicas = max(cfg.Replicas, c.CachedInfo().Config.Replicas)
			c, err = js.UpdateConsumer(ctx, stream, cfg)
		}
		if err == nil && versionOf(c.CachedInfo().Config.Metadata) < version {
			err = errUnsettled
		}
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("stream: ensure consumer %s of %s: %w", cfg.Durable, stream, err)
	}
	return c, nil
}

func versioned(m map[string]string, version int) map[string]string {
	m = maps.Clone(m)
	if m == nil {
		m = map[string]string{}
	}
	m[settingsVersion] = strconv.Itoa(version)
	return m
}

// versionOf is the version in a stream's or consumer's metadata, 0 when it has none.
func versionOf(m map[string]string) int {
	v, err := strconv.Atoi(m[settingsVersion])
	if err != nil {
		return 0
	}
	return v
}

func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}
