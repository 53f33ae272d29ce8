package lfs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
)

// Has tells whether files of a tree are pointers, for a word in the log where nobody wants their content.
// Where no .gitattributes hands files to LFS, it costs next to nothing: the list of
// files is the one that the check-out needs.
func Has(ctx context.Context, t *tree.Tree, temporary string) (bool, error) {
	if len(t.Replace) > 0 {
		return true, nil
	}
	f := finder{t, temporary}
	pointers, _, err := f.pointers(ctx, func(ctx context.Context, each func(tree.Object) error) error {
		p, err := t.List(ctx)
		if err != nil {
			return err
		}
		for i := range p.Entries {
			if e := &p.Entries[i]; e.Git == t.GitDir {
				if err := each(tree.Object{Mode: e.Mode, OID: e.OID, Size: e.Size, Path: e.Path}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if remote.Explained(err) && ctx.Err() == nil {
		return remote.HasReason(err, remote.ReasonLFSFailed), nil // the check-out will say the rest
	}
	return len(pointers) > 0, err
}

// finder finds the pointers of one tree.
type finder struct {
	*tree.Tree
	temporary string // a directory for what is needed for one run only
}

// pointers finds the commit's pointers: path to what it points to. A file is LFS's where
// .gitattributes says so (filter=lfs), as git itself reads them, and nowhere else. odd are files that
// are declared and speak of LFS, but are no pointers that anybody can read. list lists the commit.
func (f finder) pointers(ctx context.Context, list func(context.Context, func(tree.Object) error) error) (found map[string]pointer, odd []string, err error) {
	var small, attributes []tree.Object
	err = list(ctx, func(o tree.Object) error {
		if !tree.PlainPath(o.Path) || !strings.HasPrefix(o.Mode, "100") {
			return nil // what the check-out refuses, it says itself
		}
		if path.Base(o.Path) == ".gitattributes" {
			attributes = append(attributes, o)
		} else if o.Size > 0 && o.Size < maxPointer {
			small = append(small, o)
		}
		return nil
	})
	if err != nil || len(small) == 0 || len(attributes) == 0 {
		return nil, nil, err
	}
	if some, err := f.handOver(ctx, attributes); err != nil || !some {
		return nil, nil, err
	}
	if small, err = f.declared(ctx, attributes, small); err != nil || len(small) == 0 {
		return nil, nil, err
	}
	found = map[string]pointer{}
	err = f.eachBlob(ctx, small, func(o tree.Object, body []byte) error {
		p, bad := decodePointer(body)
		switch {
		case bad == nil:
			found[o.Path] = p
		case errors.Is(bad, errExtension):
			return failed(&object{path: o.Path}, "its pointer names an extension of Git LFS, a program of its author's, which is not run here.")
		case likePointer.Match(body):
			odd = append(odd, o.Path)
		}
		return nil
	})
	return found, odd, err
}

func oddWords(odd []string) string {
	more := ""
	if len(odd) > 1 {
		more = fmt.Sprintf(" The same goes for %d more.", len(odd)-1)
	}
	return fmt.Sprintf("%q is declared as Git LFS's and holds no pointer that can be read; it is deployed as it stands.%s", slices.Min(odd), more)
}

// eachBlob reads small objects, in order. What is larger than maxAttributes is cut.
func (f finder) eachBlob(ctx context.Context, objects []tree.Object, each func(o tree.Object, body []byte) error) error {
	var ask strings.Builder
	for _, o := range objects {
		ask.WriteString(o.OID + "\n")
	}
	return f.Git.Read(ctx, program.Command{Operation: "cat-file", GitDir: f.GitDir, Stdin: strings.NewReader(ask.String()), Args: []string{"cat-file", "--batch", "--buffer"}}, func(r io.Reader) error {
		br := bufio.NewReaderSize(r, 64<<10)
		var buf []byte
		for _, o := range objects {
			head, err := br.ReadString('\n')
			if err != nil {
				return err
			}
			if want := fmt.Sprintf("%s blob %d\n", o.OID, o.Size); head != want {
				return fmt.Errorf("%w: %q instead of %q", program.ErrDamaged, strings.TrimSpace(head), strings.TrimSpace(want))
			}
			n := min(o.Size, maxAttributes)
			buf = slices.Grow(buf[:0], int(n))[:n]
			if _, err := io.ReadFull(br, buf); err != nil {
				return err
			}
			if _, err := io.CopyN(io.Discard, br, o.Size-n+1); err != nil {
				return err
			}
			if err := each(o, buf); err != nil {
				return err
			}
		}
		return nil
	})
}

// maxAttributes is how much of a .gitattributes is searched for a word; a longer one is taken to have it.
const maxAttributes = 1 << 20

// handOver tells whether any .gitattributes mentions LFS at all: most do not, and what follows costs
// two runs of git.
func (f finder) handOver(ctx context.Context, attributes []tree.Object) (bool, error) {
	some := false
	err := f.eachBlob(ctx, attributes, func(o tree.Object, body []byte) error {
		some = some || o.Size > maxAttributes || bytes.Contains(body, []byte("filter=lfs"))
		return nil
	})
	return some, err
}

// declared are those of the files whose attribute "filter" is "lfs". git works it out, from an index
// that holds nothing but the commit's .gitattributes.
func (f finder) declared(ctx context.Context, attributes, files []tree.Object) (found []tree.Object, err error) {
	dir, err := os.MkdirTemp(f.temporary, "attributes-")
	if err != nil {
		return nil, fmt.Errorf("lfs: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	env := []string{"GIT_INDEX_FILE=" + filepath.Join(dir, "index")}
	var index, ask strings.Builder
	for _, o := range attributes {
		index.WriteString(tree.ModeFile + " " + o.OID + "\t" + o.Path + "\x00")
	}
	for _, o := range files {
		ask.WriteString(o.Path + "\x00")
	}
	err = f.Local(ctx, program.Command{Operation: "update-index", Env: env, Stdin: strings.NewReader(index.String()), Args: []string{"update-index", "-z", "--add", "--index-info"}})
	if errors.Is(err, program.ErrDamaged) { // no object is read: it can only be about the paths
		return nil, tree.Refuse("git cannot tell its .gitattributes apart: two have one place.")
	}
	if err != nil {
		return nil, err
	}
	at := 0
	err = f.Git.Records(ctx, program.Command{
		Operation: "check-attr", GitDir: f.GitDir, Env: env, Stdin: strings.NewReader(ask.String()), Args: []string{"check-attr", "--cached", "-z", "--stdin", "filter"},
	}, func(field string) error {
		// Of each path three: the path, "filter", and its value.
		if i := at / 3; at%3 == 2 && field == "lfs" && i < len(files) {
			found = append(found, files[i])
		}
		at++
		return nil
	})
	if err == nil && at != 3*len(files) {
		err = fmt.Errorf("lfs: git told the attributes of %d of %d files", at/3, len(files))
	}
	return found, err
}
