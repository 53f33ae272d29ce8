package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
)

// debian are packages, unpacked.
type debian []entry

// leftOut is what nobody needs in an image, or what differs from one time to the next.
var leftOut = []string{
	"boot/", "dev/", "etc/apt/", "home/", "media/", "mnt/", "opt/", "proc/", "run/", "srv/", "sys/", "var/cache/", "var/lib/apt/", "var/lib/dpkg/", "var/log/",
	"usr/share/bash-completion/", "usr/share/info/", "usr/share/lintian/", "usr/share/locale/", "usr/share/man/", "usr/share/bug/",
}

// status lists the packages; scanners of images read it.
const status = "var/lib/dpkg/status"

func readDebian(path string) (debian, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out debian
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		e := entry{name: clean(h.Name), mode: h.Mode, kind: h.Typeflag, link: h.Linkname}
		switch h.Typeflag {
		case tar.TypeDir, tar.TypeSymlink:
		case tar.TypeLink:
			e.link = clean(h.Linkname)
		case tar.TypeReg:
			if e.content, err = io.ReadAll(r); err != nil {
				return nil, err
			}
		default:
			continue
		}
		out = append(out, e)
	}
}

// entries are the files that an image has of the packages. None of them may change who runs it.
func (d debian) entries() []entry {
	var out []entry
	for _, e := range d {
		if e.name == "" || strings.HasPrefix(e.name, "usr/share/doc/") && e.kind != directory && !strings.HasSuffix(e.name, "/copyright") {
			continue
		}
		if e.name != status && slices.ContainsFunc(leftOut, func(p string) bool { return strings.HasPrefix(e.name, p) && e.name != p }) {
			continue
		}
		if e.kind != directory {
			e.mode &^= 0o6000
		}
		out = append(out, e)
	}
	return append(out, entry{name: "var/lib/dpkg/", mode: 0o755, kind: directory})
}

// certificates are the trusted ones in one file, as update-ca-certificates would make it.
func (d debian) certificates() ([]byte, error) {
	var all [][]byte
	for _, e := range d {
		if strings.HasPrefix(e.name, "usr/share/ca-certificates/") && strings.HasSuffix(e.name, ".crt") {
			all = append(all, append(bytes.TrimRight(e.content, "\n"), '\n'))
		}
	}
	if len(all) < 50 {
		return nil, errors.New("the packages have next to no certificates: is ca-certificates among them?")
	}
	slices.SortFunc(all, bytes.Compare)
	return bytes.Join(all, nil), nil
}

// contents lists the packages, in CycloneDX.
func (d debian) contents(path, version string) error {
	at := slices.IndexFunc(d, func(e entry) bool { return e.name == status })
	if at < 0 {
		return errors.New("the packages have no list of themselves")
	}
	var components []cyclonedx.Component
	for text := range strings.SplitSeq(string(d[at].content), "\n\n") {
		fields := map[string]string{}
		for line := range strings.Lines(text) {
			if name, value, ok := strings.Cut(line, ": "); ok {
				fields[name] = strings.TrimSpace(value)
			}
		}
		if name := fields["Package"]; name != "" {
			components = append(components, cyclonedx.Component{
				Type: cyclonedx.ComponentTypeLibrary, Name: name, Version: fields["Version"], BOMRef: "pkg:deb/debian/" + name,
				PackageURL: "pkg:deb/debian/" + name + "@" + fields["Version"] + "?arch=" + fields["Architecture"],
			})
		}
	}
	bom := cyclonedx.NewBOM()
	bom.SerialNumber = ""
	bom.Metadata = &cyclonedx.Metadata{Component: &cyclonedx.Component{Type: cyclonedx.ComponentTypeContainer, Name: "devpilot-deployer", Version: version}}
	bom.Components = &components
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(cyclonedx.NewBOMEncoder(f, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(bom), f.Close())
}
