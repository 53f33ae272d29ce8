package gittest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
)

// LFS is the LFS of a Server: the batch API beside each repository, and a server of its own, on
// another port, for content.
type LFS struct {
	Media *httptest.Server

	mu       sync.Mutex
	objects  map[string][]byte
	change   func(object map[string]any)
	serve    func(w http.ResponseWriter, r *http.Request, oid string) bool
	batches  int
	headers  []http.Header
	accepted string
}

// LFS starts LFS for all of the server's repositories.
func (s *Server) LFS() *LFS {
	l := &LFS{objects: map[string][]byte{}, accepted: "signature-1"}
	l.Media = httptest.NewServer(http.HandlerFunc(l.content))
	s.t.Cleanup(l.Media.Close)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lfs = l
	return l
}

// Put stores content and returns the pointer to it.
func (l *LFS) Put(content string) string {
	sum := sha256.Sum256([]byte(content))
	oid := hex.EncodeToString(sum[:])
	l.mu.Lock()
	defer l.mu.Unlock()
	l.objects[oid] = []byte(content)
	return fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", oid, len(content))
}

// Replace makes the content of a pointer another than it says.
func (l *LFS) Replace(pointer, content string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.objects[oidOf(pointer)] = []byte(content)
}

func oidOf(pointer string) string {
	_, rest, _ := strings.Cut(pointer, "sha256:")
	return rest[:64]
}

// Change has fn alter each object of the batch API's answers, in its JSON form.
func (l *LFS) Change(fn func(object map[string]any)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.change = fn
}

// Serve has fn answer requests for content; false leaves it to the server.
func (l *LFS) Serve(fn func(w http.ResponseWriter, r *http.Request, oid string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serve = fn
}

// Batches counts the questions answered by the batch API.
func (l *LFS) Batches() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.batches
}

// Downloads are the headers of all requests for content.
func (l *LFS) Downloads() []http.Header {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]http.Header(nil), l.headers...)
}

// batch answers the batch API; who asks was checked before.
func (l *LFS) batch(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		Operation string
		Objects   []struct {
			OID  string
			Size int64
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&ask); err != nil || ask.Operation != "download" {
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	l.mu.Lock()
	l.batches++
	l.accepted = fmt.Sprintf("signature-%d", l.batches)
	var objects []map[string]any
	for _, o := range ask.Objects {
		out := map[string]any{"oid": o.OID, "size": o.Size}
		if _, ok := l.objects[o.OID]; ok {
			out["actions"] = map[string]any{"download": map[string]any{
				"href": l.Media.URL + "/media/" + o.OID, "header": map[string]any{"X-Media-Signature": l.accepted}, "expires_in": 900,
			}}
		} else {
			out["error"] = map[string]any{"code": 404, "message": "Object does not exist"}
		}
		if l.change != nil {
			l.change(out)
		}
		objects = append(objects, out)
	}
	l.mu.Unlock()
	w.Header().Set("Content-Type", "application/vnd.git-lfs+json")
	_ = json.NewEncoder(w).Encode(map[string]any{"transfer": "basic", "objects": objects})
}

func (l *LFS) content(w http.ResponseWriter, r *http.Request) {
	oid := path.Base(r.URL.Path)
	l.mu.Lock()
	l.headers = append(l.headers, r.Header.Clone())
	serve, content, accepted := l.serve, l.objects[oid], l.accepted
	l.mu.Unlock()
	if serve != nil && serve(w, r, oid) {
		return
	}
	if r.Header.Get("X-Media-Signature") != accepted {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	_, _ = w.Write(content)
}

// PointerForms are spellings of a pointer that git-lfs's own reader takes.
func PointerForms(p string) map[string]string {
	return map[string]string{
		"as it is":       p,
		"CRLF":           strings.ReplaceAll(p, "\n", "\r\n"),
		"a leading line": "\n" + p,
		"leading blanks": "  \t\r\n" + p,
		"no last line":   strings.TrimSuffix(p, "\n"),
		"lines between":  strings.ReplaceAll(p, "\n", "\n\n"),
		"lines after":    p + "\n\n \n",
		"pre-release":    strings.Replace(p, "git-lfs.github.com", "hawser.github.com", 1),
		"first release":  strings.Replace(p, "https://git-lfs.github.com/spec/v1", "http://git-media.io/v/2", 1),
	}
}

// NotPointerForms are spellings that it does not take.
func NotPointerForms(p string) map[string]string {
	return map[string]string{
		"a byte order mark": "\ufeff" + p, "a word before": "see " + p, "a line after": p + "x y\n", "another order": "oid" + strings.SplitN(p, "oid", 2)[1] + strings.SplitN(p, "oid", 2)[0],
		"blanks in a line": strings.Replace(p, "\noid", "\n oid", 1), "a tab": strings.Replace(p, "oid ", "oid\t", 1), "version 2": strings.Replace(p, "spec/v1", "spec/v2", 1),
	}
}
