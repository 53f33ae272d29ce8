package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/mattn/go-isatty"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/services/allinone"
)

// Settings are those of `devpilot backup`. To embed in a kong struct.
type Settings struct {
	Stores `embed:""`

	Output    string `name:"output" short:"o" default:"table" enum:"table,json" help:"A sentence, or json for programs: the manifest."`
	Directory string `arg:"" help:"Directory to make the backup in: an empty one, or one that does not exist yet."`
}

// RestoreSettings are those of `devpilot restore`. To embed in a kong struct.
type RestoreSettings struct {
	Stores               `embed:""`
	servicemain.KeyFlags `embed:""`

	Output    string `name:"output" short:"o" default:"table" enum:"table,json" help:"Sentences, or json for programs."`
	Again     bool   `name:"again" help:"Begin anew after a restore that was interrupted: what it made is removed first."`
	Directory string `arg:"" help:"Directory of the backup."`
}

// Backup is `devpilot backup`: it saves the installation's streams and buckets, of a NATS that is in use or of files that are not, and says
// what it has saved.
func Backup(ctx context.Context, p servicemain.Process, f Settings) (err error) {
	s, err := f.open(ctx, "devpilot-backup", true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	m, err := Save(ctx, s.session, f.Directory, progress(p.Stderr))
	if err != nil {
		return diskTrouble(err)
	}
	if f.Output == "json" {
		return writeJSON(p.Stdout, m)
	}
	_, err = fmt.Fprintf(p.Stdout, "Saved %d streams with %d messages in %d ms: %d KiB in %s.\n"+
		"It has source lines, logs of deployments, names and e-mail addresses in clear; tokens and secrets are sealed with the encryption keysets, which are not in it: "+
		"without these they cannot be used again. Keep a copy of the keysets in another place.\n",
		len(m.Streams), m.messages(), m.EndTime.Sub(m.Time).Milliseconds(), (m.size()+1023)>>10, f.Directory)
	return err
}

// restoredReport is what a restore says to programs; fields are added and never renamed.
type restoredReport struct {
	Installation string    `json:"installation"` // its id
	BackupTime   time.Time `json:"backupTime"`
	Streams      int       `json:"streams"`
	Messages     uint64    `json:"messages"`
	Apps         int       `json:"apps"`
	Deployments  int       `json:"deployments"`
	Undone       int       `json:"undone"` // records of deployments that were newer than the rest
	Millis       int64     `json:"durationMillis"`
}

// Restore is `devpilot restore`.
func Restore(ctx context.Context, p servicemain.Process, f RestoreSettings) (err error) {
	name, err := f.Name()
	if err != nil {
		return err
	}
	keysets, err := f.keysets()
	if err != nil {
		return err
	}
	began, tell := time.Now(), progress(p.Stderr)
	r, err := Verify(f.Directory, name, keysets, tell)
	if err != nil {
		return err
	}
	s, err := f.open(ctx, "devpilot-restore", false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	r.Again = f.Again
	settled, err := r.Run(ctx, s.session, tell)
	if err != nil {
		return err
	}
	m := r.manifest
	report := restoredReport{
		Installation: m.Installation.ID, BackupTime: m.Time, Streams: len(m.Streams), Messages: m.messages(),
		Apps: settled.Lanes, Deployments: settled.Records - settled.Undone, Undone: settled.Undone, Millis: time.Since(began).Milliseconds(),
	}
	if f.Output == "json" {
		return writeJSON(p.Stdout, report)
	}
	_, err = fmt.Fprintf(p.Stdout, "Restored %d streams with %d messages of the backup of %s in %d ms: %d apps, %d deployments.\n"+
		"Start Devpilot with the same settings and keysets. What was live and is not on its servers' disks is deployed again; pushes since the backup are found by looking.\n",
		report.Streams, report.Messages, report.BackupTime.Format(time.RFC1123), report.Millis, report.Apps, report.Deployments)
	return err
}

// keysets are those that are named, or that of the data directory. None is made: a new one opens nothing.
func (f *RestoreSettings) keysets() (seal.Keysets, error) {
	path := f.EncryptionKeysetFile
	if path == "" {
		path = allinone.KeysetFile(f.DataDir)
	}
	keysets, err := seal.LoadKeysets(path, allinone.Sealers()...)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("an encryption keyset of %s is not there: put those of the installation there, or name them with DEVPILOT_ENCRYPTION_KEYSET_FILE, a file or a directory with encryption-<service>.json. They are in no backup, and without them nothing that was sealed can be used again: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("the encryption keyset: %w", err)
	}
	return keysets, nil
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// progressEvery is how often a line is written where nobody watches a terminal.
const progressEvery = 10 * time.Second

// progress shows how far it is: in one line of a terminal, elsewhere in a line now and then.
func progress(w io.Writer) Progress {
	file, isFile := w.(*os.File)
	terminal := isFile && isatty.IsTerminal(file.Fd())
	last := time.Now()
	return func(which, streams int, name string, done uint64) {
		line := fmt.Sprintf("%d of %d: %s", which, streams, name)
		if done > 0 {
			line += fmt.Sprintf(", %d", done)
		}
		switch {
		case terminal:
			fmt.Fprintf(w, "\r\x1b[K%.78s", line)
			if which == streams {
				fmt.Fprint(w, "\r\x1b[K")
			}
		case time.Since(last) >= progressEvery:
			last = time.Now()
			fmt.Fprintln(w, line)
		}
	}
}
