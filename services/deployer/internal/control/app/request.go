package app

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// once remembers a request id with what was asked under it. The same id with another body is
// REQUEST_ID_REUSED; with the same body, the caller does the same again, which changes nothing
// where it was done, and gets the deployment's number where one was noted. body is the request
// without its id.
func (s *Service) once(ctx context.Context, workspace, method, id string, body proto.Message) (number int32, err error) {
	if id == "" {
		return 0, nil
	}
	if err := apierr.CheckRequestID(id); err != nil {
		return 0, err
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(body)
	if err != nil {
		return 0, fmt.Errorf("app: fingerprint of a request: %w", err)
	}
	sum := sha256.Sum256(b)
	key := requestKey(workspace, method, id)
	_, err = s.cfg.Store.Requests.Create(ctx, key, &storev1.Request{Fingerprint: sum[:]}, kv.TTL(store.RequestLife))
	if err == nil {
		return 0, nil
	}
	if !errors.Is(err, kv.ErrExists) {
		return 0, fmt.Errorf("app: remember a request: %w", err)
	}
	seen, _, err := s.cfg.Store.Requests.Get(ctx, key)
	if errors.Is(err, kv.ErrNotFound) {
		return 0, nil // it expired just now
	}
	if err != nil {
		return 0, fmt.Errorf("app: look a request up: %w", err)
	}
	if string(seen.GetFingerprint()) != string(sum[:]) {
		return 0, apierr.New(apierr.ReasonRequestIDReused, fmt.Sprintf("This requestId was used for another request within the last %d hours. Use a new one.", store.RequestLife/time.Hour),
			apierr.WithField("requestId", "used for another request"))
	}
	result, _, err := s.cfg.Store.Requests.Get(ctx, key+".result")
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return 0, fmt.Errorf("app: look a request up: %w", err)
	}
	return result.GetNumber(), nil
}

// made notes which deployment a request made.
func (s *Service) made(ctx context.Context, workspace, method, id string, number int32) error {
	if id == "" {
		return nil
	}
	_, err := s.cfg.Store.Requests.Create(ctx, requestKey(workspace, method, id)+".result", &storev1.Request{Number: number}, kv.TTL(store.RequestLife))
	if err != nil && !errors.Is(err, kv.ErrExists) {
		return fmt.Errorf("app: note a request's result: %w", err)
	}
	return nil
}

func requestKey(workspace, method, id string) string { return kv.EncodeKey(workspace, method, id) }

func hashID(id string) []byte {
	if id == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(id))
	return sum[:]
}
