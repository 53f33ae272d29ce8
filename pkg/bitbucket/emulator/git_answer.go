package emulator

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// gitVersion2 is the protocol that every git of today asks for.
const gitVersion2 = "version=2"

// advertised keeps what git says of itself in version 2 of the protocol, by whether it gives any commit: it depends on
// nothing else of a repository, and is asked for before everything else.
type advertised struct {
	mu   sync.Mutex
	said map[bool][]byte
}

// answerGit answers as git http-backend does, by upload-pack and receive-pack themselves: a process less for each
// request (gitprotocol-http).
func (e *Emulator) answerGit(w http.ResponseWriter, r *http.Request, request *gitRequest, dir string) error {
	w.Header().Set("Cache-Control", "no-cache, max-age=0, must-revalidate")
	if request.path == "info/refs" {
		w.Header().Set("Content-Type", "application/x-"+request.service+"-advertisement")
		return e.advertise(w, r, request, dir)
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/x-"+request.service+"-request" {
		w.WriteHeader(http.StatusUnsupportedMediaType)
		return nil
	}
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unpacked, err := gzip.NewReader(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return nil //nolint:nilerr // the client is told
		}
		body = unpacked
	}
	w.Header().Set("Content-Type", "application/x-"+request.service+"-result")
	_ = e.pack(w, body, r, request, dir) // the client is told in the answer
	return nil
}

// advertise says which refs there are; in version 2, which only upload-pack has, what can be asked.
func (e *Emulator) advertise(w http.ResponseWriter, r *http.Request, request *gitRequest, dir string) error {
	if request.writes || r.Header.Get("Git-Protocol") != gitVersion2 {
		line := "# service=" + request.service + "\n"
		if _, err := fmt.Fprintf(w, "%04x%s0000", len(line)+4, line); err != nil {
			return nil //nolint:nilerr // the client is gone
		}
		_ = e.pack(w, nil, r, request, dir, "--advertise-refs") // the client is told in the answer
		return nil
	}
	said, err := e.git.advertised.get(!e.currentSwitches().RefuseAnySHA1, func() ([]byte, error) {
		var out bytes.Buffer
		err := e.pack(&out, nil, r, request, dir, "--advertise-refs")
		return out.Bytes(), err
	})
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return err
	}
	_, _ = w.Write(said)
	return nil
}

func (a *advertised) get(anyCommit bool, ask func() ([]byte, error)) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if said, ok := a.said[anyCommit]; ok {
		return said, nil
	}
	said, err := ask()
	if err != nil {
		return nil, err
	}
	if a.said == nil {
		a.said = map[bool][]byte{}
	}
	a.said[anyCommit] = said
	return said, nil
}

// pack runs upload-pack or receive-pack for one request. It fails also when it told the client so in its answer.
func (e *Emulator) pack(w io.Writer, body io.Reader, r *http.Request, request *gitRequest, dir string, options ...string) error {
	anySHA1 := "uploadpack.allowAnySHA1InWant=true"
	if e.currentSwitches().RefuseAnySHA1 {
		anySHA1 = "uploadpack.allowAnySHA1InWant=false"
	}
	args := append([]string{"-c", anySHA1, strings.TrimPrefix(request.service, "git-"), "--stateless-rpc"}, options...)
	cmd := exec.CommandContext(r.Context(), e.git.program, append(args, dir)...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = e.git.env(), body, w, logWriter{e}
	cmd.WaitDelay = time.Second // of a client that neither sends nor leaves
	if protocol := r.Header.Get("Git-Protocol"); protocol != "" && !strings.ContainsAny(protocol, "\x00\n") {
		cmd.Env = append(cmd.Env, "GIT_PROTOCOL="+protocol)
	}
	if request.account != nil {
		cmd.Env = append(cmd.Env, "GIT_COMMITTER_NAME="+request.account.Username, "GIT_COMMITTER_EMAIL="+request.account.Username+"@localhost")
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("emulator: git %s: %w", request.service, err)
	}
	return nil
}

// logWriter puts what git says on its error output into the log.
type logWriter struct{ e *Emulator }

func (l logWriter) Write(p []byte) (int, error) {
	l.e.opts.Logger.Debug("git", "stderr", strings.TrimSpace(string(p)))
	return len(p), nil
}
