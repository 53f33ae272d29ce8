package program

import (
	"bufio"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// helper is git's credential helper: a few lines of shell that pass git's question to us over file
// descriptor 3, which is the first of exec.Cmd.ExtraFiles, and our answer back. It knows no secret, and runs no program that would show one
// among its arguments: read and printf are built into every shell.
const helper = `!f() { test "$1" = get || exit 0; ` +
	`while IFS= read -r l && test -n "$l"; do printf '%s\n' "$l"; done >&3; printf '\n' >&3; ` +
	`while IFS= read -r l <&3 && test -n "$l"; do printf '%s\n' "$l"; done; }; f`

// credential answers one git process's questions for a credential.
type credential struct {
	site   *url.URL
	token  seal.Secret
	ours   *os.File
	theirs *os.File
	done   chan struct{}
	asked  atomic.Bool // the token was handed out
}

// newCredential opens the socket. The caller starts the process with theirs, then calls started,
// and close when the process is gone.
func newCredential(site *url.URL, token seal.Secret) (*credential, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("program: open the credential socket: %w", err)
	}
	c := &credential{
		site: site, token: token, done: make(chan struct{}),
		ours: os.NewFile(uintptr(fds[0]), "credential"), theirs: os.NewFile(uintptr(fds[1]), "credential"),
	}
	go c.serve()
	return c, nil
}

func (c *credential) started() { _ = c.theirs.Close() }

func (c *credential) close() {
	_ = unix.Shutdown(int(c.ours.Fd()), unix.SHUT_RDWR)
	<-c.done
	_ = c.ours.Close()
}

func (c *credential) serve() {
	defer close(c.done)
	r := bufio.NewReader(io.LimitReader(c.ours, 1<<20))
	for {
		asked := map[string]string{}
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			line = strings.TrimSuffix(line, "\n")
			if line == "" {
				break
			}
			if k, v, ok := strings.Cut(line, "="); ok {
				asked[k] = v
			}
		}
		answer := "quit=1\n\n"
		if c.matches(asked) {
			answer = "username=" + remote.UserName + "\npassword=" + c.token.Reveal() + "\n\n"
			c.asked.Store(true)
		}
		if _, err := io.WriteString(c.ours, answer); err != nil {
			return
		}
	}
}

// matches holds the question against the configured site: exactly its scheme and its host with
// port, nothing like it.
func (c *credential) matches(asked map[string]string) bool {
	user, named := asked["username"]
	return asked["protocol"] == c.site.Scheme && asked["host"] == c.site.Host && (!named || user == remote.UserName)
}
