package hosting_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
)

// sharing makes two releases whose public directory has the shared directory uploads.
func sharing(t testing.TB) (h *house, uploads string) {
	t.Helper()
	h = newHouse(t)
	h.set(func() {
		h.links = release.SharedLinks([]string{"public/uploads/", "public/.well-known/", "private/", "public/settings.json"})
	})
	uploads = filepath.Join(h.dir, "shared", "public", "uploads")
	if err := os.MkdirAll(uploads, 0o755); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 2; n++ {
		h.write(t, n, "public/index.html", "home")
		link(t, filepath.Join(h.dir, fmt.Sprint(n), "public", "uploads"), h.links["public/uploads"])
	}
	return h, uploads
}

func link(t testing.TB, at, target string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.RemoveAll(at), os.Symlink(target, at)); err != nil {
		t.Fatal(err)
	}
}

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// hourLater has all files count as settled.
func (h *house) hourLater() {
	h.set(func() { h.now = func() time.Time { return time.Now().Add(time.Hour) } })
}

func tagOf(b []byte) string {
	sum := sha256.Sum256(b)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
}

func TestShared_isServedInEveryRelease(t *testing.T) {
	h, uploads := sharing(t)
	put(t, filepath.Join(uploads, "a.txt"), "0123456789")
	put(t, filepath.Join(uploads, "album", "index.html"), "album")
	link(t, filepath.Join(uploads, "album", "b.txt"), "../a.txt")
	link(t, filepath.Join(h.dir, "1", "public", "files"), "uploads/album")
	link(t, filepath.Join(h.dir, "1", "public", ".well-known"), h.links["public/.well-known"])
	put(t, filepath.Join(h.dir, "shared", "public", ".well-known", "acme"), "token")
	tag := tagOf([]byte("0123456789"))
	for _, settled := range []bool{false, true} {
		if settled {
			h.hourLater()
		}
		for _, host := range []string{"web.default.localhost", "1--web.default.localhost", "2--web.default.localhost"} {
			got := h.ask(t, "GET", host, "/uploads/a.txt")
			got.want(t, host, 200, "0123456789")
			got.has(t, host, "Etag:"+tag, "Last-Modified:", "Content-Type: text/plain; charset=utf-8", "Accept-Ranges: bytes")
		}
		h.get(t, "/uploads/album/").want(t, "index", 200, "album")
		h.get(t, "/uploads/album").want(t, "without its slash", 301, "")
		h.get(t, "/uploads/album/b.txt").want(t, "a link within", 200, "0123456789")
		h.get(t, "/files/b.txt").want(t, "by a link of the release", 200, "0123456789")
		h.get(t, "/.well-known/acme").want(t, "well-known", 200, "token")
		h.get(t, "/uploads/a.txt", "If-None-Match: "+tag).want(t, "revalidated", 304, "")
		part := h.get(t, "/uploads/a.txt", "Range: bytes=2-4")
		part.want(t, "range", 206, "234")
		part.has(t, "range", "Content-Range: bytes 2-4/10", "Etag:"+tag)
		h.get(t, "/uploads/a.txt", "Range: bytes=2-4", "If-Range: "+tag).want(t, "if-range", 206, "234")
		h.get(t, "/uploads/a.txt", "Range: bytes=2-4", `If-Range: "other"`).want(t, "if-range of another", 200, "0123456789")
		h.get(t, "/uploads/a.txt", "If-Modified-Since: "+time.Now().UTC().Format(http.TimeFormat)).want(t, "a date counts for nothing", 200, "0123456789")
		if head := h.ask(t, "HEAD", "web.default.localhost", "/uploads/a.txt"); head.status != 200 || len(head.body) != 0 || head.header.Get("Content-Length") != "10" {
			t.Errorf("HEAD: %+v", head)
		}
		for _, target := range []string{"/uploads", "/uploads/", "/uploads/missing", "/uploads/a.txt/", "/uploads/a.txt/x", "/uploads/album/b.txt/"} {
			h.get(t, target).want(t, target, 404, "")
		}
	}
}

