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
	root       string
	logger     *slog.Logger
	program    string
	advertised advertised

	mu    sync.Mutex
	locks map[string]*sync.Mutex
	// heads are the refs of repositories as last read. Nobody but the emulator writes to them, and it forgets them first.
	heads map[string]map[string]ref
	// read keeps commits, which never change, by hash.
	read map[string]*commit
}

// commitsKept bounds gitStore.read.
const commitsKept = 20_000

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
	g := &gitStore{root: root, logger: logger, program: program, locks: map[string]*sync.Mutex{},
		heads: map[string]map[string]ref{}, read: map[string]*commit{}}
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

// remove deletes the directory. Callers hold the repository's lock.
func (g *gitStore) remove(id string) error {
	g.forget(id)
	if err := os.RemoveAll(g.dir(id)); err != nil {
		return fmt.Errorf("emulator: remove repository: %w", err)
	}
	return nil
}

// bareConfig has no maintenance: objects of deleted and overwritten branches stay, as payloads name them.
const bareConfig = `[core]
	repositoryformatversion = 0
	filemode = true
	bare = true
	logAllRefUpdates = false
[http]
	receivepack = true
[gc]
	auto = 0
[receive]
	autogc = false
	denyDeleteCurrent = ignore
[uploadpack]
	allowFilter = true
`

// build lays out a bare repository (gitrepository-layout(5)) and makes its first commits.
func (g *gitStore) build(ctx context.Context, dir string, repo *Repository) error {
	for _, part := range []string{"objects/info", "objects/pack", "refs/heads", "refs/tags"} {
		if err := os.MkdirAll(filepath.Join(dir, part), 0o700); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{"HEAD": "ref: refs/heads/main\n", "config": bareConfig} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return err
		}
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
	if refs = e.git.known(repo.UUID); refs != nil {
		return e.git.dir(repo.UUID), unlock, refs, nil
	}
	if err = e.git.ensure(ctx, repo); err == nil {
		refs, err = e.git.refs(ctx, repo.UUID)
	}
	if err != nil {
		unlock()
		return "", nil, nil, err
	}
	return e.git.dir(repo.UUID), unlock, refs, nil
}

// opened is prepare for readers: it waits for nobody who is pushing.
func (e *Emulator) opened(ctx context.Context, repo *Repository) (string, map[string]ref, error) {
	dir := e.git.dir(repo.UUID)
	if refs := e.git.known(repo.UUID); refs != nil {
		return dir, refs, nil
	}
	if _, err := os.Stat(dir); err == nil {
		refs, err := e.git.readRefs(ctx, repo.UUID)
		return dir, refs, err
	}
	dir, unlock, refs, err := e.prepare(ctx, repo)
	if err != nil {
		return "", nil, err
	}
	unlock()
	return dir, refs, nil
}

// known are the refs as last read, or nil. The map is shared: nobody changes it.
func (g *gitStore) known(id string) map[string]ref {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.heads[id]
}

// forget must be called before refs are written; callers hold the repository's lock.
func (g *gitStore) forget(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.heads, id)
}

// refs reads the refs and remembers them. Callers hold the repository's lock.
func (g *gitStore) refs(ctx context.Context, id string) (map[string]ref, error) {
	refs, err := g.readRefs(ctx, id)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.heads[id] = refs
	return refs, nil
}

// readRefs reads branches and tags by full name.
func (g *gitStore) readRefs(ctx context.Context, id string) (map[string]ref, error) {
	out, err := g.run(ctx, g.dir(id), nil, "for-each-ref", "--format=%(refname) %(objectname) %(objecttype) %(*objectname)", "refs/heads", "refs/tags")
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

// commits reads commits by hash: those not seen before, in one process.
func (g *gitStore) commits(ctx context.Context, dir string, hashes []string) (map[string]*commit, error) {
	found := map[string]*commit{}
	var missing []string
	g.mu.Lock()
	for _, hash := range hashes {
		if c := g.read[hash]; c != nil {
			found[hash] = c
		} else {
			missing = append(missing, hash)
		}
	}
	g.mu.Unlock()
	if len(missing) == 0 {
		return found, nil
	}
	list, err := g.log(ctx, dir, strings.NewReader(strings.Join(missing, "\n")+"\n"), "--no-walk=unsorted", "--stdin")
	for _, c := range list {
		found[c.hash] = c
	}
	return found, err
}

// log runs git log and remembers the commits it lists.
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
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.read) > commitsKept {
		clear(g.read)
	}
	for _, c := range commits {
		g.read[c.hash] = c
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

// tree lists what a commit has, in git's order, down to a depth of directories.
func (g *gitStore) tree(ctx context.Context, dir, hash string, depth int) ([]sourceEntry, error) {
	out, err := g.run(ctx, dir, nil, "ls-tree", "-r", "-t", "-z", hash)
	if err != nil {
		return nil, err
	}
	return readTree(string(out), depth), nil
}
