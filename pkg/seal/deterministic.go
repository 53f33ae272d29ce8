package seal

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/daead/subtle"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
)

// Deterministic seals so that equal input gives equal output: for things that are shown, compared
// and cached (page tokens in a list that has an ETag), never for secrets of which an observer must
// not learn that two are equal. It is AES-SIV (RFC 5297) under keys derived by HKDF from the keys
// of the keyset, one per purpose, and rotates with them. Safe for concurrent use.
type Deterministic struct {
	primary uint32
	siv     map[uint32]*subtle.AESSIV
}

// Deterministic derives the keys of a purpose. Different purposes never open each other's texts.
func (k *Keyset) Deterministic(purpose string) (*Deterministic, error) {
	material := insecurecleartextkeyset.KeysetMaterial(k.handle)
	d := &Deterministic{primary: material.GetPrimaryKeyId(), siv: map[uint32]*subtle.AESSIV{}}
	for _, key := range material.GetKey() {
		if key.GetStatus() != tinkpb.KeyStatusType_ENABLED {
			continue
		}
		derived, err := hkdf.Key(sha256.New, key.GetKeyData().GetValue(), nil, "devpilot deterministic "+purpose, subtle.AESSIVKeySize)
		if err != nil {
			return nil, fmt.Errorf("seal: derive key for %s: %w", purpose, err)
		}
		if d.siv[key.GetKeyId()], err = subtle.NewAESSIV(derived); err != nil {
			return nil, fmt.Errorf("seal: derive key for %s: %w", purpose, err)
		}
	}
	return d, nil
}

// Seal encrypts with the key derived from the primary. The first four bytes name the key.
func (d *Deterministic) Seal(plaintext, associatedData []byte) ([]byte, error) {
	ct, err := d.siv[d.primary].EncryptDeterministically(plaintext, associatedData)
	if err != nil {
		return nil, fmt.Errorf("seal: encrypt: %w", err)
	}
	return append(binary.BigEndian.AppendUint32(nil, d.primary), ct...), nil
}

// Open decrypts; the error is [ErrOpen].
func (d *Deterministic) Open(ciphertext, associatedData []byte) ([]byte, error) {
	if len(ciphertext) < 4 {
		return nil, ErrOpen
	}
	siv, ok := d.siv[binary.BigEndian.Uint32(ciphertext)]
	if !ok {
		return nil, ErrOpen
	}
	pt, err := siv.DecryptDeterministically(ciphertext[4:], associatedData)
	if err != nil {
		return nil, ErrOpen
	}
	return pt, nil
}
