package kv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/stream"
)

// Errors of this package; test with errors.Is.
var (
	// ErrNotFound says that the key holds no value.
	ErrNotFound = errors.New("kv: not found")
	// ErrExists says that Create found a value.
	ErrExists = errors.New("kv: exists already")
	// ErrConflict says that the key's revision is not the expected one, or that an Update lost
	// against others time after time.
	ErrConflict = errors.New("kv: changed meanwhile")
	// ErrBadKey says that a key or filter cannot be one; see EncodeKey.
	ErrBadKey = errors.New("kv: bad key")
	// ErrTooLarge says that a value is larger than the store takes.
	ErrTooLarge = errors.New("kv: value too large")
	// ErrCreateOnly says that a bucket whose keys have a time to live was to update one. An
	// update would make the key permanent (DESIGN.md#jetstream): delete and create it instead.
	ErrCreateOnly = errors.New("kv: keys with a time to live can only be created and deleted")
	// ErrSkip is for functions given to Update: leave the record as it is.
	ErrSkip = errors.New("kv: leave as is")
	// ErrUnavailable says that the store could not be asked, or did not answer in time. A
	// write may or may not have been stored. stream.Consume takes it for temporary.
	ErrUnavailable error = unavailable{}
)

type unavailable struct{}

func (unavailable) Error() string        { return "kv: the store is unavailable" }
func (unavailable) Is(target error) bool { return target == stream.ErrTemporary }

// storeError names what was attempted and tells store trouble from the caller giving up.
func storeError(ctx context.Context, op, bucket, key string, err error) error {
	if err == nil {
		return nil
	}
	where := fmt.Sprintf("%s %s/%s", op, bucket, key)
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("kv: %s: %w", where, context.Canceled)
	}
	var api *jetstream.APIError
	switch {
	case isWrongLast(err):
		return fmt.Errorf("%w: %s", ErrConflict, where)
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return fmt.Errorf("%w: %s", ErrNotFound, where)
	case errors.Is(err, nats.ErrMaxPayload), errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamMessageExceedsMaximum:
		return fmt.Errorf("%w: %s", ErrTooLarge, where)
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, where, err)
}

// isWrongLast tells a compare-and-set that lost; replicated streams have a code of their own.
func isWrongLast(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// patience is for how long a request is tried again after an error that certainly changed nothing; 0 for any other.
func patience(err error) time.Duration {
	if errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrConnectionReconnecting) {
		return unsentTimeout
	}
	var api *jetstream.APIError
	if errors.As(err, &api) && slices.Contains(notNow, api.ErrorCode) {
		return leaderTimeout
	}
	return 0
}

// notNow is how a server answers that is no leader yet, or no more (nats-server's errors.json), and the leader of
// a cluster that has not heard yet of a stream which another of its servers made.
var notNow = []jetstream.ErrorCode{
	10008, // JetStream system temporarily unavailable
	10009, // JetStream cluster can not handle request
	10163, // expected last sequence per subject temporarily unavailable
	jetstream.JSErrCodeStreamNotFound,
}
