package inbox

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
)

// compressFrom is the size from which compressing a body pays.
const compressFrom = 512

// maxBody bounds what a stored body may unpack to: twice what the ingress lets in.
const maxBody = 1 << 20

// ErrDamaged says that a stored body cannot be unpacked.
var ErrDamaged = errors.New("inbox: the stored body is damaged")

// Codec packs and unpacks bodies. It is safe for concurrent use.
type Codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// NewCodec makes a codec.
func NewCodec() (*Codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxBody))
	if err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	return &Codec{enc: enc, dec: dec}, nil
}

// Pack puts a body into a delivery. The delivery may share the body's memory.
func (c *Codec) Pack(d *storev1.InboxDelivery, body []byte) {
	d.BodyBytes = int32(min(len(body), 1<<30))
	d.Encoding, d.Body = storev1.InboxDelivery_ENCODING_UNSPECIFIED, body
	if len(body) < compressFrom {
		return
	}
	if packed := c.enc.EncodeAll(body, make([]byte, 0, len(body)/2)); len(packed) < len(body) {
		d.Encoding, d.Body = storev1.InboxDelivery_ZSTD, packed
	}
}

// Body is the body as it came.
func (c *Codec) Body(d *storev1.InboxDelivery) ([]byte, error) {
	switch d.GetEncoding() {
	case storev1.InboxDelivery_ENCODING_UNSPECIFIED:
		return d.GetBody(), nil
	case storev1.InboxDelivery_ZSTD:
		body, err := c.dec.DecodeAll(d.GetBody(), nil)
		if err != nil || len(body) != int(d.GetBodyBytes()) {
			return nil, fmt.Errorf("%w: delivery %s", ErrDamaged, d.GetId())
		}
		return body, nil
	}
	return nil, fmt.Errorf("%w: delivery %s has encoding %d", ErrDamaged, d.GetId(), d.GetEncoding())
}

// FingerprintSize makes an accidental match within what is remembered of a webhook as good as
// impossible.
const FingerprintSize = 12

// Fingerprint tells deliveries apart. Bitbucket's repeats of a request have its id and body; where
// there is no id, our own stands in, so that only our own repeats of storing it match.
func Fingerprint(d *storev1.InboxDelivery, body []byte) []byte {
	h := sha256.New()
	if id := d.GetRequestUuid(); id != "" {
		h.Write([]byte("bitbucket\x00" + id + "\x00"))
		h.Write(body)
	} else {
		h.Write([]byte("devpilot\x00" + d.GetId()))
	}
	return h.Sum(nil)[:FingerprintSize]
}
