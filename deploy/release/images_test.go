package release

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// image is what a layout of the release holds for a kind of machine.
func image(t *testing.T, name, arch string) v1.Image {
	t.Helper()
	dir := t.TempDir()
	run(t, dir, "tar", "-xf", filepath.Join(built(t), name+"-image-"+version(t)+".tar"))
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	top, err := index.IndexManifest()
	if err != nil || len(top.Manifests) != 1 {
		t.Fatal(top, err)
	}
	if got := top.Manifests[0].Annotations["io.containerd.image.name"]; got != name+":"+version(t) {
		t.Errorf("%s is loaded as %s", name, got)
	}
	all, err := index.ImageIndex(top.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := all.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range manifest.Manifests {
		if m.Platform.Architecture == arch {
			img, err := all.Image(m.Digest)
			if err != nil {
				t.Fatal(err)
			}
			return img
		}
	}
	t.Fatalf("%s has nothing for %s: %+v", name, arch, manifest.Manifests)
	return nil
}

// rootOf unpacks an image as an engine does.
func rootOf(t *testing.T, img v1.Image) string {
	t.Helper()
	dir := t.TempDir()
	content := mutate.Extract(img)
	defer content.Close()
	cmd := exec.Command("tar", "-x", "--same-permissions", "--no-same-owner", "-C", dir)
	cmd.Stdin = content
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	return dir
}

// inside is a command in the image's root, read-only, as its user and without capabilities, as an engine starts it;
// with a /proc that nothing covers, as hooks need it.
func inside(t *testing.T, root string, img v1.Image, args ...string) *exec.Cmd {
	t.Helper()
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	user, _, _ := strings.Cut(c.Config.User, ":")
	box := []string{
		"--ro-bind", root, "/", "--bind", "/proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--unshare-user", "--uid", user, "--gid", user,
		"--cap-drop", "ALL", "--new-session", "--die-with-parent", "--clearenv", "--chdir", c.Config.WorkingDir,
	}
	for _, e := range c.Config.Env {
		name, value, _ := strings.Cut(e, "=")
		box = append(box, "--setenv", name, value)
	}
	for _, dir := range []string{"/var/lib/devpilot", "/var/cache/devpilot"} {
		box = append(box, "--tmpfs", dir)
	}
	if len(args) > 0 && strings.HasPrefix(args[0], "-") {
		args = append(append([]string{}, c.Config.Entrypoint...), args...)
	}
	cmd := exec.CommandContext(t.Context(), "bwrap", append(append(box, "--"), args...)...)
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

var small = []string{"devpilot-auth", "devpilot-repo", "devpilot-webhook", "devpilot-gateway"}

func TestImages_runAsTheirUserOnAReadOnlyRoot(t *testing.T) {
	t.Parallel()
	for _, name := range append([]string{"devpilot", "devpilot-deployer"}, small...) {
		img := image(t, name, "amd64")
		said, err := inside(t, rootOf(t, img), img, "--version").CombinedOutput()
		if program := strings.TrimPrefix(name, "devpilot-"); err != nil || string(said) != program+" "+version(t)+"\n" {
			t.Errorf("%s: %v: %s", name, err, said)
		}
		c, err := img.ConfigFile()
		if err != nil || c.Config.User != "65532:65532" || c.Architecture != "amd64" {
			t.Errorf("%s: %v, runs as %s for %s", name, err, c.Config.User, c.Architecture)
		}
		if other, err := image(t, name, "arm64").ConfigFile(); err != nil || other.Architecture != "arm64" {
			t.Errorf("%s for arm64: %v %v", name, other, err)
		}
	}
}

// What is not in an image cannot be used against it.
func TestImages_holdAProgramAndCertificatesAndNoMore(t *testing.T) {
	t.Parallel()
	for _, name := range small {
		var files []string
		content := mutate.Extract(image(t, name, "amd64"))
		for r := tar.NewReader(content); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Mode&0o6000 != 0 {
				t.Errorf("%s: %s changes who runs it", name, h.Name)
			}
			if h.Typeflag != tar.TypeDir {
				files = append(files, h.Name)
			}
		}
		want := "etc/group etc/nsswitch.conf etc/passwd etc/ssl/certs/ca-certificates.crt usr/bin/" + strings.TrimPrefix(name, "devpilot-")
		if err := content.Close(); err != nil {
			t.Error(err)
		}
		if !sameWords(strings.Join(files, " "), want) {
			t.Errorf("%s holds %v", name, files)
		}
	}
}

func sameWords(a, b string) bool {
	have := map[string]bool{}
	for _, w := range strings.Fields(a) {
		have[w] = true
	}
	for _, w := range strings.Fields(b) {
		if !have[w] {
			return false
		}
	}
	return len(have) == len(strings.Fields(b))
}

// lines collects what a program says, and closes found once it has said something.
type lines struct {
	mu    sync.Mutex
	text  bytes.Buffer
	want  string
	found chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	had := strings.Contains(l.text.String(), l.want)
	l.text.Write(p)
	if !had && strings.Contains(l.text.String(), l.want) {
		close(l.found)
	}
	return len(p), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// The all-in-one image has the deployer's packages: git, and what hooks need. It says at its start how they run.
func TestImages_gitAndHooksWorkWithin(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"devpilot", "devpilot-deployer"} {
		img := image(t, name, "amd64")
		root := rootOf(t, img)
		said, err := inside(t, root, img, "/bin/sh", "-c", "git --version && slirp4netns --version && ip -V && id -u").CombinedOutput()
		if err != nil || !strings.HasSuffix(string(said), "\n65532\n") {
			t.Errorf("%s: %v: %s", name, err, said)
		}
	}
	img := image(t, "devpilot", "amd64")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := inside(t, rootOf(t, img), img, "--emulator", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--emulator-listen", "127.0.0.1:0", "--live-listen", "")
	out := &lines{want: "in a sandbox (bubblewrap)", found: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-out.found:
		_ = cmd.Process.Kill()
		<-ended
	case err := <-ended:
		t.Errorf("ended: %v: %s", err, out)
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		<-ended
		t.Errorf("hooks do not run in a sandbox within the image: %s", out)
	}
}

func TestImages_everyDebianPackageIsInTheContents(t *testing.T) {
	t.Parallel()
	for _, arch := range []string{"amd64", "arm64"} {
		listed := contents(t, filepath.Join(built(t), "devpilot-image-debian-"+arch+"-"+version(t)+".cdx.json"))
		for _, want := range []string{"git", "bubblewrap", "slirp4netns", "iproute2", "libc6", "ca-certificates"} {
			if listed[want] == "" {
				t.Errorf("%s: %s is not in the contents", arch, want)
			}
		}
		status, err := os.ReadFile(filepath.Join(rootOf(t, image(t, "devpilot-deployer", arch)), "var/lib/dpkg/status"))
		if err != nil || strings.Count(string(status), "\nStatus: install ok installed\n") != len(listed) {
			t.Errorf("%s: %v; %d packages in the contents", arch, err, len(listed))
		}
	}
}
