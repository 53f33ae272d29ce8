package tree

import (
	"fmt"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// Disk is the room that may be taken.
type Disk struct {
	Free    func(dir string) (uint64, error) // what is free where dir is; nil: not checked
	Reserve uint64                           // stays free
}

// Check fails with an *Error where no more than the reserve is left.
func (d Disk) Check(dir string) error {
	if d.Free == nil {
		return nil
	}
	free, err := d.Free(dir)
	if err != nil {
		return err
	}
	if free < d.Reserve {
		return &remote.Error{Reason: remote.ReasonDiskFull, Temporary: true, Message: fmt.Sprintf("The server's disk has %d MiB left, less than its reserve. Make room; the deployment then goes on by itself.", free>>20)}
	}
	return nil
}

// checkMore is Check with more to leave free.
func (d Disk) checkMore(dir string, more uint64) error {
	if d.Free == nil || more == 0 {
		return d.Check(dir)
	}
	free, err := d.Free(dir)
	if err != nil {
		return err
	}
	if free < d.Reserve+more {
		return ErrNoRoom
	}
	return nil
}
