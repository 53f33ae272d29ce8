package release

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockPoll is how often a lock that somebody else holds is tried.
const lockPoll = 20 * time.Millisecond

// lock takes an exclusive lock on the file at path within root, making the file if need be, and
// waits for it until ctx is done. unlock gives it back.
func lock(ctx context.Context, root *os.Root, path string) (*os.File, error) {
	for {
		f, err := tryLock(root, path)
		if f != nil || err != nil {
			return f, err
		}
		t := time.NewTimer(lockPoll)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
		case <-t.C:
		}
	}
}

// unlock gives a lock back and closes its file. Closing alone would not do it at once: a program
// that is being started at that moment holds a copy of every open file until it has begun, and the
// lock with it (flock(2)).
func unlock(f *os.File) error {
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close())
}

// tryLock is lock without waiting: nil when somebody else holds it.
func tryLock(root *os.Root, path string) (*os.File, error) {
	f, err := root.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return nil, f.Close()
	}
	return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
}

// The epoch file holds one line of fixed length: 20 digits, a space, the CRC-32 of the digits in 8
// hexadecimal digits. It is written in place, because a file that is replaced by rename takes its
// lock along.
const epochLength = 20 + 1 + 8 + 1

// readEpoch returns the epoch in the locked file: 0 when it is new or damaged. The lane's record
// decides who is newest; the file only shuts out those who sleep, so that a damaged one, after a
// power cut, may be written over.
func readEpoch(f *os.File) (int64, error) {
	b := make([]byte, epochLength)
	n, err := f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) && n < epochLength {
		return 0, nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	var epoch int64
	var sum uint32
	if _, err := fmt.Sscanf(string(b), "%d %x\n", &epoch, &sum); err != nil || crc32.ChecksumIEEE(b[:20]) != sum {
		return 0, nil //nolint:nilerr // damaged, see above
	}
	return epoch, nil
}

func writeEpoch(f *os.File, epoch int64) error {
	digits := fmt.Sprintf("%020d", epoch)
	if _, err := f.WriteAt(fmt.Appendf(nil, "%s %08x\n", digits, crc32.ChecksumIEEE([]byte(digits))), 0); err != nil {
		return err
	}
	return f.Sync()
}
