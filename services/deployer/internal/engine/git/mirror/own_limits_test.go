package mirror

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// TestOwnLimits_longDescriptions: a commit is deployed however long its message and names are.
func TestOwnLimits_longDescriptions(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	files := rawTree(repo, "f", "1")
	long := strings.Repeat("word ", 300_000) // 1.5 MB
	for name, text := range map[string]string{
		"message":      "author " + janeThen + "\ncommitter " + janeThen + "\n\n" + long + "[skip ci]",
		"longer":       "author " + janeThen + "\ncommitter " + janeThen + "\n\n" + strings.Repeat(long, 8),
		"author":       "author " + long + " <jane@example.test> 1700000000 +0000\ncommitter " + janeThen + "\n\nm",
		"long address": "author Jane <" + strings.Repeat("j", 5<<20) + "> 1700000000 +0000\ncommitter " + janeThen + "\n\nm",
	} {
		t.Run(name, func(t *testing.T) {
			hash := repo.Object("commit", "tree "+files+"\n"+text)
			repo.Set(name[:4], hash)
			dir, head, err := f.deploy(name[:4])
			must(t, err)
			same(t, filesIn(t, dir), map[string]string{"f": "1"})
			if head.Hash != hash || len(head.Message) > maxDescription || len(head.AuthorName)+len(head.AuthorEmail) > 2*maxPerson+10 {
				t.Errorf("%d bytes of message, %d of a name", len(head.Message), len(head.AuthorName))
			}
			if name == "message" {
				if head.Message != long+"[skip ci]" {
					t.Errorf("%d bytes of message", len(head.Message))
				}
				c, err := f.mirrors.Changes(t.Context(), ChangesRequest{Workspace: "acme-inc", Repository: source("").Repository, FullName: "acme/web", Branch: name[:4], New: hash})
				if err != nil || !strings.HasSuffix(c.Message, "[skip ci]") {
					t.Errorf("%d bytes: %v", len(c.Message), err)
				}
			}
			f.logs.MustNotContain(t, "made anew")
		})
	}
}

// TestOwnLimits_costNoMirror: a fetch that brings too much leaves the mirror as it was.
func TestOwnLimits_costNoMirror(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{FetchBytes: 300_000})
	repo := f.git.Repo("acme/web")
	repo.Commit("main", "x", map[string]string{"f": "1"})
	_, _, err := f.deploy("main")
	must(t, err)
	mark := filepath.Join(f.gitDir(), "mark")
	must(t, os.WriteFile(mark, nil, 0o600))
	good := repo.Head("main")
	repo.Commit("main", "x", map[string]string{"f": noise(1_000_000)})
	for range 2 {
		if _, _, err := f.deploy("main"); reason(err) != remote.ReasonRepositoryTooLarge {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(mark); err != nil {
		t.Error("the mirror was made anew")
	}
	if size := sizeOf(f.dir); size > 200_000 {
		t.Errorf("%d bytes are left behind", size)
	}
	repo.Set("main", good)
	if _, _, err := f.deploy("main"); err != nil {
		t.Fatal(err)
	}
}
