package router

import (
	"errors"

	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
)

func isRetired(err error) bool { return errors.Is(err, lane.ErrRetired) }

func isBacklog(err error) bool { return errors.Is(err, lane.ErrBacklog) }
