package hosting

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
)

const (
	// maxDigest is the size up to which a file is read for its ETag: about a tenth of a second, once.
	maxDigest = 64 << 20
	// digestEntries bounds the remembered digests, about 150 bytes each.
	digestEntries = 1 << 16
	// digestSlots bounds the files that are read for their digest at the same time.
	digestSlots = 4
)

// digest is the SHA-256 of a file's bytes: of other people's files, and a key of what is shared between
// them, so it has to withstand collisions.
type digest [sha256.Size]byte

// tag is the opaque part of an ETag: 128 bits, to keep headers short.
func (d digest) tag() string { return base64.RawURLEncoding.EncodeToString(d[:16]) }

// digester knows the digests of files, by their identity.
type digester struct {
	known *lru[identity, digest]
	slots chan struct{}
}

func newDigester() *digester {
	return &digester{known: newLRU[identity, digest](digestEntries), slots: make(chan struct{}, digestSlots)}
}

// of returns the file's digest. A file over maxDigest is not read: its digest is made from version, path
// and identity, and full is false. The reader's position is its beginning afterwards.
func (d *digester) of(ctx context.Context, c *content, version, path string, settled bool) (sum digest, full bool, err error) {
	if c.id.size > maxDigest {
		return sha256.Sum256(fmt.Appendf(nil, "%q %q %+v", version, path, c.id)), false, nil
	}
	if sum, ok := d.known.get(c.id); ok {
		return sum, true, nil
	}
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		return digest{}, false, ctx.Err()
	}
	h := sha256.New()
	_, err = io.Copy(h, c)
	c.off = 0
	if err != nil {
		return digest{}, false, fmt.Errorf("live: digest %q: %w", path, err)
	}
	h.Sum(sum[:0])
	if settled {
		d.known.add(c.id, sum, 1)
	}
	return sum, true, nil
}
