package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/stream"
)

// Progress hears how far a backup or a restore is: of how many streams the one with the name is which, and how many of its
// messages or bytes are done. It must not block.
type Progress func(which, streams int, name string, done uint64)

// Save makes a backup of the installation whose session it is in dir, which must be empty or not exist. It reads
// only, and whoever uses the stores is not stopped. On an error dir has no manifest, and is no backup.
func Save(ctx context.Context, session *kv.Session, dir string, tell Progress) (*Manifest, error) {
	if err := makeEmpty(dir); err != nil {
		return nil, err
	}
	name := stream.InstallationOf(session)
	m := &Manifest{Format: format, Time: time.Now().UTC(), Version: servicemain.Version, Installation: Installation{Name: string(name)}}
	names := streams()
	for i, bare := range names {
		s, err := session.Stream(ctx, name.Stream(bare))
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return nil, natsTrouble(fmt.Errorf("look for stream %s: %w", name.Stream(bare), err))
		}
		tell(i+1, len(names), bare, 0)
		one, err := saveStream(ctx, session, s, dir, isBucket(bare), func(n uint64) { tell(i+1, len(names), bare, n) })
		if err != nil {
			return nil, natsTrouble(fmt.Errorf("save stream %s: %w", name.Stream(bare), err))
		}
		m.Streams = append(m.Streams, one)
	}
	if len(m.Streams) == 0 {
		return nil, fmt.Errorf("there is nothing to back up: NATS has no streams of %s. Is this its NATS, and DEVPILOT_INSTALLATION its name?", called(name))
	}
	var err error
	if m.Installation.ID, m.Installation.Record, err = installation.Record(ctx, session); err != nil {
		return nil, natsTrouble(err)
	}
	m.EndTime = time.Now().UTC()
	return m, m.write(dir)
}

// saveStream reads a stream and its lasting consumers, these first: what they have acknowledged is then in the rest.
func saveStream(ctx context.Context, session *kv.Session, s jetstream.Stream, dir string, bucket bool, told func(uint64)) (out Stream, err error) {
	consumers, err := lasting(ctx, s)
	if err != nil {
		return Stream{}, err
	}
	if _, err := s.Info(ctx); err != nil { // how far it is now
		return Stream{}, err
	}
	to, err := newSpool(dir, bucket)
	if err != nil {
		return Stream{}, err
	}
	defer func() { err = errors.Join(err, to.close()) }()
	r := &reading{js: session.JetStream, stream: s, to: to, told: told}
	if err := r.all(ctx); err != nil {
		return Stream{}, err
	}
	info := s.CachedInfo()
	file := info.Config.Name + ".arc.s2"
	if out, err = writeArchive(filepath.Join(dir, file), to, info.State.LastSeq, consumers); err != nil {
		return Stream{}, err
	}
	out.Name, out.Created, out.Config, out.File = info.Config.Name, info.Created, info.Config, file
	return out, nil
}

// makeEmpty makes the directory of a backup, which nobody else may read.
func makeEmpty(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return diskTrouble(err)
	}
	there, err := os.ReadDir(dir)
	if err != nil {
		return diskTrouble(err)
	}
	if len(there) > 0 {
		return fmt.Errorf("the directory %s is not empty: name one that is, or that does not exist yet. A backup overwrites nothing", dir)
	}
	return diskTrouble(os.Chmod(dir, 0o700)) //nolint:gosec // a directory that its owner enters
}

// called is an installation in a sentence.
func called(name stream.Installation) string {
	if name == "" {
		return "an installation without a name"
	}
	return "the installation " + string(name)
}
