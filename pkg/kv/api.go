package kv

import (
	"errors"

	"devpilot.io/bitbucket/pkg/apierr"
)

// ToAPI turns an error of this package into its public form: store trouble into
// STORAGE_UNAVAILABLE, a lost race into ETAG_MISMATCH. Every other error passes as it is, public
// ones too. ErrNotFound and ErrExists have no public form of their own (what was not found is the
// caller's knowledge: APP_NOT_FOUND, WEBHOOK_NOT_FOUND, …): callers test for them first.
func ToAPI(err error) error {
	var public *apierr.Error
	switch {
	case err == nil || errors.As(err, &public):
		return err
	case errors.Is(err, ErrLost):
		return apierr.New(apierr.ReasonStorageUnavailable, "Devpilot's storage has lost records, and until they are restored this cannot be answered. Devpilot's log says which, and what to do.", apierr.WithCause(err))
	case errors.Is(err, ErrUnavailable):
		return apierr.New(apierr.ReasonStorageUnavailable, "Devpilot's storage does not answer at the moment. Try again shortly.", apierr.WithCause(err))
	case errors.Is(err, ErrConflict):
		return apierr.New(apierr.ReasonEtagMismatch, "This was changed at the same moment. Load it again and repeat the change.", apierr.WithCause(err))
	}
	return err
}
