package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats-server/v2/server/archive"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// message is a message of a stream.
type message struct {
	subject  string
	sequence uint64
	time     time.Time
	header   nats.Header
	data     []byte
}

// head is how NATS stores headers, nil without any.
func (m *message) head() []byte {
	if len(m.header) == 0 {
		return nil
	}
	var out bytes.Buffer
	out.WriteString("NATS/1.0\r\n")
	for _, key := range slices.Sorted(maps.Keys(m.header)) {
		for _, value := range m.header[key] {
			out.WriteString(key + ": " + value + "\r\n")
		}
	}
	out.WriteString("\r\n")
	return out.Bytes()
}

// spool holds the messages of a stream until it is known which of them last. It is a file beside the archive, gone when it is closed.
type spool struct {
	file *os.File
	out  *s2.Writer
	w    *archive.Writer
	last map[string]uint64 // the last message of each subject; nil where all of them count
	used uint64            // the last sequence that was added
}

func newSpool(dir string, lastOnly bool) (*spool, error) {
	f, err := os.CreateTemp(dir, ".spool-*")
	if err != nil {
		return nil, err
	}
	out := s2.NewWriter(f)
	s := &spool{file: f, out: out, w: archive.NewWriter(out)}
	if lastOnly {
		s.last = map[string]uint64{}
	}
	return s, os.Remove(f.Name()) // it lives as long as it is open
}

func (s *spool) close() error { return errors.Join(s.out.Close(), s.file.Close()) }

// add takes the next message; sequences rise.
func (s *spool) add(m *message) error {
	if m.sequence <= s.used {
		return nil // told twice, after a break
	}
	s.used = m.sequence
	if s.last != nil {
		s.last[m.subject] = m.sequence
	}
	head := m.head()
	if err := s.w.WriteHeader(&archive.Header{Name: m.subject, Timestamp: m.time.UnixNano(), Sequence: m.sequence, HeaderSize: int64(len(head)), PayloadSize: int64(len(m.data))}); err != nil {
		return err
	}
	_, err := s.w.Write(append(head, m.data...))
	return err
}

// each gives all messages that last, in order. The body is headers and data, and is read before each goes on.
func (s *spool) each(fn func(h *archive.Header, body io.Reader) error) error {
	if s.used == 0 {
		return nil
	}
	if err := s.out.Flush(); err != nil {
		return err
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r := archive.NewReader(s2.NewReader(s.file))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if s.last != nil && s.last[h.Name] != h.Sequence {
			continue
		}
		if err := fn(h, r); err != nil {
			return err
		}
	}
}

// content is what the archive of a stream says of it before the messages.
type content struct {
	Messages  uint64 `json:"messages"`
	Bytes     uint64 `json:"bytes"`
	First     uint64 `json:"first_seq"`
	Last      uint64 `json:"last_seq"`
	Consumers int    `json:"consumer_count"`
}

// writeArchive writes the archive of a stream, in the form in which NATS restores it. last is the stream's last sequence, also where its
// message is gone.
func writeArchive(path string, s *spool, last uint64, consumers []*jetstream.ConsumerInfo) (out Stream, err error) {
	c := content{Last: max(last, s.used), Consumers: len(consumers)}
	err = s.each(func(h *archive.Header, _ io.Reader) error {
		if c.Messages == 0 {
			c.First = h.Sequence
		}
		c.Messages, c.Bytes = c.Messages+1, c.Bytes+uint64(len(h.Name))+uint64(h.HeaderSize+h.PayloadSize) // sizes are never negative
		return nil
	})
	if c.Messages == 0 && c.Last > 0 {
		c.First = c.Last + 1
	}
	if err != nil {
		return Stream{}, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return Stream{}, err
	}
	sum := &summed{w: f, sum: sha256.New()}
	if err := errors.Join(writeEntries(sum, s, c, consumers), f.Sync(), f.Close()); err != nil {
		return Stream{}, err
	}
	return Stream{Messages: c.Messages, Bytes: c.Bytes, Last: c.Last, Size: sum.size, SHA256: hex.EncodeToString(sum.sum.Sum(nil))}, nil
}

func writeEntries(to io.Writer, s *spool, c content, consumers []*jetstream.ConsumerInfo) error {
	compressed := s2.NewWriter(to)
	w := archive.NewWriter(compressed)
	entry := func(name string, v any) error {
		raw, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&archive.Header{Name: name, Timestamp: time.Now().UnixNano(), PayloadSize: int64(len(raw))}); err != nil {
			return err
		}
		_, err = w.Write(raw)
		return err
	}
	err := entry("state.json", c)
	for _, one := range consumers {
		if err == nil {
			err = entry(path.Join("consumers", one.Name), stateOf(one, c.Last))
		}
	}
	if err == nil {
		err = s.each(func(h *archive.Header, body io.Reader) error {
			if err := w.WriteHeader(h); err != nil {
				return err
			}
			_, err := io.Copy(w, body)
			return err
		})
	}
	if err == nil {
		err = w.WriteHeader(&archive.Header{}) // the end, without which NATS takes it for cut short
	}
	return errors.Join(err, w.Close(), compressed.Close())
}

// consumerState is a consumer in an archive.
type consumerState struct {
	Config jetstream.ConsumerConfig `json:"config"`
	State  server.ConsumerState     `json:"state"`
}

// stateOf takes a consumer back to where everything was acknowledged: what it may hold beyond comes again.
func stateOf(c *jetstream.ConsumerInfo, last uint64) consumerState {
	floor := server.SequencePair{Consumer: c.AckFloor.Consumer, Stream: min(c.AckFloor.Stream, last)}
	return consumerState{Config: c.Config, State: server.ConsumerState{Delivered: floor, AckFloor: floor}}
}

// summed counts and sums what is written.
type summed struct {
	w    io.Writer
	sum  hash.Hash
	size int64
}

func (s *summed) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.sum.Write(p[:n])
	s.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("write the archive: %w", err)
	}
	return n, nil
}
