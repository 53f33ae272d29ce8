package history

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
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
)

// maxTags bounds how many tags a release's .git has: the newest.
const maxTags = 10_000

// Tags are the tags on a commit and its ancestors, as "<object> <ref> <commit>" lines.
type Tags string

// ReadTags lists them.
func ReadTags(ctx context.Context, t *tree.Tree) (Tags, error) {
	var out bytes.Buffer
	err := t.Local(ctx, program.Command{Operation: "for-each-ref", Stdout: &out, Args: []string{
		"for-each-ref", fmt.Sprintf("--count=%d", maxTags), "--sort=-creatordate", "--merged=" + t.Commit, "--format=%(objectname) %(refname) %(*objectname)", "refs/tags",
	}})
	return Tags(out.String()), err
}

// gitConfig is all the configuration that a release's .git has: no remote, so no address and no
// credential to take, and nothing that runs a program.
const gitConfig = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = false\n"

// History is a commit whose history is in its repository.
type History struct {
	*tree.Tree
	Ref  string // that the commit was found by, refs/heads/… or refs/tags/…
	Tags Tags
}

// WriteGit writes a .git directory of its own into dir, which holds the checked-out commit: all
// history of the commit and the tags on it, so that `git describe` and `git log` work there. It
// shares no file with the repository. Packs are made in the directory temporary first.
func (h History) WriteGit(ctx context.Context, dir *os.Root, temporary string) error {
	if err := h.Disk.Check(dir.Name()); err != nil {
		return err
	}
	temporary, err := os.MkdirTemp(temporary, "history-")
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	defer func() { _ = os.RemoveAll(temporary) }()
	if err := h.pack(ctx, temporary); err != nil {
		return err
	}
	boundary, err := h.boundary(ctx)
	if err != nil {
		return err
	}
	if err := writeGit(ctx, dir, temporary, h.refFiles(boundary)); err != nil {
		return fmt.Errorf("history: write .git: %w", err)
	}
	return nil
}

// pack packs commit and tags into a directory, with an index of the tree beside.
func (h History) pack(ctx context.Context, temporary string) error {
	in := h.Commit + "\n"
	for line := range strings.Lines(string(h.Tags)) {
		tag, _, _ := strings.Cut(line, " ")
		in += tag + "\n"
	}
	err := h.Local(ctx, program.Command{Operation: "pack-objects", Stdin: strings.NewReader(in), Stdout: io.Discard, Args: []string{
		"pack-objects", "--revs", "-q", "--delta-base-offset", filepath.Join(temporary, "pack"),
	}})
	if err != nil {
		return err
	}
	return h.Local(ctx, program.Command{Operation: "read-tree", Env: []string{"GIT_INDEX_FILE=" + filepath.Join(temporary, "index")}, Args: []string{"read-tree", h.Commit}})
}

// boundary is where the history ends without having begun, which is only where Bitbucket itself has
// no more: the lines of git's file "shallow" that matter.
func (h History) boundary(ctx context.Context) (string, error) {
	b, err := os.ReadFile(filepath.Join(h.GitDir, "shallow"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("history: %w", err)
	}
	cut := strings.Fields(string(b))
	var out bytes.Buffer
	if err := h.Local(ctx, program.Command{Operation: "rev-list", Stdout: &out, Args: []string{"rev-list", "--max-parents=0", "--end-of-options", h.Commit}}); err != nil {
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
func (h History) refFiles(boundary string) map[string]string {
	files := map[string]string{"HEAD": h.Commit + "\n", "config": gitConfig}
	type ref struct{ name, object, commit string }
	var refs []ref
	if branch := h.Ref; strings.HasPrefix(branch, "refs/heads/") {
		refs = append(refs, ref{name: branch, object: h.Commit})
		files["HEAD"] = "ref: " + branch + "\n"
	}
	for line := range strings.Lines(string(h.Tags)) {
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