// TestShared_hostile: neither a release nor what is shared leads a visitor anywhere but into the app's own declared shared directories.
func TestShared_hostile(t *testing.T) {
	h, uploads := sharing(t)
	put(t, filepath.Join(uploads, "a.txt"), "fine")
	other := filepath.Join(filepath.Dir(h.dir), "other", "shared", "public", "uploads")
	put(t, filepath.Join(other, "a.txt"), secret)
	for _, name := range []string{"shared/private/a.txt", "shared/public/settings.json", "shared/undeclared/a.txt", "1/beside.txt", "shared/public/uploads/.env", "shared/public/uploads/.git/config", "shared/public/uploads/x/.y/z"} {
		put(t, filepath.Join(h.dir, filepath.FromSlash(name)), secret)
	}
	if err := unix.Mkfifo(filepath.Join(uploads, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"up": "../..", "release": "../../../1/beside.txt", "private": "../../private/a.txt", "passwd": "/etc/passwd", "root": "/", "abs": filepath.Join(h.dir, "shared", "private"),
		"env": ".env", "loop": "loop", "again": "../uploads", "shared": h.links["public/uploads"],
	} {
		link(t, filepath.Join(uploads, name), target)
	}
	public := filepath.Join(h.dir, "1", "public")
	for name, target := range map[string]string{
		"elsewhere": h.links["public/uploads"], "settings.json": "../../../shared/public/settings.json", "undeclared": "../../../shared/undeclared",
		"private": "../../shared/private", "sub/uploads": "../" + h.links["public/uploads"], "out": "uploads/../../beside.txt",
	} {
		link(t, filepath.Join(public, name), target)
	}
	refused := func(targets ...string) {
		t.Helper()
		for _, target := range targets {
			got := h.get(t, target)
			if got.err != nil || got.status != 404 || bytes.Contains(got.body, []byte(secret)) || bytes.Contains(got.body, []byte("root:")) {
				t.Errorf("%s: status %d, %v, %.80q", target, got.status, got.err, got.body)
			}
		}
	}
	refused("/uploads/.env", "/uploads/.git/config", "/uploads/x/.y/z", "/uploads/fifo", "/uploads/up/private/a.txt", "/uploads/release", "/uploads/private", "/uploads/passwd", "/uploads/root/etc/passwd",
		"/uploads/abs/a.txt", "/uploads/env", "/uploads/loop", "/uploads/again/a.txt", "/uploads/shared/a.txt", "/elsewhere/a.txt", "/settings.json", "/undeclared/a.txt", "/private/a.txt",
		"/sub/uploads/a.txt", "/out")
	h.get(t, "/uploads/a.txt").want(t, "the right link", 200, "fine")

	// What a hook may put in the link's place.
	place := filepath.Join(public, "uploads")
	for _, target := range []string{
		"/etc", "../../../../other/shared/public/uploads", other, uploads, "../../../shared", "../../../shared/private", "../../../shared/public/uploads/", "./../../../shared/public/uploads", "../../../shared/public/../public/uploads", "..", "/",
	} {
		link(t, place, target)
		refused("/uploads/a.txt", "/uploads/passwd", "/uploads/etc/passwd", "/uploads/private/a.txt", "/uploads/beside.txt")
	}
	if err := errors.Join(os.Remove(place), os.Mkdir(place, 0o755)); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(place, "a.txt"), "of the release")
	h.get(t, "/uploads/a.txt").want(t, "a directory of its own", 200, "of the release")
	link(t, place, h.links["public/uploads"])

	// No longer declared: not served, whatever the releases hold.
	links := h.links
	h.set(func() { h.links = release.SharedLinks([]string{"public/uploads"}) })
	refused("/uploads/a.txt")
	h.set(func() { h.links = links })

	// The shared directory itself, or one on the way to it, is a link; or a file.
	for _, victim := range []string{uploads, filepath.Dir(uploads)} {
		if err := os.Rename(victim, victim+".real"); err != nil {
			t.Fatal(err)
		}
		for _, target := range []string{other, filepath.Dir(other), "private", "../private", filepath.Base(victim) + ".real", "/etc"} {
			link(t, victim, target)
			refused("/uploads/a.txt", "/uploads/passwd", "/uploads/uploads/a.txt")
		}
		if err := os.Remove(victim); err != nil {
			t.Fatal(err)
		}
		refused("/uploads/a.txt") // there is none
		put(t, victim, "a file")
		refused("/uploads/a.txt", "/uploads")
		if err := errors.Join(os.Remove(victim), os.Rename(victim+".real", victim)); err != nil {
			t.Fatal(err)
		}
	}
	h.get(t, "/uploads/a.txt").want(t, "afterwards", 200, "fine")
	h.set(func() { h.closed = fmt.Errorf("nothing shared: %w", fs.ErrNotExist) })
	refused("/uploads/a.txt")
	h.set(func() { h.closed = errors.New("volume away") })
	h.get(t, "/uploads/a.txt").want(t, "trouble", 503, "")
}

