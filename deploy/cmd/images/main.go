// Command images makes container images without a container engine: of each program one that is empty but for it, the
// certificates that are trusted and its user; of those that run git and hooks one with Debian's packages beside.
// Each is an OCI layout with all kinds of machines, the same bytes for the same input.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// user is who all images run as: nobody of the machine, and not root.
const user = "65532"

// images are what is made, by name; withDebian says of which programs git and hooks are part.
var (
	images     = map[string]string{"devpilot": "devpilot", "devpilot-auth": "auth", "devpilot-repo": "repo", "devpilot-webhook": "webhook", "devpilot-deployer": "deployer", "devpilot-gateway": "gateway"}
	withDebian = map[string]bool{"devpilot": true, "deployer": true}
)

// settings are said once, by the command's flags.
type settings struct {
	programs, debian, out, version string
	made                           time.Time
}

func main() {
	var s settings
	var made int64
	flag.StringVar(&s.programs, "programs", "", "directory with <arch>/<program>")
	flag.StringVar(&s.debian, "debian", "", "directory with <arch>.tar, Debian's packages unpacked")
	flag.StringVar(&s.out, "out", "", "directory for an OCI layout per image")
	flag.StringVar(&s.version, "version", "", "version of the programs")
	flag.Int64Var(&made, "time", 0, "when it was made, in seconds since 1970: the commit's time, so that it is the same each time")
	flag.Parse()
	s.made = time.Unix(made, 0).UTC()
	if err := s.run(); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func (s settings) run() error {
	indexes := map[string]v1.ImageIndex{}
	for _, arch := range []string{"amd64", "arm64"} {
		base, debian, err := s.layers(arch)
		if err != nil {
			return fmt.Errorf("%s: %w", arch, err)
		}
		for image, program := range images {
			layers := []v1.Layer{base}
			if withDebian[program] {
				layers = []v1.Layer{debian}
			}
			built, err := s.image(arch, program, layers)
			if err != nil {
				return fmt.Errorf("%s for %s: %w", image, arch, err)
			}
			if indexes[image] == nil {
				indexes[image] = mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
			}
			indexes[image] = mutate.AppendManifests(indexes[image], mutate.IndexAddendum{
				Add: built, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
			})
		}
	}
	for image, index := range indexes {
		if err := s.write(image, index); err != nil {
			return fmt.Errorf("%s: %w", image, err)
		}
	}
	return nil
}

// layers are what stands below the programs: a base with next to nothing, and one with Debian's packages.
func (s settings) layers(arch string) (base, debian v1.Layer, err error) {
	files, err := readDebian(filepath.Join(s.debian, arch+".tar"))
	if err != nil {
		return nil, nil, err
	}
	certificates, err := files.certificates()
	if err != nil {
		return nil, nil, err
	}
	own := surroundings(certificates)
	if base, err = layer(own, s.made); err != nil {
		return nil, nil, err
	}
	if err := files.contents(filepath.Join(s.out, "debian-"+arch+".cdx.json"), s.version); err != nil {
		return nil, nil, err
	}
	debian, err = layer(append(files.entries(), own...), s.made)
	return base, debian, err
}

func (s settings) image(arch, program string, layers []v1.Layer) (v1.Image, error) {
	content, err := os.ReadFile(filepath.Join(s.programs, arch, program))
	if err != nil {
		return nil, err
	}
	own, err := layer([]entry{{name: "usr/", mode: 0o755, kind: directory}, {name: "usr/bin/", mode: 0o755, kind: directory}, {name: "usr/bin/" + program, mode: 0o755, content: content}}, s.made)
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if img, err = mutate.AppendLayers(img, append(layers, own)...); err != nil {
		return nil, err
	}
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/var/lib/devpilot"}
	if withDebian[program] {
		env = append(env, "DEVPILOT_DATA_DIR=/var/lib/devpilot", "DEVPILOT_CACHE_DIR=/var/cache/devpilot")
	}
	return mutate.ConfigFile(img, &v1.ConfigFile{
		OS: "linux", Architecture: arch, Created: v1.Time{Time: s.made}, RootFS: rootFS(img),
		Config: v1.Config{
			User: user + ":" + user, Entrypoint: []string{"/usr/bin/" + program}, Env: env, WorkingDir: "/",
			Labels: map[string]string{"org.opencontainers.image.title": program, "org.opencontainers.image.version": s.version},
		},
	})
}

func rootFS(img v1.Image) v1.RootFS {
	c, err := img.ConfigFile()
	if err != nil {
		return v1.RootFS{}
	}
	return c.RootFS
}

// write writes a layout that engines load under the image's name.
func (s settings) write(image string, index v1.ImageIndex) error {
	tag, err := name.NewTag(image+":"+strings.ReplaceAll(s.version, "+", "-"), name.WithDefaultRegistry(""))
	if err != nil {
		return err
	}
	path, err := layout.Write(filepath.Join(s.out, image), empty.Index)
	if err != nil {
		return err
	}
	return path.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag.TagStr(), "io.containerd.image.name": tag.Name()}))
}
