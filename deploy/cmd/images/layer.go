package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const directory = tar.TypeDir

// entry is a file of a layer; a directory's name ends with a slash.
type entry struct {
	name    string
	mode    int64
	kind    byte // zero is a regular file
	link    string
	owner   int
	content []byte
}

// surroundings are what a program needs beside itself: whom it trusts, who it is, and where it may write.
func surroundings(certificates []byte) []entry {
	return []entry{
		{name: "dev/", mode: 0o755, kind: directory},
		{name: "proc/", mode: 0o555, kind: directory},
		{name: "sys/", mode: 0o555, kind: directory},
		{name: "etc/", mode: 0o755, kind: directory},
		{name: "etc/devpilot/", mode: 0o755, kind: directory},
		{name: "etc/ssl/", mode: 0o755, kind: directory},
		{name: "etc/ssl/certs/", mode: 0o755, kind: directory},
		{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, content: certificates},
		{name: "etc/passwd", mode: 0o644, content: []byte("root:x:0:0::/:/sbin/nologin\ndevpilot:x:" + user + ":" + user + "::/var/lib/devpilot:/sbin/nologin\n")},
		{name: "etc/group", mode: 0o644, content: []byte("root:x:0:\ndevpilot:x:" + user + ":\n")},
		{name: "etc/nsswitch.conf", mode: 0o644, content: []byte("passwd: files\ngroup: files\nhosts: files dns\n")},
		{name: "tmp/", mode: 0o1777, kind: directory},
		{name: "var/", mode: 0o755, kind: directory},
		{name: "var/cache/", mode: 0o755, kind: directory},
		{name: "var/cache/devpilot/", mode: 0o750, kind: directory, owner: 65532},
		{name: "var/lib/", mode: 0o755, kind: directory},
		{name: "var/lib/devpilot/", mode: 0o750, kind: directory, owner: 65532},
	}
}

// layer packs files in the order of their names; of two with one name the last counts.
func layer(entries []entry, made time.Time) (v1.Layer, error) {
	byName := map[string]entry{}
	for _, e := range entries {
		byName[e.name] = e
	}
	sorted := make([]entry, 0, len(byName))
	for _, e := range byName {
		sorted = append(sorted, e)
	}
	slices.SortFunc(sorted, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	for _, e := range sorted {
		h := &tar.Header{
			Typeflag: cmp.Or(e.kind, tar.TypeReg), Name: e.name, Linkname: e.link, Mode: e.mode, Uid: e.owner, Gid: e.owner, Size: int64(len(e.content)),
			ModTime: made, Format: tar.FormatPAX,
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed.Bytes())), nil }
	return tarball.LayerFromOpener(opener, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.DefaultCompression), tarball.WithCompressedCaching)
}

// clean is a name without what tar puts before it.
func clean(name string) string { return strings.TrimPrefix(strings.TrimPrefix(name, "."), "/") }
