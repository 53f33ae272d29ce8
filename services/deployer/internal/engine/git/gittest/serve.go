package gittest

import (
	"compress/gzip"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// advertisements keeps what git says of itself in version 2 of the protocol, by a repository's
// configuration: it depends on nothing else, and is asked for before every question.
var advertisements sync.Map // string to []byte

// uploadPack answers a client that fetches as git's http-backend does, with git's own upload-pack.
func (s *Server) uploadPack(w http.ResponseWriter, r *http.Request) {
	name, service, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), ".git/")
	dir := filepath.Join(s.root, filepath.FromSlash(name)+".git")
	config, err := os.ReadFile(filepath.Join(dir, "config"))
	if err != nil || strings.Contains(name, "..") {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "no-cache, max-age=0, must-revalidate")
	switch {
	case r.Method == http.MethodGet && service == "info/refs" && r.URL.Query().Get("service") == "git-upload-pack":
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		if r.Header.Get("Git-Protocol") != "version=2" {
			_, _ = io.WriteString(w, "001e# service=git-upload-pack\n0000")
			_ = s.answer(w, r, dir, "--advertise-refs")
			return
		}
		said, ok := advertisements.Load(string(config))
		if !ok {
			var out strings.Builder
			if err := s.answer(&out, r, dir, "--advertise-refs"); err != nil {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			said, _ = advertisements.LoadOrStore(string(config), []byte(out.String()))
		}
		_, _ = w.Write(said.([]byte))
	case isPack(r) && service == "git-upload-pack":
		w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
		if r.Header.Get("Content-Encoding") == "gzip" {
			if r.Body, err = gzip.NewReader(r.Body); err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
		}
		// A client that asks for what is not there is told so in the answer; the program then fails.
		_ = s.answer(w, r, dir)
	default:
		w.WriteHeader(http.StatusForbidden)
	}
}

// answer runs git upload-pack for one request.
func (s *Server) answer(w io.Writer, r *http.Request, dir string, options ...string) error {
	cmd := exec.CommandContext(r.Context(), "git", append(append([]string{"upload-pack", "--stateless-rpc", "--strict"}, options...), dir)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.root, "GIT_CONFIG_NOSYSTEM=1", "GIT_PROTOCOL=" + r.Header.Get("Git-Protocol")}
	cmd.Dir, cmd.Stdout = s.root, w
	if len(options) == 0 {
		cmd.Stdin = r.Body
	}
	return cmd.Run()
}
