package stream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/logs"
)

// DefaultBytes is what all streams of an installation take together where nothing else is said.
const DefaultBytes = 4096 << 20

// LeastBytes is the least that all streams of an installation can do with.
const LeastBytes = 256 << 20

// RecordsBytes is the room that a store needs beside its streams: that of records, which have no bound of
// their own and take a few KiB for each deployment and repository.
const RecordsBytes = 256 << 20

// Share is what one stream gets of what all take together.
type Share struct {
	Stream string // its bare name
	Of     int64  // parts of all
	Why    string
}

// ShareParts is the sum of all shares.
const ShareParts = 32

// Shares divide what the streams of an installation take together. Each process makes the streams that it
// needs by itself, so that all of them have to come to the same sizes: they stand here and nowhere else.
func Shares() []Share {
	return []Share{
		{LogsStream, 16, "Megabytes for a deployment whose hooks say much, kept for 30 days; a full one drops the oldest logs."},
		{InboxStream, 8, "Whole deliveries, up to 256 KiB each, kept for 7 days; a full one refuses new ones."},
		{PushesStream, 4, "About 1 KiB for a push, kept for 7 days, also for readers that were away as long."},
		{WorkStream, 1, "Small wake-ups that are gone once they were handled; a full one refuses new ones."},
		{OutcomesStream, 1, "What came of pushes, gone once webhook has it: a webhook service that is away for days."},
		{EventsStream, 1, "A few hundred bytes for a change, kept for 7 days; an event only means look again."},
		{DeadLettersStream, 1, "What could not be handled, which is rare, kept for 90 days."},
	}
}

// shareOf is what a stream gets, in bytes, of what all take together; 0 for one that has no share.
func shareOf(bare string, all int64) int64 {
	for _, s := range Shares() {
		if s.Stream == bare {
			return all / ShareParts * s.Of
		}
	}
	return 0
}

// Fitting is what all streams take together, in whole MiB, in a store of so many bytes that is theirs alone
// and for which nobody said a size: DefaultBytes, or what there is room for beside records.
func Fitting(store int64) int64 {
	return max(LeastBytes, min(DefaultBytes, (store-RecordsBytes)>>20<<20))
}

// larger is the larger of two bounds in bytes, of which one below 1 is none.
func larger(a, b int64) int64 {
	if a < 1 || b < 1 {
		return -1
	}
	return max(a, b)
}

// bytes is what all streams may take together.
func (s Settings) bytes() int64 {
	if s.Bytes == 0 {
		return DefaultBytes
	}
	return s.Bytes
}

// Fit is what the streams of an installation ask of a store, and what it can give them, in bytes.
type Fit struct {
	Stored  int64    // what the streams that are there may take
	Missing int64    // what the settings ask beyond that
	Room    int64    // how much of Missing and RecordsBytes the store has room for
	Larger  []string // the streams that are larger than the settings ask
}

// Needs is what the store has to hold: each stream with what the settings ask, or more where it has more, and records.
func (f Fit) Needs() int64 { return f.Stored + f.Missing + RecordsBytes }

// Has is how much of that it can hold.
func (f Fit) Has() int64 { return f.Stored + f.Room }

// Measure finds out what the streams of js's installation ask, and whether the store has room for that. NATS
// tells nobody how much room is left: streams are made to see which it takes, and deleted at once, so that
// nothing stays of them. Processes take turns; who makes a stream meanwhile may be refused, and waits for a
// turn of its own (see Ensure).
func Measure(ctx context.Context, js jetstream.JetStream) (Fit, error) {
	ctx, cancel := withTimeout(ctx, turnTimeout)
	defer cancel()
	release, err := takeTurn(ctx, js)
	if err != nil {
		return Fit{}, err
	}
	defer release()
	return measure(ctx, js)
}

func measure(ctx context.Context, js jetstream.JetStream) (Fit, error) {
	var f Fit
	settings := SettingsOf(js)
	for _, s := range Shares() {
		wish := shareOf(s.Stream, settings.bytes())
		have, err := bound(ctx, js, settings.Installation.Stream(s.Stream))
		if err != nil {
			return f, err
		}
		if have < 0 {
			have = wish // it has no bound: it may take what it is to have at least
		}
		f.Stored += have
		f.Missing += max(wish-have, 0)
		if have > wish {
			f.Larger = append(f.Larger, s.Stream)
		}
	}
	var err error
	f.Room, err = room(ctx, js, f.Missing+RecordsBytes)
	return f, err
}

// bound is how large a stream, by its name in NATS, may become: 0 where there is none, -1 where it has no bound.
func bound(ctx context.Context, js jetstream.JetStream, name string) (int64, error) {
	s, err := js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at the stream %s: %w", name, err)
	}
	return s.CachedInfo().Config.MaxBytes, nil // -1 without one
}

// lowerUnused makes streams that nothing was ever written to as small as the settings say, and tells whether
// there were any: a start with a larger setting that failed left them.
func lowerUnused(ctx context.Context, js jetstream.JetStream, logger *slog.Logger) (lowered bool) {
	settings := SettingsOf(js)
	for _, share := range Shares() {
		s, err := js.Stream(ctx, settings.Installation.Stream(share.Stream))
		if err != nil || s.CachedInfo().State.LastSeq > 0 {
			continue
		}
		cfg, size := s.CachedInfo().Config, shareOf(share.Stream, settings.bytes())
		if cfg.MaxBytes <= size {
			continue
		}
		logger.WarnContext(ctx, "an empty stream is made smaller, for the store has no room for others beside it", slog.String(logs.KeyStream, cfg.Name), slog.Int64(logs.KeyBytes, cfg.MaxBytes), slog.Int64(logs.KeyWished, size))
		cfg.MaxBytes = size
		_, err = js.UpdateStream(ctx, cfg)
		lowered = lowered || err == nil
	}
	return lowered
}