// TestShared_exchangedWhileWalking: what becomes a link and a directory again, over and over, never leads out.
func TestShared_exchangedWhileWalking(t *testing.T) {
	h, uploads := sharing(t)
	put(t, filepath.Join(uploads, "dir", "a.txt"), "fine")
	put(t, filepath.Join(h.dir, "shared", "private", "dir", "a.txt"), secret)
	put(t, filepath.Join(h.dir, "shared", "private", "a.txt"), secret)
	outer, inner := filepath.Join(h.dir, "shared", "public", "outer"), filepath.Join(uploads, "inner")
	link(t, outer, "../private")
	link(t, inner, "../../private")
	stop, exchanging := make(chan struct{}), sync.WaitGroup{}
	exchanging.Go(func() {
		swap := func(a, b string) {
			if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
				t.Errorf("exchange: %v", err)
			}
		}
		for {
			select {
			case <-stop:
				return
			default:
			}
			swap(filepath.Join(uploads, "dir"), inner)
			swap(filepath.Join(uploads, "dir"), inner)
			swap(uploads, outer)
			swap(uploads, outer)
		}
	})
	seen, asked := map[int]int{}, 0
	for deadline := time.Now().Add(10 * time.Second); asked < 600 || (seen[200] == 0 || seen[404] == 0) && time.Now().Before(deadline); asked++ {
		got := h.get(t, "/uploads/dir/a.txt")
		seen[got.status]++
		if bytes.Contains(got.body, []byte(secret)) || got.err != nil && got.status != 0 {
			t.Errorf("status %d, %v, body %.80q", got.status, got.err, got.body)
			break
		}
	}
	close(stop)
	exchanging.Wait()
	if seen[200] == 0 || seen[404] == 0 || seen[200]+seen[404]+seen[503] != asked {
		t.Errorf("statuses were %v", seen)
	}
}

// rewrite changes a file's first bytes in place, and sets its modification time back.
func rewrite(t testing.TB, path, text string) {
	t.Helper()
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte(text), 0)
	if err := errors.Join(err, f.Close(), os.Chtimes(path, time.Time{}, before.ModTime())); err != nil {
		t.Fatal(err)
	}
}

// rewriteLater rewrites once the file system's clock has moved on since the last change: what counts as
// settled in these tests is younger than a tick of it.
func rewriteLater(t testing.TB, path, text string) {
	t.Helper()
	changed := func() unix.Timespec {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Ctim
	}
	before := changed()
	testkit.Eventually(t, 5*time.Second, func() error {
		rewrite(t, path, text)
		if changed() == before {
			return errors.New("the file system's clock stands still")
		}
		return nil
	})
}

func TestShared_changesInPlace(t *testing.T) {
	for name, settled := range map[string]bool{"left alone": true, "written a moment ago": false} {
		t.Run(name, func(t *testing.T) {
			h, uploads := sharing(t)
			if settled {
				h.hourLater()
			}
			path := filepath.Join(uploads, "page.html")
			text := func(i int) string { return fmt.Sprintf("<p>%04d</p>", i) + strings.Repeat("words of the page ", 200) }
			put(t, path, text(0))
			tag := h.get(t, "/uploads/page.html").header.Get("Etag")
			for i := 1; i <= 40; i++ {
				rewriteLater(t, path, text(i))
				got := h.get(t, "/uploads/page.html", "If-None-Match: "+tag)
				got.want(t, "changed", 200, text(i))
				if tag = got.header.Get("Etag"); tag != tagOf([]byte(text(i))) {
					t.Fatalf("ETag %s is not that of the content", tag)
				}
				h.get(t, "/uploads/page.html", "If-None-Match: "+tag).want(t, "unchanged", 304, "")
				zipped := h.get(t, "/uploads/page.html", "Accept-Encoding: gzip")
				zipped.want(t, "zipped", 200, "")
				if coding := zipped.header.Get("Content-Encoding"); (coding == "gzip") != settled || unpacked(t, zipped) != text(i) {
					t.Fatalf("coding %q, unpacks to %.40q", coding, unpacked(t, zipped))
				}
				part := h.get(t, "/uploads/page.html", "Range: bytes=3-6", "If-Range: "+tag)
				part.want(t, "part", 206, fmt.Sprintf("%04d", i))
			}
			rewriteLater(t, path, text(99))
			h.get(t, "/uploads/page.html", "Range: bytes=3-6", "If-Range: "+tag).want(t, "the rest of another state", 200, text(99))
		})
	}
}

