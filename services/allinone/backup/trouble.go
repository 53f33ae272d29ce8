package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/nats-io/nats.go"

	"devpilot.io/bitbucket/pkg/stream"
)

// diskTrouble says what to do about a file that cannot be read or written, where that is known.
func diskTrouble(err error) error {
	var at *fs.PathError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("the volume of the backup is full: make room, or name a directory on another one: %w", err)
	case errors.Is(err, fs.ErrPermission) && errors.As(err, &at):
		return fmt.Errorf("this user may not use %s: run it as one who may, or name another directory: %w", at.Path, err)
	}
	return err
}

// natsTrouble says the same of NATS.
func natsTrouble(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, stream.ErrNoRoom): // it says itself what to do
		return err
	case errors.Is(err, nats.ErrPermissionViolation):
		return fmt.Errorf("NATS does not let this user do that: run it as the user operator of devpilot nats-permissions (deploy/OPERATIONS.md): %w", err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("NATS gave no answer: look whether its servers are well, and whether this is a user with the permissions of operator (deploy/OPERATIONS.md), and try again: %w", err)
	case stream.TooLarge(err):
		return fmt.Errorf("NATS has no room for what the backup holds: give it a larger store (all-in-one: a larger volume for the data directory), and begin anew with --again: %w", err)
	}
	return diskTrouble(err)
}
