package emulator

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Buckets of the state file; values are JSON.
const (
	bucketMeta       = "meta"
	bucketAccounts   = "accounts"
	bucketWorkspaces = "workspaces"
	bucketRepos      = "repositories"
	bucketHooks      = "hooks"
	bucketGrants     = "grants"
	bucketAccess     = "access_tokens"
	bucketRefresh    = "refresh_tokens"
	bucketStatuses   = "statuses"
)

var allBuckets = []string{
	bucketMeta, bucketAccounts, bucketWorkspaces, bucketRepos, bucketHooks, bucketGrants, bucketAccess, bucketRefresh, bucketStatuses,
}

// store is the state on disk. It keeps no state of its own; callers serialise writes that belong together.
type store struct {
	db   *bolt.DB
	aead cipher.AEAD
}

// change is one record to write; a nil value deletes it.
type change struct {
	bucket, key string
	value       any
}

// openStore opens or makes the state file and the key that encrypts webhook secrets in it. It fails after 2 s if
// another process has the file open.
func openStore(dir string) (*store, error) {
	aead, err := loadKey(filepath.Join(dir, "secret.key"))
	if err != nil {
		return nil, err
	}
	// Without a sync per transaction: the page cache survives kill -9, and losing the machine loses only an emulator.
	db, err := bolt.Open(filepath.Join(dir, "state.db"), 0o600, &bolt.Options{Timeout: 2 * time.Second, NoSync: true})
	if err != nil {
		return nil, fmt.Errorf("emulator: open state in %s: %w", dir, err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range allBuckets {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("emulator: prepare state: %w", err), db.Close())
	}
	return &store{db: db, aead: aead}, nil
}

// close writes everything through to the disk.
func (s *store) close() error {
	return errors.Join(s.db.Sync(), s.db.Close())
}

// write applies all changes or none.
func (s *store) write(changes ...change) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		for _, c := range changes {
			bucket := tx.Bucket([]byte(c.bucket))
			if c.value == nil {
				if err := bucket.Delete([]byte(c.key)); err != nil {
					return fmt.Errorf("delete %s %s: %w", c.bucket, c.key, err)
				}
				continue
			}
			raw, err := json.Marshal(c.value)
			if err != nil {
				return fmt.Errorf("encode %s: %w", c.bucket, err)
			}
			if err := bucket.Put([]byte(c.key), raw); err != nil {
				return fmt.Errorf("write %s: %w", c.bucket, err)
			}
		}
		return nil
	})
}

// loadAll decodes a whole bucket.
func loadAll[T any](s *store, bucket string) (map[string]*T, error) {
	values := map[string]*T{}
	err := s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucket)).ForEach(func(key, raw []byte) error {
			value := new(T)
			if err := json.Unmarshal(raw, value); err != nil {
				return fmt.Errorf("emulator: decode %s %s: %w", bucket, key, err)
			}
			values[string(key)] = value
			return nil
		})
	})
	return values, err
}

func (s *store) seal(secret string) ([]byte, error) {
	if secret == "" {
		return nil, nil
	}
	nonce := make([]byte, s.aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("emulator: nonce: %w", err)
	}
	return s.aead.Seal(nonce, nonce, []byte(secret), nil), nil
}

func (s *store) open(sealed []byte) (string, error) {
	if len(sealed) == 0 {
		return "", nil
	}
	if len(sealed) < s.aead.NonceSize() {
		return "", errors.New("emulator: sealed secret is too short")
	}
	plain, err := s.aead.Open(nil, sealed[:s.aead.NonceSize()], sealed[s.aead.NonceSize():], nil)
	if err != nil {
		return "", fmt.Errorf("emulator: open sealed secret: %w", err)
	}
	return string(plain), nil
}

// loadKey reads the 32-byte key at path, or makes it. It is written beside and renamed, so it is never seen half.
func loadKey(path string) (cipher.AEAD, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, 32)
		if _, err := rand.Read(key); err != nil {
			return nil, fmt.Errorf("emulator: make key: %w", err)
		}
		if err := os.WriteFile(path+".new", key, 0o600); err != nil {
			return nil, fmt.Errorf("emulator: write key: %w", err)
		}
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return nil, fmt.Errorf("emulator: key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("emulator: key %s: %w", path, err)
	}
	return cipher.NewGCM(block)
}