// TestShared_tagsAreThoseOfTheBytes: whoever writes meanwhile, what is sent is what the ETag says.
func TestShared_tagsAreThoseOfTheBytes(t *testing.T) {
	h, uploads := sharing(t)
	path := filepath.Join(uploads, "a.bin")
	put(t, path, strings.Repeat("0", 100_000))
	stop, writing := make(chan struct{}), sync.WaitGroup{}
	writing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				rewrite(t, path, strings.Repeat(fmt.Sprint(i%10), 100_000))
			}
		}
	})
	tags := map[string]bool{}
	for range 80 {
		got := h.get(t, "/uploads/a.bin")
		if got.status == 503 || got.err != nil {
			continue // noticed
		}
		if got.status != 200 || len(got.body) != 100_000 || got.header.Get("Etag") != tagOf(got.body) {
			t.Errorf("status %d, %d bytes, ETag %s of bytes with %s", got.status, len(got.body), got.header.Get("Etag"), tagOf(got.body))
			break
		}
		tags[got.header.Get("Etag")] = true
	}
	close(stop)
	writing.Wait()
	if len(tags) < 2 {
		t.Errorf("%d states were seen", len(tags))
	}
	end, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	h.hourLater()
	for range 2 {
		h.get(t, "/uploads/a.bin").has(t, "at rest", "Etag:"+tagOf(end))
	}
}

func TestShared_largeFiles(t *testing.T) {
	h, uploads := sharing(t)
	put(t, filepath.Join(h.dir, "1", "public", "_headers"), "/uploads/*\n  Cache-Control: public, max-age=31536000, immutable\n")
	path := filepath.Join(uploads, "film.mp4")
	body := bytes.Repeat([]byte("0123456789abcdef"), 768<<10) // 12 MiB, more than sockets hold
	if err := os.WriteFile(path, body, 0o644); err != nil {
		t.Fatal(err)
	}
	fresh := h.get(t, "/uploads/film.mp4", "Range: bytes=16-19")
	fresh.want(t, "written a moment ago", 206, "0123")
	fresh.has(t, "written a moment ago", "Etag:", "Last-Modified:", "Cache-Control: no-store")
	h.hourLater()
	rested := h.get(t, "/uploads/film.mp4", "Range: bytes=16-19")
	rested.want(t, "left alone", 206, "0123")
	rested.has(t, "left alone", "Etag:"+tagOf(body), "Cache-Control: public, max-age=31536000, immutable")

	// begin asks for the file and stops reading after the first bytes.
	begin := func() *http.Response {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.WriteString(conn, "GET /uploads/film.mp4 HTTP/1.1\r\nHost: web.default.localhost\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 1<<10), nil)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	// Another file takes its place: who began with the old one gets it whole.
	resp := begin()
	other := append([]byte("other"), body...)
	if err := errors.Join(os.WriteFile(path+".new", other, 0o644), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, body) {
		t.Errorf("replaced: %d bytes, %v", len(got), err)
	}
	h.get(t, "/uploads/film.mp4", "If-None-Match: "+tagOf(body)).want(t, "the new one", 200, "other")
	// It changes in place, and its time is set back: the answer breaks off.
	resp = begin()
	rewriteLater(t, path, "OTHER")
	if got, err := io.ReadAll(resp.Body); err == nil || len(got) >= len(other) {
		t.Errorf("changed: %d bytes, %v", len(got), err)
	}
	// It grows while it is read.
	resp = begin()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = f.WriteString("more"); err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(resp.Body); err == nil || len(got) >= len(other) {
		t.Errorf("grown: %d bytes, %v", len(got), err)
	}
}
