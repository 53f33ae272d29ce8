package lfs

import (
	"context"
	"fmt"
	"io"
	"strings"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
)

// Repository is whose files are brought.
type Repository struct {
	Workspace string // whose credential is used
	FullName  string
	Ref       string // that was asked for; may be empty
	Dir       string // where its objects are kept
}

// Bring has what the tree's pointers point to in r.Dir, and in the pointers' places of the tree. It
// returns how many bytes came, which are most at most. notice, if not nil, is told of files that are
// declared and hold no pointer; progress, if not nil, how far the downloads are.
func (c *Client) Bring(ctx context.Context, t *tree.Tree, r Repository, most int64, notice func(string), progress func(done, all int64)) (came int64, err error) {
	pointers, odd, err := finder{t, c.cfg.Temporary}.pointers(ctx, t.EachObject)
	if len(odd) > 0 && notice != nil {
		notice(oddWords(odd))
	}
	if err != nil || len(pointers) == 0 {
		return 0, err
	}
	missing := map[string]*object{}
	for at, p := range pointers {
		if p.size == 0 || missing[p.oid] != nil || p.stored(r.Dir) {
			continue
		}
		missing[p.oid] = &object{pointer: p, path: at}
		if came += p.size; p.size > most || came > most {
			return 0, &remote.Error{Reason: remote.ReasonRepositoryTooLarge, Message: fmt.Sprintf("The files that LFS keeps are larger than the %s that a fetch may bring.", remote.Bytes(c.cfg.MostBytes))}
		}
	}
	if len(missing) > 0 {
		if err := c.download(ctx, r, t.Disk, missing, came, progress); err != nil {
			return 0, err
		}
	}
	t.Replace = make(map[string]tree.Replacement, len(pointers))
	for at, p := range pointers {
		if p.size == 0 { // git-lfs asks nobody for nothing
			t.Replace[at] = tree.Replacement{Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("")), nil }}
			continue
		}
		t.Replace[at] = tree.Replacement{Size: p.size, Open: func() (io.ReadCloser, error) { return openVerified(p, r.Dir) }}
	}
	return came, nil
}
