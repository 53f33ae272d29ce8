package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// format is the version of the manifest and of what it describes. A program reads those up to its own.
const format = 1

// manifestFile is written last: a directory without it is no backup.
const manifestFile = "manifest.json"

// Manifest says what a backup holds. Its JSON is read by later versions: fields are added and never renamed.
type Manifest struct {
	Format       int          `json:"format"`
	Time         time.Time    `json:"time"`    // when it began
	EndTime      time.Time    `json:"endTime"` // when it was whole
	Version      string       `json:"version"` // of the program that made it
	Installation Installation `json:"installation"`
	Streams      []Stream     `json:"streams"` // in the order in which they were read
}

// Installation says whose backup it is.
type Installation struct {
	ID   string `json:"id"`   // random; empty where no process had been started yet
	Name string `json:"name"` // DEVPILOT_INSTALLATION
	// Record has the canaries by which keysets are known to be the installation's; sealed.
	Record []byte `json:"record,omitempty"`
}

// Stream is one stream or bucket, as it is called in NATS.
type Stream struct {
	Name     string                 `json:"name"`
	Created  time.Time              `json:"created"` // in the NATS that it was read from
	Messages uint64                 `json:"messages"`
	Bytes    uint64                 `json:"bytes"` // of all messages, with subjects and headers
	Last     uint64                 `json:"lastSequence"`
	File     string                 `json:"file"`
	Size     int64                  `json:"size"` // of the file, in bytes
	SHA256   string                 `json:"sha256"`
	Config   jetstream.StreamConfig `json:"config"`
}

// messages and size are those of all streams together.
func (m *Manifest) messages() (n uint64) {
	for _, s := range m.Streams {
		n += s.Messages
	}
	return n
}

func (m *Manifest) size() (n int64) {
	for _, s := range m.Streams {
		n += s.Size
	}
	return n
}

// write puts the manifest in its place, whole or not at all, after everything else is on disk.
func (m *Manifest) write(dir string) error {
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write down what the backup holds: %w", err)
	}
	next := filepath.Join(dir, manifestFile+".part")
	f, err := os.OpenFile(next, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return diskTrouble(err)
	}
	_, err = f.Write(append(raw, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(next, filepath.Join(dir, manifestFile))
	}
	return diskTrouble(errors.Join(err, syncDir(dir)))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readManifest reads what a backup says it holds, and refuses what is none.
func readManifest(dir string) (*Manifest, error) {
	raw, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is no whole backup: it has no %s, which is written last. Make a backup again, or take another one", dir, manifestFile)
	}
	if err != nil {
		return nil, diskTrouble(err)
	}
	m := &Manifest{}
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("%s of %s is damaged: %w", manifestFile, dir, err)
	}
	switch {
	case m.Format > format:
		return nil, fmt.Errorf("the backup is of a newer Devpilot (version %s, format %d): restore it with that version or a later one", m.Version, m.Format)
	case m.Format < 1:
		return nil, fmt.Errorf("%s of %s is damaged: it says no format", manifestFile, dir)
	}
	for _, s := range m.Streams {
		if s.File != filepath.Base(s.File) || s.Name == "" || s.Config.Name != s.Name {
			return nil, fmt.Errorf("%s of %s is damaged: stream %q", manifestFile, dir, s.Name)
		}
	}
	return m, nil
}

// verify reads the whole file of a stream and compares it with what the manifest says.
func (s *Stream) verify(dir string) error {
	path := filepath.Join(dir, s.File)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the backup is not whole: its file %s is missing. Nothing was changed; take another backup", s.File)
	}
	if err != nil {
		return diskTrouble(err)
	}
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	switch {
	case size < s.Size:
		return fmt.Errorf("the backup is damaged: its file %s was cut short, %d of %d bytes are left. Nothing was changed; take another backup", s.File, size, s.Size)
	case size != s.Size || hex.EncodeToString(sum.Sum(nil)) != s.SHA256:
		return fmt.Errorf("the backup is damaged: its file %s is not as it was written. Nothing was changed; take another backup", s.File)
	}
	return nil
}
