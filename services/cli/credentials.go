package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Credentials are kept in one file that only its owner may read. The key stores of desktops were looked at:
// there is none on servers and in CI, each system has another, and whoever can read the owner's files can mostly
// ask them too. In CI nothing is kept: DEVPILOT_URL and DEVPILOT_KEY say all.
const (
	credentialsDir  = "devpilot"
	credentialsFile = "credentials.json"
)

// credentials is what the file holds.
type credentials struct {
	// Current is the address that is meant where none is named.
	Current string             `json:"current"`
	Servers map[string]account `json:"servers"`
}

// account is how to come in at one Devpilot.
type account struct {
	Key       string `json:"key"`
	Workspace string `json:"workspace"`
	// KeyID is the id of a key that a login through a browser made, which nobody else has; empty for others.
	KeyID string `json:"keyId,omitempty"`
}

func (a *app) credentialsPath() (string, error) {
	dir, err := a.p.Directory()
	if err != nil {
		return "", fmt.Errorf("there is no directory to keep credentials in (%w): set DEVPILOT_URL and DEVPILOT_KEY instead", err)
	}
	return filepath.Join(dir, credentialsDir, credentialsFile), nil
}

func (a *app) readCredentials() (credentials, error) {
	c := credentials{Servers: map[string]account{}}
	path, err := a.credentialsPath()
	if err != nil {
		return c, nil //nolint:nilerr // nothing is kept there
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	if info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		return c, fmt.Errorf("%s may be read by others: run chmod 600 %s, and devpilot login again with a new key if somebody may have", path, path)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, fmt.Errorf("%s cannot be read (%w): remove it and run devpilot login", path, err)
	}
	if c.Servers == nil {
		c.Servers = map[string]account{}
	}
	return c, nil
}

// writeCredentials replaces the file in one step, so that a crash leaves the one or the other.
func (a *app) writeCredentials(c credentials) error {
	path, err := a.credentialsPath()
	if err != nil {
		return err
	}
	raw, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".credentials-*") // 0600 from its first byte on
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone once it is renamed
	_, err = f.Write(append(raw, '\n'))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