const (
	roomStream = "ROOM_" // streams that are made to see whether there is room
	roomPrefix = "devpilot.room.v1"
	turnStream = "ROOM_TURN_" // each is a process that measures, or waits for its turn
	turnPrefix = "devpilot.room-turn.v1"
	// roomStep is how exactly room is measured.
	roomStep = 1 << 20
	// turnTimeout bounds waiting for a turn and measuring.
	turnTimeout = 2 * apiTimeout
	// turnLeft is after how long a turn was left behind by a process that died: none takes as long.
	turnLeft = turnTimeout + 2*time.Second
)

// takeTurn waits until this process is the one that measures: two at once would each find less than there
// is. Every process makes a stream of its own, and the oldest has its turn. (A single stream that all of them
// try to make would not do: of two who make one that was just deleted, nats-server lets both.)
func takeTurn(ctx context.Context, js jetstream.JetStream) (release func(), err error) {
	names, id := InstallationOf(js), rand.Text()
	turn := jetstream.StreamConfig{
		Name: names.Stream(turnStream + id), Subjects: []string{names.Subject(turnPrefix + "." + id)}, Description: "room is being measured; deleted at once",
		Storage: jetstream.MemoryStorage, Replicas: 1, // there also where no room is left on the disk
	}
	release = func() { forget(ctx, js, turn.Name) }
	if _, err := js.CreateStream(ctx, turn); err != nil {
		return nil, fmt.Errorf("take a turn to measure room: %w", err)
	}
	pauses := Pauses(10*time.Millisecond, 100*time.Millisecond)
	for {
		ours, err := oldestTurn(ctx, js)
		if err == nil && ours == turn.Name {
			err = forgetRooms(ctx, js)
		}
		if err != nil {
			release()
			return nil, err
		}
		if ours == turn.Name {
			return release, nil
		}
		select {
		case <-ctx.Done():
			release()
			return nil, fmt.Errorf("wait for others to have measured room: %w", ctx.Err())
		case <-time.After(pauses.NextBackOff()):
		}
	}
}

// oldestTurn is the name of whose turn it is.
func oldestTurn(ctx context.Context, js jetstream.JetStream) (name string, err error) {
	var since time.Time
	list := js.ListStreams(ctx, jetstream.WithStreamListSubject(InstallationOf(js).Subject(turnPrefix+".*")))
	for info := range list.Info() {
		switch {
		case time.Since(info.Created) > turnLeft:
			forget(ctx, js, info.Config.Name)
		case name == "" || info.Created.Before(since) || info.Created.Equal(since) && info.Config.Name < name:
			name, since = info.Config.Name, info.Created
		}
	}
	if err := list.Err(); err != nil {
		return "", fmt.Errorf("see who measures room: %w", err)
	}
	return name, nil
}

// forgetRooms deletes what a process left behind that died while it measured: it is our turn, so nobody else does.
func forgetRooms(ctx context.Context, js jetstream.JetStream) error {
	list := js.ListStreams(ctx, jetstream.WithStreamListSubject(InstallationOf(js).Subject(roomPrefix+".*")))
	for info := range list.Info() {
		forget(ctx, js, info.Config.Name)
	}
	if err := list.Err(); err != nil {
		return fmt.Errorf("see what measuring left behind: %w", err)
	}
	return nil
}

// forget deletes a stream that was not to stay, also when there is no time left. One that is left all the same goes with the next look.
func forget(ctx context.Context, js jetstream.JetStream, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), apiTimeout)
	defer cancel()
	_ = js.DeleteStream(ctx, name)
}

// room is how many of so many bytes a new stream may have.
func room(ctx context.Context, js jetstream.JetStream, most int64) (int64, error) {
	if most < roomStep {
		return most, nil
	}
	// What is known to fit, and what is known not to: the whole is tried first.
	fits, not := int64(0), most+roomStep
	for try := most; not-fits > roomStep && fits < most; try = (fits + (not-fits)/2) / roomStep * roomStep {
		ok, err := fitsOne(ctx, js, try)
		if err != nil {
			return 0, err
		}
		if ok {
			fits = try
		} else {
			not = try
		}
	}
	return fits, nil
}

// fitsOne tells whether the store takes a stream of this size.
func fitsOne(ctx context.Context, js jetstream.JetStream, size int64) (bool, error) {
	names, id := InstallationOf(js), rand.Text()
	cfg := jetstream.StreamConfig{
		Name: names.Stream(roomStream + id), Subjects: []string{names.Subject(roomPrefix + "." + id)}, Description: "whether there is room; deleted at once",
		Storage: jetstream.FileStorage, MaxBytes: size, Replicas: wished(js),
	}
	_, err := js.CreateStream(ctx, cfg)
	if tooFewServers(err) {
		cfg.Replicas = 1
		_, err = js.CreateStream(ctx, cfg)
	}
	if tooLarge(err) {
		return false, nil
	}
	forget(ctx, js, cfg.Name) // also where the answer was lost
	if err != nil {
		return false, fmt.Errorf("see whether there is room: %w", err)
	}
	return true, nil
}
