package mirror

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/address"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/history"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
)

// Commit is a commit as people want to see it.
type Commit struct {
	Hash        string
	Parents     []string
	Message     string
	AuthorName  string
	AuthorEmail string
	Time        time.Time
}

// Snapshot is a commit in a mirror, safe from being thrown away until Close.
type Snapshot struct {
	tree.Tree
	commit Commit

	m      *Mirrors
	dir    string       // the mirror's, which GitDir is in
	target target       // what was asked for; its commit may be empty
	tags   history.Tags // with history
	use    *os.File

	subs   []*Snapshot       // of submodules, theirs included, whose trees are the grafts
	notice func(text string) // may be nil
}

// snapshot reads what rev names. It is called while the mirror is held for writing, so that the
// commit is the one that was just fetched.
func (m *Mirrors) snapshot(ctx context.Context, r *repository, rev string) (*Snapshot, error) {
	use, err := lockFile(ctx, filepath.Join(r.dir, "use.lock"), unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	s := m.open(r, use)
	if s.commit, err = s.describe(ctx, rev); err != nil {
		s.Close()
		return nil, err
	}
	s.Commit = s.commit.Hash
	return s, nil
}

// open is a repository for reading, which use keeps from being thrown away.
func (m *Mirrors) open(r *repository, use *os.File) *Snapshot {
	limits := m.cfg.Limits
	return &Snapshot{m: m, dir: r.dir, use: use, Tree: tree.Tree{
		Git: m.git, GitDir: r.git, Disk: m.disk(),
		Limits: tree.Limits{Bytes: limits.TreeBytes, Files: limits.TreeFiles, SpareBytes: limits.SpareBytes},
	}}
}

// Bounds of what is kept of a commit's description. What is longer is cut: it is for people, and
// for the phrases that a rule looks for.
const (
	maxDescription = 4 << 20 // of all of it
	maxPerson      = 1 << 10 // of a name, and of an address
)

func (s *Snapshot) describe(ctx context.Context, rev string) (Commit, error) {
	out := &beginning{most: maxDescription}
	err := s.Local(ctx, program.Command{Operation: "log", Stdout: out, Env: []string{history.WithoutBoundary}, Args: []string{
		"log", "-1", "--no-walk", "--no-show-signature", "--no-color", "--encoding=UTF-8", "--format=%H%x00%P%x00%an%x00%ae%x00%ct%x00%B", "--end-of-options", rev, "--",
	}})
	if err != nil {
		return Commit{}, err
	}
	return parseCommit(string(out.b))
}

// beginning keeps the first bytes written to it.
type beginning struct {
	most int
	b    []byte
}

func (b *beginning) Write(p []byte) (int, error) {
	b.b = append(b.b, p[:min(len(p), b.most-len(b.b))]...)
	return len(p), nil
}

// parseCommit reads what git says of a commit. Commits that no tool of today writes lack some of it,
// and are deployed all the same.
func parseCommit(out string) (Commit, error) {
	f := strings.SplitN(strings.ToValidUTF8(out, "\uFFFD"), "\x00", 6)
	if !address.ValidHash(f[0]) {
		return Commit{}, fmt.Errorf("mirror: cannot read git's description of a commit (%d fields)", len(f))
	}
	f = append(f, make([]string, 6-len(f))...)
	seconds, err := strconv.ParseInt(f[4], 10, 64)
	if err != nil {
		seconds = 0 // a damaged date deploys all the same
	}
	c := Commit{Hash: f[0], Parents: strings.Fields(f[1]), AuthorName: cut(f[2], maxPerson), AuthorEmail: cut(f[3], maxPerson), Message: strings.TrimRight(f[5], "\n")}
	if seconds > 0 && seconds < 1<<37 {
		c.Time = time.Unix(seconds, 0).UTC()
	}
	return c, nil
}

// cut bounds a text that is valid UTF-8.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// Head is the commit.
func (s *Snapshot) Head() Commit { return s.commit }

// Close lets the mirror be thrown away again, and those of its submodules.
func (s *Snapshot) Close() {
	for _, sub := range s.subs {
		sub.Close()
	}
	_ = s.use.Close()
}
