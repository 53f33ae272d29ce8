package hosting

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	minCompress = 1 << 10 // smaller answers fit into one packet anyway
	maxCompress = 4 << 20 // compressed here, in memory; larger files are for .br, .zst and .gz beside them
	// entryCost is what an entry costs beside its bytes.
	entryCost = 256
	// sidecarEntries bounds what is remembered about files compressed beforehand.
	sidecarEntries = 1 << 14
	// maxWindow is the largest window that browsers unpack, RFC 9659.
	maxWindow = 8 << 20
)

// compressor makes and keeps compressed forms of files, and checks those that lie beside them. At most
// cap(slots) such works run at a time, each holding at most twice maxCompress.
//
// klauspost's gzhttp, the usual middleware, was tried in its place: it compresses anew for each visitor, answers a
// revalidation of a compressed page with 200 because it changes the ETag of the answer alone, says other
// headers to HEAD than to GET, and knows no file compressed beforehand. The encoders are klauspost's.
type compressor struct {
	forms    *lru[formKey, []byte] // empty: not worth it
	sidecars *lru[sidecarKey, bool]
	slots    chan struct{}
	zstd     *zstd.Encoder
	gzip     sync.Pool
	now      func() time.Time

	mu   sync.Mutex
	busy map[any]struct{} // keys that are worked on
}

type formKey struct {
	of     digest
	coding coding
}

type sidecarKey struct {
	id identity
	of digest
}

func newCompressor(cacheBytes int64, slots int, now func() time.Time) (*compressor, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(slots), zstd.WithEncoderLevel(zstd.SpeedBetterCompression),
		zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("live: zstd: %w", err)
	}
	return &compressor{
		forms: newLRU[formKey, []byte](cacheBytes), sidecars: newLRU[sidecarKey, bool](sidecarEntries),
		slots: make(chan struct{}, slots), zstd: enc, busy: make(map[any]struct{}),
		gzip: sync.Pool{New: func() any { return gzip.NewWriter(nil) }},
		now:  now,
	}, nil
}

// begin reserves a slot for a key. It never waits: without a slot, or while another request works on the
// same, the plain file is sent.
func (c *compressor) begin(key any) (end func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, taken := c.busy[key]; taken {
		return nil, false
	}
	select {
	case c.slots <- struct{}{}:
	default:
		return nil, false
	}
	c.busy[key] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.busy, key)
		<-c.slots
	}, true
}

// form returns the compressed form of a file with the given digest; ok is false when the plain file is
// to be sent. An error means that the file cannot be read.
func (c *compressor) form(coding coding, file *content, of digest) (form []byte, ok bool, err error) {
	if file.id.size < minCompress || file.id.size > maxCompress {
		return nil, false, nil
	}
	key := formKey{of, coding}
	if form, ok := c.forms.get(key); ok {
		return form, len(form) > 0, nil
	}
	end, ok := c.begin(key)
	if !ok {
		return nil, false, nil
	}
	defer end()
	plain, err := file.whole()
	if err != nil {
		return nil, false, fmt.Errorf("live: read a file to compress: %w", err)
	}
	if sha256.Sum256(plain) != of {
		return nil, false, errChanged
	}
	form, err = c.compress(coding, plain)
	if err != nil {
		return nil, false, err
	}
	if len(form) > len(plain)/10*9 {
		form = nil
	}
	form = bytes.Clone(form) // without the spare room it grew into
	c.forms.add(key, form, int64(len(form))+entryCost)
	return form, len(form) > 0, nil
}

func (c *compressor) compress(coding coding, plain []byte) ([]byte, error) {
	switch coding {
	case zstdCoding:
		return c.zstd.EncodeAll(plain, make([]byte, 0, len(plain)/3)), nil
	case gzipCoding:
		w := c.gzip.Get().(*gzip.Writer)
		defer c.gzip.Put(w)
		buf := bytes.NewBuffer(make([]byte, 0, len(plain)/3))
		w.Reset(buf)
		_, err := w.Write(plain)
		err = errors.Join(err, w.Close())
		w.Reset(io.Discard) // the pool keeps the writer, not the bytes
		if err != nil {
			return nil, fmt.Errorf("live: gzip: %w", err)
		}
		return buf.Bytes(), nil
	default:
		return nil, fmt.Errorf("live: no compressor for %q", coding)
	}
}

// fresh tells whether a file compressed beforehand unpacks to exactly the bytes with that digest. It is
// found out once per file, once the file has settled.
func (c *compressor) fresh(coding coding, file *content, of digest, size int64) bool {
	if file.id.size == 0 || file.id.size >= size {
		return false
	}
	key := sidecarKey{file.id, of}
	if fresh, ok := c.sidecars.get(key); ok {
		return fresh
	}
	end, ok := c.begin(key)
	if !ok {
		return false
	}
	defer end()
	sum, err := unpack(coding, file, size)
	file.off = 0
	if file.broken.Load() {
		return false // and ask again next time
	}
	fresh := err == nil && sum == of
	if file.settled(c.now()) {
		c.sidecars.add(key, fresh, 1)
	}
	return fresh
}

// unpack returns the digest of what a file unpacks to, reading at most one byte more than size.
func unpack(coding coding, file io.Reader, size int64) (sum digest, err error) {
	var plain io.Reader
	switch coding {
	case brotliCoding:
		plain = brotli.NewReader(file)
	case gzipCoding:
		plain, err = gzip.NewReader(file)
	case zstdCoding:
		var dec *zstd.Decoder
		dec, err = zstd.NewReader(file, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err == nil {
			defer dec.Close()
		}
		plain = dec
	default:
		err = fmt.Errorf("live: no decompressor for %q", coding)
	}
	if err != nil {
		return digest{}, err
	}
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(plain, size+1))
	if err != nil {
		return digest{}, err
	}
	if n != size {
		return digest{}, errors.New("live: another size")
	}
	h.Sum(sum[:0])
	return sum, nil
}
