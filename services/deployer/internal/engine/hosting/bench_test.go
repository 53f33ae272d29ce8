package hosting_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"devpilot.io/bitbucket/services/deployer/internal/engine/hosting"
)

// quiet is a ResponseWriter that costs nothing, so that what is measured is ours.
type quiet struct{ header http.Header }

func (q *quiet) Header() http.Header         { return q.header }
func (q *quiet) Write(p []byte) (int, error) { return len(p), nil }
func (q *quiet) WriteHeader(int)             {}

// BenchmarkHandler is a request to the handler alone: find, open, read, write.
func BenchmarkHandler(b *testing.B) {
	r := &releases{dir: b.TempDir(), current: 1, serve: "public"}
	r.write(b, 1, "public/assets/js/app.js", script(4000))
	r.write(b, 1, "public/plain/index.html", script(4000))
	server, err := hosting.New(hosting.Config{Sites: r, Host: "localhost"})
	if err != nil {
		b.Fatal(err)
	}
	r.write(b, 2, "public/assets/js/app.js", script(4000))
	r.write(b, 2, "public/_headers", "/*\n  X-Site: yes\n/assets/*\n  ! Cache-Control\n  Cache-Control: immutable\n")
	for _, bc := range []struct{ name, host, target, accept string }{
		{"plain", "1--web.default.localhost", "/assets/js/app.js", ""},
		{"index", "1--web.default.localhost", "/plain/", ""},
		{"zstd", "1--web.default.localhost", "/assets/js/app.js", "gzip, deflate, br, zstd"},
		{"headersFile", "2--web.default.localhost", "/assets/js/app.js", ""},
		{"notFound", "1--web.default.localhost", "/missing", ""},
	} {
		b.Run(bc.name, func(b *testing.B) {
			req := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "http://"+bc.host+bc.target, nil)
			req.Header.Set("Accept-Encoding", bc.accept)
			handler := server.Handler()
			b.ReportAllocs()
			for b.Loop() {
				handler.ServeHTTP(&quiet{make(http.Header)}, req)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
		})
	}
}

// BenchmarkServer is the same over loopback connections that are kept, client included.
func BenchmarkServer(b *testing.B) {
	h := newHouse(b)
	h.write(b, 1, "public/assets/js/app.js", script(4000))
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	defer transport.CloseIdleConnections()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		buf := make([]byte, 8<<10)
		for pb.Next() {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://"+h.addr+"/assets/js/app.js", nil)
			if err != nil {
				b.Fatal(err)
			}
			req.Host = "web.default.localhost"
			resp, err := transport.RoundTrip(req)
			if err != nil {
				b.Fatal(err)
			}
			n := 0
			for {
				read, err := resp.Body.Read(buf)
				if n += read; err != nil {
					break
				}
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK || n != 4000 {
				b.Fatalf("status %d, %d bytes", resp.StatusCode, n)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}
