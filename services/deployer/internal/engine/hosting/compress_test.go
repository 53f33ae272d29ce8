package hosting_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// pack compresses as a build tool would.
func pack(t testing.TB, ext, text string) string {
	t.Helper()
	var buf bytes.Buffer
	var w io.WriteCloser
	switch ext {
	case ".gz":
		fast, err := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
		if err != nil {
			t.Fatal(err)
		}
		w = fast
	case ".br":
		w = brotli.NewWriter(&buf)
	case ".zst":
		enc, err := zstd.NewWriter(&buf)
		if err != nil {
			t.Fatal(err)
		}
		w = enc
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

func unpacked(t testing.TB, a answer) string {
	t.Helper()
	var r io.Reader = bytes.NewReader(a.body)
	var err error
	switch a.header.Get("Content-Encoding") {
	case "gzip":
		r, err = gzip.NewReader(r)
	case "br":
		r = brotli.NewReader(r)
	case "zstd":
		r, err = zstd.NewReader(r, zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderConcurrency(1))
	}
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

func script(size int) string { return strings.Repeat("function f(a){return a+1}\n", size/26+1)[:size] }

func TestCompression_negotiated(t *testing.T) {
	h := newHouse(t)
	noise := make([]byte, 4000)
	for i := range noise {
		noise[i] = byte(rand.Uint32()) // no secret
	}
	for name, text := range map[string]string{
		"app.js": script(50_000), "small.js": script(1023), "large.js": script(4<<20 + 1), "photo.jpg": script(5000), "noise.txt": string(noise), "app.css": script(2000),
	} {
		h.write(t, 1, "public/"+name, text)
	}
	for _, tc := range []struct {
		name, accept, coding string
	}{
		{"app.js", "", ""}, {"app.js", "gzip, deflate, br, zstd", "zstd"}, {"app.js", "gzip", "gzip"}, {"app.js", "gzip, zstd;q=0", "gzip"},
		{"app.js", "zstd;q=0.5, gzip;q=0.6", "gzip"}, {"app.js", "br", ""}, {"app.js", "gzip;q=0", ""}, {"app.js", "*", "zstd"}, {"app.css", "gzip", "gzip"},
		{"small.js", "gzip", ""}, {"large.js", "gzip", ""}, {"photo.jpg", "gzip", ""}, {"noise.txt", "gzip", ""},
	} {
		what := tc.name + " for " + tc.accept
		var headers []string
		if tc.accept != "" {
			headers = append(headers, "Accept-Encoding: "+tc.accept)
		}
		plain := h.get(t, "/"+tc.name)
		for i := range 2 { // made, then from the cache
			if i > 0 && tc.name == "large.js" {
				break
			}
			got := h.get(t, "/"+tc.name, headers...)
			got.want(t, what, 200, "")
			vary := "Accept-Encoding"
			if tc.name == "photo.jpg" {
				vary = ""
			}
			got.has(t, what, "Content-Encoding: "+tc.coding, "Content-Length: "+fmt.Sprint(len(got.body)), "Vary: "+vary,
				"Content-Type: "+plain.header.Get("Content-Type"), "Last-Modified: "+plain.header.Get("Last-Modified"))
			if unpacked(t, got) != string(plain.body) {
				t.Errorf("%s: another content", what)
			}
			tag := strings.TrimSuffix(plain.header.Get("Etag"), `"`)
			if tc.coding != "" {
				tag += "-" + tc.coding
			}
			got.has(t, what, "Etag: "+tag+`"`)
			again := h.get(t, "/"+tc.name, append(headers, "If-None-Match: "+tag+`"`)...)
			again.want(t, what+" again", 304, "")
			again.has(t, what+" again", "Vary: "+vary, "Etag: "+tag+`"`)
			head := h.ask(t, "HEAD", "web.default.localhost", "/"+tc.name, headers...)
			head.has(t, "HEAD "+what, "Content-Encoding: "+tc.coding, "Content-Length: "+fmt.Sprint(len(got.body)))
		}
	}
	coded := h.get(t, "/app.js", "Accept-Encoding: gzip").header.Get("Etag")
	resumed := h.get(t, "/app.js", "Accept-Encoding: gzip", "Range: bytes=10-19", "If-Range: "+coded)
	resumed.want(t, "a range of the coded form", 200, script(50_000))
	resumed.has(t, "a range of the coded form", "Content-Encoding:")
}

func TestCompression_filesBeside(t *testing.T) {
	h := newHouse(t)
	text := script(50_000)
	for _, name := range []string{"app.js", "stale.js", "bomb.js", "large.js", "linked.js", "pipe.js", "photo.jpg"} {
		h.write(t, 1, "public/"+name, text)
	}
	large := script(4<<20 + 1)
	h.write(t, 1, "public/large.js", large)
	h.write(t, 1, "public/large.js.gz", pack(t, ".gz", large))
	for _, ext := range []string{".gz", ".br", ".zst"} {
		h.write(t, 1, "public/app.js"+ext, pack(t, ext, text))
		h.write(t, 1, "public/stale.js"+ext, pack(t, ext, text[:49_999]+"x"))
		h.write(t, 1, "public/bomb.js"+ext, pack(t, ext, strings.Repeat("a", 500_000)))
		h.write(t, 1, "public/photo.jpg"+ext, "whatever")
		h.write(t, 1, "beside.js"+ext, pack(t, ext, text))
		if err := os.Symlink("../beside.js"+ext, filepath.Join(h.dir, "1/public/linked.js"+ext)); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(h.dir, "1/public/pipe.js"+ext), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name, accept, coding, tag string
	}{
		{"app.js", "gzip, br, zstd", "br", "br"}, {"app.js", "gzip, zstd", "zstd", "zst"}, {"app.js", "gzip", "gzip", "gz"}, {"app.js", "br;q=0.1, gzip", "gzip", "gz"},
		{"stale.js", "br", "", ""}, {"stale.js", "gzip, br, zstd", "zstd", "zstd"}, {"stale.js", "gzip", "gzip", "gzip"},
		{"bomb.js", "gzip, br, zstd", "zstd", "zstd"}, {"linked.js", "gzip, br", "gzip", "gzip"}, {"pipe.js", "gzip, br", "gzip", "gzip"},
		{"large.js", "gzip, br, zstd", "gzip", "gz"}, {"photo.jpg", "gzip", "", ""},
	} {
		plain := h.get(t, "/"+tc.name)
		got := h.get(t, "/"+tc.name, "Accept-Encoding: "+tc.accept)
		what := tc.name + " for " + tc.accept
		got.want(t, what, 200, "")
		tag := strings.TrimSuffix(plain.header.Get("Etag"), `"`)
		if tc.tag != "" {
			tag += "-" + tc.tag
		}
		got.has(t, what, "Content-Encoding: "+tc.coding, "Etag: "+tag+`"`, "Content-Type: "+plain.header.Get("Content-Type"), "Content-Length: "+fmt.Sprint(len(got.body)))
		if unpacked(t, got) != string(plain.body) {
			t.Errorf("%s: another content", what)
		}
	}
	own := h.get(t, "/app.js.gz", "Accept-Encoding: gzip")
	own.has(t, "the file itself", "Content-Type: application/gzip", "Content-Encoding:")

	// The build writes the script anew and forgets what lies beside it.
	h.write(t, 1, "public/app.js", text[:49_999]+"y")
	got := h.get(t, "/app.js", "Accept-Encoding: br, gzip")
	got.has(t, "after a rewrite", "Content-Encoding: gzip")
	if unpacked(t, got) != text[:49_999]+"y" {
		t.Error("after a rewrite: the old content")
	}
}

// TestServe_rewrittenInPlace: the same size and the same modification time hide nothing.
func TestServe_rewrittenInPlace(t *testing.T) {
	h := newHouse(t)
	path := h.write(t, 1, "public/app.js", script(5000))
	when := time.Now().Add(-time.Hour)
	tags := map[string]bool{}
	for i := range 20 {
		text := fmt.Sprintf("%04d", i) + script(4996)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
		got := h.get(t, "/app.js", "Accept-Encoding: gzip")
		if unpacked(t, got) != text {
			t.Fatalf("write %d: another content", i)
		}
		tags[got.header.Get("Etag")] = true
	}
	if len(tags) != 20 {
		t.Errorf("20 contents had %d ETags", len(tags))
	}
}

func TestServe_manyAtOnce(t *testing.T) {
	h := newHouse(t)
	for release := 1; release <= 2; release++ {
		for i := range 8 {
			h.write(t, release, fmt.Sprintf("public/%d.js", i), fmt.Sprintf("// release %d\n", release)+script(20_000+i))
		}
		h.write(t, release, "public/_headers", "/*\n  X-Site: :splat\n")
	}
	var visitors sync.WaitGroup
	for v := range 8 {
		visitors.Go(func() {
			for i := range 40 {
				accept := []string{"gzip", "zstd", "br", "identity"}[i%4]
				release := int32(1 + (i+v)%2)
				h.set(func() { h.current = release })
				got := h.get(t, fmt.Sprintf("/%d.js", i%8), "Accept-Encoding: "+accept)
				plain := unpacked(t, got)
				if got.status != 200 || plain[:len("// release ")] != "// release " || len(plain) != len("// release 1\n")+20_000+i%8 {
					t.Errorf("status %d with %d bytes", got.status, len(plain))
				}
			}
		})
	}
	visitors.Wait()
}
