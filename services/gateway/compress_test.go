package gateway_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

// TestCompress_largeAnswers: whoever takes gzip gets a large answer compressed, with a tag of its own that 304
// and If-Match know, too; what is small is left alone, as is everybody who does not ask.
func TestCompress_largeAnswers(t *testing.T) {
	g := start(t)
	app := revision(g)
	c := g.signedIn()
	zipped, plain := with("Accept-Encoding", "br, gzip"), with("Accept-Encoding", "gzip;q=0")
	if a := c.get(appPath, zipped).want(http.StatusOK); a.header.Get("Content-Encoding") != "" || !strings.Contains(strings.Join(a.header.Values("Vary"), ","), "Accept-Encoding") {
		t.Errorf("a small answer: %v", a.header)
	}
	for i := range 200 {
		app.SharedPaths = append(app.SharedPaths, fmt.Sprintf("packages/number-%d/**", i))
	}
	large := []struct{ path, kind string }{{appPath, "application/json"}, {"/openapi.json", "application/json"}}
	for _, l := range large {
		whole, small := c.get(l.path, plain).want(http.StatusOK), c.get(l.path, zipped).want(http.StatusOK)
		if whole.header.Get("Content-Encoding") != "" || small.header.Get("Content-Encoding") != "gzip" || len(small.body) > len(whole.body)/3 {
			t.Fatalf("%s: %d bytes plain, %d compressed (%v)", l.path, len(whole.body), len(small.body), small.header)
		}
		for _, a := range []*answer{whole, small} {
			if a.header.Get("Content-Length") != fmt.Sprint(len(a.body)) || a.header.Get("Content-Type") != l.kind {
				t.Errorf("%s: %v", l.path, a.header)
			}
		}
		unzip, err := gzip.NewReader(bytes.NewReader(small.body))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(unzip); err != nil || !bytes.Equal(got, whole.body) {
			t.Errorf("%s: %v, unpacked %d of %d bytes", l.path, err, len(got), len(whole.body))
		}
		one, other := whole.header.Get("ETag"), small.header.Get("ETag")
		if one == "" || one == other { // strong tags are of one encoding (RFC 9110 section 8.8.3.3)
			t.Errorf("%s: the tags are %s and %s", l.path, one, other)
		}
		for _, tag := range []string{one, other} {
			for _, how := range []change{plain, zipped} {
				if a := c.get(l.path, how, with("If-None-Match", tag)).want(http.StatusNotModified); len(a.body) > 0 || a.header.Get("Content-Encoding") != "" {
					t.Errorf("%s: 304 with %v", l.path, a.header)
				}
			}
		}
		c.get(l.path, zipped, with("If-None-Match", `"another"`)).want(http.StatusOK)
	}
	tag := c.get(appPath, zipped).header.Get("ETag")
	c.send(http.MethodPatch, appPath, `{}`, with("If-Match", tag)).want(http.StatusOK)
	g.deployer.on("GetApp", func(context.Context, proto.Message) (proto.Message, error) {
		return nil, fmt.Errorf("broken: %s", strings.Repeat("x", 9000))
	})
	if a := c.get(appPath, zipped); a.header.Get("Content-Encoding") != "" {
		t.Errorf("a failure is compressed: %v", a.header)
	}
}
