package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
)

// ErrNoHistory says that a snapshot was fetched without Source.FullHistory.
var ErrNoHistory = errors.New("mirror: the commit was fetched without history")

// maxTags bounds how many tags a release's .git has: the newest.
const maxTags = 10_000

// readTags lists the tags on the commit and its ancestors.
func (s *Snapshot) readTags(ctx context.Context) (string, error) {
	var out bytes.Buffer
	err := s.Local(ctx, program.Command{Operation: "for-each-ref", Stdout: &out, Args: []string{
		"for-each-ref", fmt.Sprintf("--count=%d", maxTags), "--sort=-creatordate", "--merged=" + s.commit.Hash, "--format=%(objectname) %(refname) %(*objectname)", "refs/tags",
	}})
	return out.String(), err
}

// gitConfig is all the configuration that a release's .git has: no remote, so no address and no
// credential to take, and nothing that runs a program.
const gitConfig = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = false\n"

// WriteGit writes a .git directory of its own into dir, which holds the checked-out commit: all
// history of the commit and the tags on it, so that `git describe` and `git log` work there. It
// shares no file with the mirror. Without Source.FullHistory it fails with ErrNoHistory.
func (s *Snapshot) WriteGit(ctx context.Context, dir *os.Root) error {
	if !s.target.full {
		return ErrNoHistory
	}
	if err := s.m.disk().Check(dir.Name()); err != nil {
		return err
	}
	temporary, err := os.MkdirTemp(s.m.temporary(), "history-")
	if err != nil {
		return fmt.Errorf("mirror: %w", err)
	}
	defer func() { _ = os.RemoveAll(temporary) }()
	if err := s.packHistory(ctx, temporary); err != nil {
		return err
	}
	boundary, err := s.boundary(ctx)
	if err != nil {
		return err
	}
	if err := writeGit(ctx, dir, temporary, s.refFiles(boundary)); err != nil {
		return fmt.Errorf("mirror: write .git: %w", err)
	}
	return nil
}

// packHistory packs commit and tags into a directory, with an index of the tree beside.
func (s *Snapshot) packHistory(ctx context.Context, temporary string) error {
	in := s.commit.Hash + "\n"
	for line := range strings.Lines(s.tags) {
		tag, _, _ := strings.Cut(line, " ")
		in += tag + "\n"
	}
	err := s.Local(ctx, program.Command{Operation: "pack-objects", Stdin: strings.NewReader(in), Stdout: io.Discard, Args: []string{
		"pack-objects", "--revs", "-q", "--delta-base-offset", filepath.Join(temporary, "pack"),
	}})
	if err != nil {
		return err
	}
	return s.Local(ctx, program.Command{Operation: "read-tree", Env: []string{"GIT_INDEX_FILE=" + filepath.Join(temporary, "index")}, Args: []string{"read-tree", s.commit.Hash}})
}

// boundary is where the history ends without having begun, which is only where Bitbucket itself has
// no more: the lines of git's file "shallow" that matter.
func (s *Snapshot) boundary(ctx context.Context) (string, error) {
	b, err := os.ReadFile(filepath.Join(s.GitDir, "shallow"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("mirror: %w", err)
	}
	cut := strings.Fields(string(b))
	var out bytes.Buffer
	if err := s.Local(ctx, program.Command{Operation: "rev-list", Stdout: &out, Args: []string{"rev-list", "--max-parents=0", "--end-of-options", s.commit.Hash}}); err != nil {
		return "", err
	}
	var roots strings.Builder
	for root := range strings.Lines(out.String()) {
		if slices.Contains(cut, strings.TrimSpace(root)) {
			roots.WriteString(root)
		}
	}
	return roots.String(), nil
}

// refFiles are the small files of .git.
func (s *Snapshot) refFiles(boundary string) map[string]string {
	files := map[string]string{"HEAD": s.commit.Hash + "\n", "config": gitConfig}
	type ref struct{ name, object, commit string }
	var refs []ref
	if branch := s.target.ref; strings.HasPrefix(branch, "refs/heads/") {
		refs = append(refs, ref{name: branch, object: s.commit.Hash})
		files["HEAD"] = "ref: " + branch + "\n"
	}
	for line := range strings.Lines(s.tags) {
		if f := strings.Fields(line); len(f) == 3 {
			refs = append(refs, ref{name: f[1], object: f[0], commit: f[2]})
		} else if len(f) == 2 {
			refs = append(refs, ref{name: f[1], object: f[0]})
		}
	}
	slices.SortFunc(refs, func(a, b ref) int { return strings.Compare(a.name, b.name) })
	packed := "# pack-refs with: peeled fully-peeled sorted \n"
	for _, r := range refs {
		packed += r.object + " " + r.name + "\n"
		if r.commit != "" {
			packed += "^" + r.commit + "\n"
		}
	}
	files["packed-refs"] = packed
	if boundary != "" {
		files["shallow"] = boundary
	}
	return files
}

func writeGit(ctx context.Context, dir *os.Root, temporary string, files map[string]string) error {
	if err := dir.Mkdir(".git", 0o755); err != nil {
		return err
	}
	for _, d := range []string{".git/objects", ".git/objects/pack", ".git/objects/info", ".git/refs", ".git/refs/heads", ".git/refs/tags"} {
		if err := dir.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	made, err := os.ReadDir(temporary)
	if err != nil {
		return err
	}
	for _, e := range made {
		to := ".git/index"
		if e.Name() != "index" {
			to = ".git/objects/pack/" + e.Name()
		}
		if err := copyInto(ctx, dir, to, filepath.Join(temporary, e.Name())); err != nil {
			return err
		}
	}
	for name, content := range files {
		if err := dir.WriteFile(".git/"+name, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func copyInto(ctx context.Context, dir *os.Root, to, from string) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := dir.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
