package kv

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Replaced and deleted values stay readable in JetStream's block files until the file is compacted
// (DESIGN.md#secrets). A SecureErase bucket therefore keeps them in its history until they have
// been overwritten with SecureDeleteMsg; that they are in the history is what lets a later process
// find what an earlier one left.

func (s *store) erase(ctx context.Context, key string) error {
	if !s.cfg.SecureErase {
		return fmt.Errorf("kv: bucket %s does not erase", s.cfg.Name)
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	err := s.delete(ctx, key, 0)
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	// Deleted before; leftovers may still be there.
	m, err := s.last(ctx, key)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err == nil {
		err = s.eraseBefore(ctx, key, m.Sequence)
	}
	return storeError(ctx, "erase", s.cfg.Name, key, err)
}

// eraseBefore overwrites every message of key that is older than the one at sequence newest.
func (s *store) eraseBefore(ctx context.Context, key string, newest uint64) error {
	for seq := uint64(1); ; {
		m, err := s.stream.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(s.prefix+key))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if m.Sequence >= newest {
			return nil
		}
		if err := s.stream.SecureDeleteMsg(ctx, m.Sequence); err != nil && !isGone(err) {
			return err
		}
		seq = m.Sequence + 1
	}
}

// isGone tells that a message to erase has been erased by another process meanwhile.
func isGone(err error) bool {
	var api *jetstream.APIError
	const sequenceNotFound = 10043
	return errors.Is(err, jetstream.ErrMsgNotFound) || errors.As(err, &api) && (api.ErrorCode == sequenceNotFound || api.Code == 404)
}

// eraseLeftovers erases what processes left that died between a write and its erase.
func (s *store) eraseLeftovers(ctx context.Context) error {
	info, err := s.stream.Info(ctx, jetstream.WithSubjectFilter(s.prefix+">"))
	if err != nil {
		return storeError(ctx, "erase leftovers of", s.cfg.Name, "", err)
	}
	for subject, count := range info.State.Subjects {
		if count < 2 {
			continue
		}
		key := subject[len(s.prefix):]
		m, err := s.last(ctx, key)
		if err == nil {
			err = s.eraseBefore(ctx, key, m.Sequence)
		}
		if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
			return storeError(ctx, "erase leftovers of", s.cfg.Name, key, err)
		}
	}
	return nil
}
