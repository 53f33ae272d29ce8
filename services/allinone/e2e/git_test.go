package e2e

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// checkout is a clone as a person has one.
type checkout struct {
	t   testing.TB
	dir string
}

// clone clones a repository with the git program, as jane-dev.
func (s *site) clone(t testing.TB, repo repository) *checkout {
	t.Helper()
	c := &checkout{t: t, dir: filepath.Join(t.TempDir(), "clone")}
	c.git("clone", "--quiet", s.remote(t, repo), c.dir)
	return c
}

// remote is where jane-dev clones from and pushes to.
func (s *site) remote(t testing.TB, repo repository) string {
	t.Helper()
	u, err := url.Parse(s.address)
	if err != nil {
		t.Fatal(err)
	}
	u.User, u.Path = url.UserPassword(jane, jane+"-password"), "/"+repo.name+".git"
	return u.String()
}

// git runs the program and returns what it printed.
func (c *checkout) git(args ...string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", args...)
	if _, err := os.Stat(c.dir); err == nil {
		cmd.Dir = c.dir
	}
	cmd.Env = append(cleanEnviron(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Jane Developer", "GIT_AUTHOR_EMAIL=jane@example.test", "GIT_COMMITTER_NAME=Jane Developer", "GIT_COMMITTER_EMAIL=jane@example.test")
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("git %s: %v\n%s", args[0], err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit writes a file, commits it and returns the hash.
func (c *checkout) commit(file, text string) string {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, file), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.git("add", file)
	c.git("commit", "--quiet", "-m", "Change "+file)
	return c.git("rev-parse", "HEAD")
}
