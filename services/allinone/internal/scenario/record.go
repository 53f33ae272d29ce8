package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Names are the scenarios there are.
func Names() []string { return []string{"team"} }

const (
	recordFile = "scenario.json"
	peopleFile = "scenario-people.yaml"
)

// seeded are what a play leaves in a data directory, below it. A play that was cut short is begun anew without them.
var seeded = []string{"nats", "emulator", "apps", "cache"}

// Beat is a moment of the story: what is stored between it and the next happened, in the story, at its time.
type Beat struct {
	Real  time.Time `json:"real"`
	Story time.Time `json:"story"`
}

// contents are what the file of a record holds.
type contents struct {
	Scenario string `json:"scenario"`
	// Time is when the story ends; zero where it ends when it was played.
	Time time.Time `json:"time,omitzero"`
	// Done tells that it was told to its end.
	Done  bool   `json:"done"`
	Beats []Beat `json:"beats,omitempty"`
}

// Record is what a data directory knows of its scenario. It is safe for concurrent use.
type Record struct {
	dir  string
	file *os.File // holds the lock

	mu sync.RWMutex
	contents
}

// ErrOther says that the data directory holds something else than the scenario.
var ErrOther = errors.New("the data directory holds something else")

// ErrInUse says that another process plays in the data directory.
var ErrInUse = errors.New("another Devpilot process uses the data directory")

// Holds tells whether the data directory was made by a scenario.
func Holds(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, recordFile))
	return err == nil
}

// Open claims a data directory for a scenario. What an earlier play left unfinished goes. end is when the story ends, zero for
// now; it counts for a new story only. Close the record when the product has stopped.
func Open(dir, name string, end time.Time) (*Record, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("there is no scenario %q; there are: %s", name, strings.Join(Names(), ", "))
	}
	path := filepath.Join(dir, recordFile)
	if !Holds(dir) {
		for _, other := range []string{"nats", "emulator", "apps"} {
			if _, err := os.Stat(filepath.Join(dir, other)); !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("%w: it was not made by --scenario", ErrOther)
			}
		}
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the record of the scenario: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, ErrInUse
	}
	r := &Record{dir: dir, file: file}
	if err := r.begin(name, end); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// begin reads what is there, or starts anew.
func (r *Record) begin(name string, end time.Time) error {
	raw, err := os.ReadFile(r.file.Name())
	if err != nil {
		return fmt.Errorf("read the record of the scenario: %w", err)
	}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &r.contents); err != nil {
			return fmt.Errorf("%s is damaged: %w", r.file.Name(), err)
		}
		if r.Scenario != name {
			return fmt.Errorf("%w: the scenario %q", ErrOther, r.Scenario)
		}
	}
	if r.Done {
		if !end.IsZero() && !end.Equal(r.Time) {
			return fmt.Errorf("%w: a story that does not end at %s", ErrOther, end.Format(time.RFC3339))
		}
		return nil
	}
	// Written first: whatever is there from now on is ours, and may go if this play is cut short.
	r.contents = contents{Scenario: name, Time: end}
	if err := r.write(); err != nil {
		return err
	}
	for _, sub := range seeded {
		if err := os.RemoveAll(filepath.Join(r.dir, sub)); err != nil {
			return fmt.Errorf("clear away what an unfinished play left: %w", err)
		}
	}
	return nil
}

// write replaces what the file holds. The file itself stays, for its lock; what is torn by a power cut is a damaged
// record of a data directory that can be made again.
func (r *Record) write() error {
	raw, err := json.Marshal(r.contents)
	if err == nil {
		_, err = r.file.WriteAt(append(raw, '\n'), 0)
	}
	if err == nil {
		err = r.file.Truncate(int64(len(raw)) + 1)
	}
	if err == nil {
		err = r.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("write the record of the scenario: %w", err)
	}
	return nil
}

// Close gives the data directory back.
func (r *Record) Close() { _ = r.file.Close() }

// Finished tells whether the story was told to its end.
func (r *Record) Finished() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.Done
}

// End is when the story ends; zero where its times are those at which it was played.
func (r *Record) End() time.Time {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.Time
}

// beat notes that what is stored from now on happened so long before the end.
func (r *Record) beat(before time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.Time.IsZero() {
		r.Beats = append(r.Beats, Beat{Real: time.Now(), Story: r.Time.Add(-before)})
	}
}

// finish notes that the story was told.
func (r *Record) finish() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Done = true
	return r.write()
}
