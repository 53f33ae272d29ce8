package emulator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// gitStore is the bare repositories, one directory per repository UUID. Writes to one repository are serialised by its
// lock; reads need none.
type gitStore struct {
	root    string
	logger  *slog.Logger
	program string
	backend string // git http-backend

	mu    sync.Mutex
	locks map[string]*sync.Mutex
}

// commit is what the emulator reads of one.
type commit struct {
	hash        string
	parents     []string
	date        time.Time
	authorName  string
	authorEmail string
	message     string
}

func (c *commit) author() string { return c.authorName + " <" + c.authorEmail + ">" }

// ref is where a ref points: object is what it names, commit the peeled commit of an annotated tag.
type ref struct {
	object    string
	commit    string
	annotated bool
}

const zeroHash = "0000000000000000000000000000000000000000"

func newGitStore(root string, logger *slog.Logger) (*gitStore, error) {
	program, err := exec.LookPath("git")
	if err != nil {
		return nil, fmt.Errorf("emulator: the git program is needed: %w", err)
	}
	root, err = filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("emulator: git directory: %w", err)
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("emulator: git directory: %w", err)
	}
	g := &gitStore{root: root, logger: logger, program: program, locks: map[string]*sync.Mutex{}}
	execPath, err := g.run(context.Background(), root, nil, "--exec-path")
	if err != nil {
		return nil, err
	}
	g.backend = filepath.Join(strings.TrimSpace(string(execPath)), "git-http-backend")
	if _, err := os.Stat(g.backend); err != nil {
		return nil, fmt.Errorf("emulator: git http-backend is needed: %w", err)
	}
	return g, nil
}

// env shields git from the user's configuration and from variables of a surrounding git.
func (g *gitStore) env() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + g.root, "LC_ALL=C", "TZ=UTC",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_TERMINAL_PROMPT=0",
	}
}

func (g *gitStore) run(ctx context.Context, dir string, stdin io.Reader, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, g.program, args...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, g.env(), stdin
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("emulator: git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}

func (g *gitStore) dir(id string) string { return filepath.Join(g.root, id+".git") }

// lock serialises writers of one repository; the returned function unlocks.
func (g *gitStore) lock(id string) func() {
	g.mu.Lock()
	l := g.locks[id]
	if l == nil {
		l = &sync.Mutex{}
		g.locks[id] = l
	}
	g.mu.Unlock()
	l.Lock()
	return l.Unlock
}

// ensure makes the bare repository with its seed if it is not there. It is built aside and renamed, so that a killed
// process leaves none half made. Callers hold the repository's lock.
func (g *gitStore) ensure(ctx context.Context, repo *Repository) error {
	if _, err := os.Stat(g.dir(repo.UUID)); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	building, err := os.MkdirTemp(g.root, "new-")
	if err != nil {
		return fmt.Errorf("emulator: make repository: %w", err)
	}
	err = g.build(ctx, building, repo)
	if err == nil {
		err = os.Rename(building, g.dir(repo.UUID))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("emulator: make repository %s: %w", repo.Slug, err), os.RemoveAll(building))
	}
	return nil
}

func (g *gitStore) build(ctx context.Context, dir string, repo *Repository) error {
	if _, err := g.run(ctx, g.root, nil, "init", "--quiet", "--bare", "--template=", "--initial-branch=main", dir); err != nil {
		return err
	}
	// No maintenance: objects of deleted and overwritten branches stay, as payloads name them.
	config := "[http]\n\treceivepack = true\n[gc]\n\tauto = 0\n[receive]\n\tautogc = false\n\tdenyDeleteCurrent = ignore\n[uploadpack]\n\tallowFilter = true\n"
	file, err := os.OpenFile(filepath.Join(dir, "config"), os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(config)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	changes := seedChanges(repo)
	if len(changes) == 0 {
		return nil
	}
	return g.apply(ctx, dir, nil, changes, identity{name: "Jane Developer", email: "jane@example.test", at: seedTime})
}

// prepare takes the lock, makes the repository if need be, and returns its directory and refs.
func (e *Emulator) prepare(ctx context.Context, repo *Repository) (dir string, unlock func(), refs map[string]ref, err error) {
	unlock = e.git.lock(repo.UUID)
	if err = e.git.ensure(ctx, repo); err == nil {
		dir = e.git.dir(repo.UUID)
		refs, err = e.git.refs(ctx, dir)
	}
	if err != nil {
		unlock()
		return "", nil, nil, err
	}
	return dir, unlock, refs, nil
}

// opened is prepare for readers: the lock is released again.
func (e *Emulator) opened(ctx context.Context, repo *Repository) (string, map[string]ref, error) {
	dir, unlock, refs, err := e.prepare(ctx, repo)
	if err != nil {
		return "", nil, err
	}
	unlock()
	return dir, refs, nil
}

// refs lists branches and tags by full name.
func (g *gitStore) refs(ctx context.Context, dir string) (map[string]ref, error) {
	out, err := g.run(ctx, dir, nil, "for-each-ref", "--format=%(refname) %(objectname) %(objecttype) %(*objectname)", "refs/heads", "refs/tags")
	if err != nil {
		return nil, err
	}
	refs := map[string]ref{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 3 && fields[2] == "commit":
			refs[fields[0]] = ref{object: fields[1], commit: fields[1]}
		case len(fields) == 4:
			refs[fields[0]] = ref{object: fields[1], commit: fields[3], annotated: true}
		}
	}
	return refs, nil
}

const commitFormat = "--format=tformat:%H%x00%P%x00%aI%x00%an%x00%ae%x00%B%x00"

// commits reads commits by hash, in one process.
func (g *gitStore) commits(ctx context.Context, dir string, hashes []string) (map[string]*commit, error) {
	found := map[string]*commit{}
	if len(hashes) == 0 {
		return found, nil
	}
	list, err := g.log(ctx, dir, strings.NewReader(strings.Join(hashes, "\n")+"\n"), "--no-walk=unsorted", "--stdin")
	for _, c := range list {
		found[c.hash] = c
	}
	return found, err
}

func (g *gitStore) log(ctx context.Context, dir string, stdin io.Reader, args ...string) ([]*commit, error) {
	out, err := g.run(ctx, dir, stdin, append([]string{"log", commitFormat}, args...)...)
	if err != nil {
		return nil, err
	}
	fields := strings.Split(string(out), "\x00")
	var commits []*commit
	for ; len(fields) >= 6; fields = fields[6:] {
		date, err := time.Parse(time.RFC3339, fields[2])
		if err != nil {
			return nil, fmt.Errorf("emulator: date of commit: %w", err)
		}
		commits = append(commits, &commit{
			hash: strings.TrimPrefix(fields[0], "\n"), parents: strings.Fields(fields[1]), date: date,
			authorName: fields[3], authorEmail: fields[4], message: fields[5],
		})
	}
	return commits, nil
}

// hasCommit reports whether the repository has the commit, and its full hash.
func (g *gitStore) hasCommit(ctx context.Context, dir, hash string) (string, bool) {
	if len(hash) < 7 || strings.Trim(hash, "0123456789abcdef") != "" {
		return "", false
	}
	out, err := g.run(ctx, dir, nil, "rev-parse", "--verify", "--quiet", hash+"^{commit}")
	return strings.TrimSpace(string(out)), err == nil
}

// isAncestor reports whether everything reachable from old is reachable from new.
func (g *gitStore) isAncestor(ctx context.Context, dir, old, new string) (bool, error) {
	out, err := g.run(ctx, dir, nil, "rev-list", "-n", "1", old, "^"+new)
	return len(out) == 0, err
}
