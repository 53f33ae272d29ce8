package backup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/deployer"
)

// Restoration is a restore that may begin: the backup is whole, and the keysets are its installation's.
type Restoration struct {
	// Again removes what a restore has made that was interrupted.
	Again bool

	dir      string
	manifest *Manifest
}

// Verify reads the whole backup in dir, and finds out whether the keysets are those of its installation. It changes nothing.
func Verify(dir string, name stream.Installation, keysets seal.Keysets, tell Progress) (*Restoration, error) {
	m, err := readManifest(dir)
	if err != nil {
		return nil, err
	}
	if m.Installation.Name != string(name) {
		return nil, fmt.Errorf("the backup is of %s, and DEVPILOT_INSTALLATION says %q: a backup goes back under the name that it was made under",
			called(stream.Installation(m.Installation.Name)), string(name))
	}
	if len(m.Installation.Record) > 0 {
		if err := installation.Opens(m.Installation.Record, keysets); err != nil {
			return nil, err
		}
	}
	for i, s := range m.Streams {
		tell(i+1, len(m.Streams), "checking "+s.Name, 0)
		if err := s.verify(dir); err != nil {
			return nil, err
		}
	}
	return &Restoration{dir: dir, manifest: m}, nil
}

// Run makes what the backup holds in a NATS that has nothing of the installation. No process of the installation may run
// meanwhile, and none starts before it is whole. After an error, or a death, Run with Again begins anew.
func (r *Restoration) Run(ctx context.Context, session *kv.Session, tell Progress) (*deployer.Settled, error) {
	if err := r.begin(ctx, session); err != nil {
		return nil, natsTrouble(err)
	}
	moved := map[time.Time]time.Time{}
	for i, s := range r.manifest.Streams {
		created, err := r.stream(ctx, session, s, func(n uint64) { tell(i+1, len(r.manifest.Streams), s.Name, n) })
		if err != nil {
			return nil, natsTrouble(fmt.Errorf("restore stream %s: %w", s.Name, err))
		}
		moved[s.Created] = created
	}
	for _, owner := range []string{"webhook", "deployer"} {
		if err := kv.MovePositions(ctx, session, kv.Config{Name: owner + "-positions", Inventory: owner}, moved); err != nil {
			return nil, natsTrouble(err)
		}
	}
	settled, err := deployer.SettleRestored(ctx, session, logs.Discard())
	if err != nil {
		return nil, natsTrouble(err)
	}
	if err := session.Flush(ctx); err != nil {
		return nil, natsTrouble(err)
	}
	return settled, natsTrouble(installation.EndRestore(ctx, session))
}

// begin makes sure that nothing of the installation is there.
func (r *Restoration) begin(ctx context.Context, session *kv.Session) error {
	since, restoring, err := installation.Restoring(ctx, session)
	switch {
	case err != nil:
		return err
	case restoring && !r.Again:
		return fmt.Errorf("a restore began on %s and is not whole: wait for it, or, if it was interrupted, add --again: what it made is removed, and the restore begins anew", since.UTC().Format(time.RFC1123))
	case restoring:
		return r.clear(ctx, session)
	}
	there, err := existing(ctx, session)
	if err != nil {
		return err
	}
	if len(there) > 0 {
		return fmt.Errorf("NATS has %d streams of %s already (%s …), and a restore overwrites nothing: name an empty NATS (DEVPILOT_NATS_URL), or an empty data directory (DEVPILOT_DATA_DIR)",
			len(there), called(stream.InstallationOf(session)), there[0])
	}
	err = installation.BeginRestore(ctx, session)
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return errors.New("another restore of this installation has begun this moment: wait for it")
	}
	return err
}

// clear removes what a restore has made that was interrupted. No process has used it: none starts before a restore is whole.
func (r *Restoration) clear(ctx context.Context, session *kv.Session) error {
	there, err := existing(ctx, session)
	if err != nil {
		return err
	}
	for _, name := range there {
		if err := session.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("remove stream %s of the restore before: %w", name, err)
		}
	}
	return nil
}

// existing are the streams of the installation that are there, by their names in NATS.
func existing(ctx context.Context, session *kv.Session) (names []string, err error) {
	for _, bare := range streams() {
		name := stream.InstallationOf(session).Stream(bare)
		_, err := session.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look for stream %s: %w", name, err)
		}
		names = append(names, name)
	}
	return names, nil
}

// stream makes one stream, with as many replicas as it would get if it were made today.
func (r *Restoration) stream(ctx context.Context, session *kv.Session, s Stream, told func(uint64)) (created time.Time, err error) {
	told(0)
	path, cfg := filepath.Join(r.dir, s.File), s.Config
	cfg.Placement = nil // of the NATS that it was read from
	replicas, fewer := stream.Wished(session)
	cfg.Replicas = replicas
	err = upload(ctx, session, cfg, path, told)
	if stream.TooFewServers(err) && fewer > 0 && fewer < replicas {
		cfg.Replicas = fewer
		err = upload(ctx, session, cfg, path, told)
	}
	if err != nil {
		return time.Time{}, err
	}
	info, err := session.Stream(ctx, s.Name)
	if err != nil {
		return time.Time{}, err
	}
	if state := info.CachedInfo().State; state.LastSeq != s.Last {
		return time.Time{}, fmt.Errorf("it ends at sequence %d, and the backup at %d", state.LastSeq, s.Last)
	}
	return info.CachedInfo().Created, nil
}
