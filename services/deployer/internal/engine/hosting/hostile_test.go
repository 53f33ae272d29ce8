package hosting_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const secret = "planted-secret-8c1f"

// TestServe_hostileTree: whatever a release holds, nothing outside serve.directory and nothing hidden comes out.
func TestServe_hostileTree(t *testing.T) {
	h := newHouse(t)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret.txt"), []byte(secret), 0o644); err != nil {
		t.Fatal(err)
	}
	public := filepath.Join(h.dir, "1", "public")
	for _, name := range []string{
		".env", "beside/secret.txt", "shared/secret.txt", "public/.env", "public/.git/config", "public/.devpilot.yaml", "public/_redirects", "public/_headers",
		"public/a/.hidden/x.txt", "public/.well-known/.env", "public/a/.well-known/x.txt",
	} {
		h.write(t, 1, name, "# "+secret)
	}
	h.write(t, 2, "public/x.txt", secret)
	h.write(t, 1, "public/ok/page.txt", "fine")
	h.write(t, 1, "public/a/_headers", "fine: only the top's are hidden")
	links := map[string]string{
		"passwd": "/etc/passwd", "abs": filepath.Join(outside, "secret.txt"), "absdir": outside, "up": "../beside/secret.txt", "updir": "../beside", "top": "..",
		"far": "../../../../../../../../etc/passwd", "root": "/", "other": "../../2/public/x.txt", "env": ".env", "gitdir": ".git", "conf": ".git/config",
		"heads": "_headers", "ok/heads": "../_headers", "chain1": "chain2", "chain2": "../beside/secret.txt", "loop1": "loop2", "loop2": "loop1", "self": "self",
		"dir/x": "../..", "within": "ok/../../beside/secret.txt", "proc": "/proc/self/environ", "back": "../public/ok/page.txt", "absin": filepath.Join(public, "ok/page.txt"),
		"trail": "ok/page.txt/", "hiddenway": "a/.hidden/../../ok/page.txt",
		"good": "ok/page.txt", "gooddir": "ok", "ok/up": "../ok/page.txt", "deep/er/link": "../../ok/./page.txt", "index/index.html": "../.env", "slash": "ok//page.txt",
	}
	for name, target := range links {
		path := filepath.Join(public, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	many := "ok/page.txt"
	for i := range 40 {
		name := strings.Repeat("m", i+1)
		if err := os.Symlink(many, filepath.Join(public, name)); err != nil {
			t.Fatal(err)
		}
		many = name
	}
	if err := unix.Mkfifo(filepath.Join(public, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(public, "fifo.html"), 0o644); err != nil {
		t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(public, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	long := strings.Repeat("d/", 300)
	for target, status := range map[string]int{
		"/ok/page.txt": 200, "/good": 200, "/gooddir/page.txt": 200, "/ok/up": 200, "/deep/er/link": 200, "/slash": 200, "/mmm": 200, "/a/_headers": 200,
		"/" + strings.Repeat("m", 30): 404, "/fifo": 404, "/fifo.html": 404, "/fifo/x": 404, "/socket": 404, "/" + long + "x": 404,
		"/.env": 404, "/.git/config": 404, "/.git/": 404, "/.devpilot.yaml": 404, "/_headers": 404, "/_HEADERS": 404, "/_redirects": 404, "/a/.hidden/x.txt": 404,
		"/.well-known/.env": 404, "/a/.well-known/x.txt": 404, "/%2eenv": 404, "/updir/secret.txt": 404, "/absdir/secret.txt": 404, "/root/etc/passwd": 404,
		"/top/.env": 404, "/top/beside/secret.txt": 404, "/gitdir/config": 404, "/dir/x/beside/secret.txt": 404, "/index/": 404,
		"/..%2fbeside/secret.txt": 400, "/%2e%2e/beside/secret.txt": 400, "/ok/../../beside/secret.txt": 400, "/..%5cbeside": 400, "/ok%00.txt": 400,
		"/../../../../etc/passwd": 400, "//etc/passwd": 400, "/" + strings.Repeat("a", 255): 404, "/" + strings.Repeat("a", 256): 400, "*": 400,
	} {
		got := h.get(t, target)
		if got.err != nil || got.status != status {
			t.Errorf("%.60s: status %d, %v, want %d", target, got.status, got.err, status)
		}
		if bytes.Contains(got.body, []byte(secret)) || bytes.Contains(got.body, []byte("root:")) {
			t.Errorf("%.60s: the secret came out", target)
		}
	}
	good := map[string]bool{"good": true, "ok/up": true, "deep/er/link": true, "slash": true}
	for name := range links {
		got := h.get(t, "/"+name)
		if (got.status == 200) != good[name] || bytes.Contains(got.body, []byte(secret)) || got.status == 503 {
			t.Errorf("link %s: status %d, body %.80q", name, got.status, got.body)
		}
	}
}

func TestServe_theServedDirectoryIsNoLink(t *testing.T) {
	h := newHouse(t)
	h.write(t, 1, "secret.txt", secret)
	h.write(t, 1, "build/out/page.txt", "fine")
	for name, target := range map[string]string{"public": ".", "abs": "/", "linked": "build", "up": ".."} {
		if err := os.Symlink(target, filepath.Join(h.dir, "1", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(h.dir, "1", "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	for serve, status := range map[string]int{
		"public": 404, "abs": 404, "linked/out": 404, "up": 404, "..": 404, "build/../..": 404, "missing": 404, "secret.txt": 404, "fifo": 404, "fifo/x": 404,
		"build/out": 200, "./build/out/": 200,
	} {
		h.set(func() { h.serve = serve })
		for _, target := range []string{"/page.txt", "/secret.txt", "/1/secret.txt", "/etc/passwd"} {
			got := h.get(t, target)
			if bytes.Contains(got.body, []byte(secret)) || target == "/page.txt" && got.status != status || target != "/page.txt" && got.status != 404 {
				t.Errorf("serve.directory %s: %s has status %d", serve, target, got.status)
			}
		}
	}
	h.set(func() { h.serve = "" })
	h.get(t, "/build/out/page.txt").want(t, "the whole release", 200, "fine")
}

// TestServe_exchangedWhileWalking: a directory that becomes a link and a file that becomes a FIFO, over
// and over, never lead out and never block.
func TestServe_exchangedWhileWalking(t *testing.T) {
	h := newHouse(t)
	h.write(t, 1, "beside/page.txt", secret)
	h.write(t, 1, "public/dir/page.txt", "fine")
	public := filepath.Join(h.dir, "1", "public")
	link, fifo := filepath.Join(public, "link"), filepath.Join(public, "pipe")
	if err := os.Symlink("../beside", link); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var exchanging sync.WaitGroup
	exchanging.Go(func() {
		swap := func(a, b string) {
			if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
				t.Errorf("exchange: %v", err)
			}
		}
		for ctx.Err() == nil {
			swap(filepath.Join(public, "dir"), link)
			swap(filepath.Join(public, "dir"), link)
			swap(filepath.Join(public, "dir", "page.txt"), fifo)
			swap(filepath.Join(public, "dir", "page.txt"), fifo)
		}
	})
	seen, asked := map[int]int{}, 0
	for deadline := time.Now().Add(10 * time.Second); asked < 600 || (seen[200] == 0 || seen[404] == 0) && time.Now().Before(deadline); asked++ {
		got := h.get(t, "/dir/page.txt")
		seen[got.status]++
		if bytes.Contains(got.body, []byte(secret)) || got.err != nil && got.status != 0 {
			t.Fatalf("status %d, %v, body %.80q", got.status, got.err, got.body)
		}
	}
	stop()
	exchanging.Wait()
	if seen[200] == 0 || seen[404] == 0 || seen[200]+seen[404]+seen[503] != asked {
		t.Errorf("statuses were %v", seen)
	}
	h.get(t, "/dir/page.txt").want(t, "afterwards", http.StatusOK, "fine")
}
