package sandbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"devpilot.io/bitbucket/services/deployer/internal/engine/trees"
)

// What an app takes is counted by walking its files, and only when there is reason to: when the disk
// lost space that the app may have taken, or after a time that is long beside that of a walk.
const (
	meterEvery = 100 * time.Millisecond
	meterStep  = 16 << 20 // bytes
	meterRest  = 10 * time.Second
	meterLazy  = 100 // a walk takes one part in so many of the time
)

// volume is what a file system has, in bytes; a file takes perFile of it even when it is empty.
type volume struct{ all, free, perFile int64 }

func volumeOf(path string) (volume, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return volume{}, err
	}
	v := volume{all: int64(st.Blocks) * st.Bsize, free: int64(st.Bavail) * st.Bsize, perFile: 4 << 10}
	if st.Files > 0 { // it has a number of them that is fixed
		v.perFile = max(v.perFile, v.all/int64(st.Files))
		v.free = min(v.free, int64(st.Ffree)*v.perFile)
	}
	return v, nil
}

// weigh measures what counts until ctx ends, and returns its verdict when it is more than it may be.
func weigh(ctx context.Context, s Spec) verdict {
	paths := s.Counted
	if len(paths) == 0 {
		paths = append([]string{s.Release}, s.Shared...)
	}
	first, err := volumeOf(s.Release)
	if err != nil || s.Limits.Disk < 0 {
		return nil
	}
	most := s.Limits.Disk
	if most == 0 {
		most = first.all / 4
	}
	t := time.NewTicker(meterEvery)
	defer t.Stop()
	free, step, next := first.free, int64(meterStep), time.Now().Add(meterRest)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		now, err := volumeOf(s.Release)
		if err != nil || free-now.free < step && time.Now().Before(next) {
			continue
		}
		began := time.Now()
		used, err := sizeOf(ctx, paths, now.perFile, most)
		switch {
		case errors.Is(err, trees.ErrDeep):
			return func(r *Result) string {
				r.OverQuota = true
				return fmt.Sprintf("Killed: how much of the disk the app takes could not be measured: %v.", err)
			}
		case err == nil && used > most:
			return func(r *Result) string {
				r.OverQuota = true
				return fmt.Sprintf("Killed: the app, with its releases and shared paths, takes more than %s of the server's disk. Remove what it does not need, or have --app-disk-mib raised.", size(most))
			}
		}
		took := time.Since(began)
		free, step, next = now.free, max((most-used)/2, meterStep), time.Now().Add(max(meterRest, meterLazy*took))
	}
}

func sizeOf(ctx context.Context, paths []string, perFile, most int64) (int64, error) {
	var sum int64
	for _, p := range paths {
		n, err := trees.Size(ctx, p, perFile, most-sum)
		if sum += n; err != nil || sum > most {
			return sum, err
		}
	}
	return sum, nil
}
