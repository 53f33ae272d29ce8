package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// lockDir takes an exclusive lock on dir for the life of the process. The kernel lets go of it
// when the process dies, however it dies, so that a kill -9 leaves nothing to clean up.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("engine: open the store's lock file: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		closeErr := f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrStoreInUse, dir)
		}
		return nil, errors.Join(fmt.Errorf("engine: lock the store directory: %w", err), closeErr)
	}
	return f, nil
}

// computeMaxStore is what the store uses already plus what is free on its volume, less the
// reserve (at most half of the free space, so that a small disk still works). A new store that
// needs more than that is a *VolumeError. One that holds streams is started however full the volume is:
// it must be reachable to be emptied.
func computeMaxStore(dir string, reserve, need int64) (int64, error) {
	free, err := freeBytes(dir)
	if err != nil {
		return 0, err
	}
	used, err := usedBytes(dir)
	if err != nil {
		return 0, err
	}
	streams, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "*"))
	if err != nil {
		return 0, fmt.Errorf("engine: look for streams in %s: %w", dir, err)
	}
	most := used + free - min(reserve, free/2)
	if most < need && len(streams) == 0 {
		return 0, &VolumeError{Dir: dir, Free: free, Need: need + min(reserve, need)}
	}
	return most, nil
}

// MaxStore is how large a store may become in dir, in bytes, by what its volume has: the bound of a server that
// is started there. A dir that is not there yet is judged by where it would be made. The error is a
// *VolumeError where a new store needs more; nothing is changed.
func MaxStore(dir string, need int64) (int64, error) {
	reserve := NATSConfig{}.withDefaults().Reserve
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return computeMaxStore(dir, reserve, need)
	}
	dir, err := filepath.Abs(dir)
	for at := dir; err == nil; at = filepath.Dir(at) {
		free, missing := freeBytes(at)
		if errors.Is(missing, fs.ErrNotExist) {
			continue
		}
		most := free - min(reserve, free/2)
		if missing == nil && most < need {
			missing = &VolumeError{Dir: dir, Free: free, Need: need + min(reserve, need)}
		}
		return most, missing
	}
	return 0, fmt.Errorf("engine: the store's directory: %w", err)
}

func freeBytes(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("engine: free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // the fields' types differ between systems
}

func usedBytes(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if path != dir && errors.Is(err, fs.ErrNotExist) {
			return nil // a server that runs has deleted it meanwhile
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		sum += info.Size()
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("engine: size of %s: %w", dir, err)
	}
	return sum, nil
}
