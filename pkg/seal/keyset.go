package seal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/core/cryptofmt"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"devpilot.io/bitbucket/pkg/pasted"
)

// ErrOpen is in every error of Open: the text was changed, belongs to another record, or was
// sealed with a key that this keyset does not hold. It does not say which.
var ErrOpen = errors.New("seal: cannot open: changed, of another record, or of an unknown key")

// Keyset seals and opens. It is immutable and safe for concurrent use.
type Keyset struct {
	handle *keyset.Handle
	aead   tink.AEAD
}

// NewKeyset makes a keyset with one new key, held only in memory.
func NewKeyset() (*Keyset, error) {
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("seal: make key: %w", err)
	}
	return fromHandle(h)
}

func fromHandle(h *keyset.Handle) (*Keyset, error) {
	a, err := aead.New(h)
	if err != nil {
		return nil, fmt.Errorf("seal: keyset is not for AEAD: %w", err)
	}
	return &Keyset{handle: h, aead: a}, nil
}

// Seal encrypts plaintext with the primary key. associatedData is not stored but must be the same
// at Open: the record's key, so that a value copied to another record does not open.
func (k *Keyset) Seal(plaintext, associatedData []byte) ([]byte, error) {
	ct, err := k.aead.Encrypt(plaintext, associatedData)
	if err != nil {
		return nil, fmt.Errorf("seal: encrypt: %w", err)
	}
	return ct, nil
}

// Open decrypts with whichever key sealed. The error is or wraps [ErrOpen].
func (k *Keyset) Open(ciphertext, associatedData []byte) ([]byte, error) {
	pt, err := k.aead.Decrypt(ciphertext, associatedData)
	if err != nil {
		return nil, ErrOpen // tink's text says no more, and nothing of it may help an attacker
	}
	return pt, nil
}

// SealSecret is Seal for a Secret.
func (k *Keyset) SealSecret(s Secret, associatedData []byte) ([]byte, error) {
	return k.Seal([]byte(s.Reveal()), associatedData)
}

// OpenSecret is Open for what SealSecret made.
func (k *Keyset) OpenSecret(ciphertext, associatedData []byte) (Secret, error) {
	pt, err := k.Open(ciphertext, associatedData)
	if err != nil {
		return Secret{}, err
	}
	return NewSecret(string(pt)), nil
}

// KeyIDs lists the ids of the enabled keys, the primary first.
func (k *Keyset) KeyIDs() []uint32 {
	info := k.handle.KeysetInfo()
	ids := []uint32{info.GetPrimaryKeyId()}
	for _, i := range info.GetKeyInfo() {
		if i.GetKeyId() != info.GetPrimaryKeyId() {
			ids = append(ids, i.GetKeyId())
		}
	}
	return ids
}

// Primary is the id of the key that seals.
func (k *Keyset) Primary() uint32 { return k.handle.KeysetInfo().GetPrimaryKeyId() }

// Added is the newest key of those that were added after the primary and do not seal yet; ok is false where there is none.
func (k *Keyset) Added() (id uint32, ok bool) {
	_, after := k.around()
	if len(after) == 0 {
		return 0, false
	}
	return after[len(after)-1], true
}

// Earlier lists the keys that sealed before the primary, oldest first.
func (k *Keyset) Earlier() []uint32 {
	before, _ := k.around()
	return before
}

// around are the keys before and after the primary: AddKey puts a key behind all others.
func (k *Keyset) around() (before, after []uint32) {
	info := k.handle.KeysetInfo()
	met := false
	for _, i := range info.GetKeyInfo() {
		switch {
		case i.GetKeyId() == info.GetPrimaryKeyId():
			met = true
		case met:
			after = append(after, i.GetKeyId())
		default:
			before = append(before, i.GetKeyId())
		}
	}
	return before, after
}

// KeyOf is the id of the key that sealed a text of Seal; ok is false for what is none.
func KeyOf(ciphertext []byte) (id uint32, ok bool) {
	if len(ciphertext) <= cryptofmt.TinkPrefixSize || ciphertext[0] != cryptofmt.TinkStartByte {
		return 0, false
	}
	return binary.BigEndian.Uint32(ciphertext[1:]), true
}

// AddKey returns a keyset with one more, new key that opens but does not seal yet: every replica
// must hold it before one of them seals with it.
func (k *Keyset) AddKey() (*Keyset, uint32, error) {
	m := keyset.NewManagerFromHandle(k.handle)
	id, err := m.Add(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, 0, fmt.Errorf("seal: add key: %w", err)
	}
	n, err := fromManager(m)
	return n, id, err
}

// Promote returns a keyset that seals with the key of that id.
func (k *Keyset) Promote(id uint32) (*Keyset, error) {
	m := keyset.NewManagerFromHandle(k.handle)
	if err := m.SetPrimary(id); err != nil {
		return nil, fmt.Errorf("seal: promote key %d: %w", id, err)
	}
	return fromManager(m)
}

// DropKey returns a keyset without the key of that id, which must not be the primary. What it
// sealed can then not be opened any more.
func (k *Keyset) DropKey(id uint32) (*Keyset, error) {
	m := keyset.NewManagerFromHandle(k.handle)
	if err := m.Delete(id); err != nil {
		return nil, fmt.Errorf("seal: drop key %d: %w", id, err)
	}
	return fromManager(m)
}

func fromManager(m *keyset.Manager) (*Keyset, error) {
	h, err := m.Handle()
	if err != nil {
		return nil, fmt.Errorf("seal: keyset: %w", err)
	}
	return fromHandle(h)
}

// String never shows key material.
func (k *Keyset) String() string { return fmt.Sprintf("keyset %d", k.KeyIDs()) }

// GoString never shows key material.
func (k *Keyset) GoString() string { return k.String() }

// LoadKeysetFile reads a keyset from Tink's cleartext JSON form.
func LoadKeysetFile(path string) (*Keyset, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("seal: read keyset: %w", err)
	}
	h, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(strings.NewReader(pasted.Text(string(raw)))))
	if err != nil {
		// The parser's own text can quote what it read, which is the root secret.
		return nil, fmt.Errorf("seal: %s does not hold a Tink keyset in JSON", path)
	}
	return fromHandle(h)
}

// CreateKeysetFile makes a new keyset and writes it to path, mode 0600, synced. It fails with
// fs.ErrExist when the file is there; of two processes that try at once, one wins and no one ever
// reads half a file.
func CreateKeysetFile(path string) (*Keyset, error) {
	k, err := NewKeyset()
	if err != nil {
		return nil, err
	}
	if err := k.write(path, createExclusive); err != nil {
		return nil, err
	}
	return k, nil
}

// CreateFile writes the keyset to path as CreateKeysetFile does: fs.ErrExist when the file is there.
func (k *Keyset) CreateFile(path string) error { return k.write(path, createExclusive) }

// SaveFile replaces the keyset file at path in one step, mode 0600, synced: for rotation. It belongs to whom its directory
// belongs to, where this process may give it away.
func (k *Keyset) SaveFile(path string) error { return k.write(path, ReplaceSecretFile) }

func (k *Keyset) write(path string, how func(path string, content []byte) error) error {
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(k.handle, keyset.NewJSONWriter(&buf)); err != nil {
		return fmt.Errorf("seal: encode keyset: %w", err)
	}
	if err := how(path, buf.Bytes()); err != nil {
		return fmt.Errorf("seal: write keyset: %w", err)
	}
	return nil
}
