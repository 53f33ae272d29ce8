package release

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
)

// programs are what the archives hold: all that have a directory below cmd, but for the command line, which is in
// one of them and has archives of its own.
func programs(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root(), "services/*/cmd/*/main.go"))
	if err != nil || len(found) < 7 {
		t.Fatal(found, err)
	}
	var names []string
	for _, path := range found {
		if !strings.Contains(path, "/services/cli/") {
			names = append(names, filepath.Base(filepath.Dir(path)))
		}
	}
	return names
}

// root is the repository's.
var root = sync.OnceValue(func() string {
	out, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		panic(err)
	}
	return strings.TrimSpace(string(out))
})

// scratch is for all tests; TestMain removes it.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "devpilot-release-"); err != nil {
		panic(err)
	}
	m.Run()
	_ = os.RemoveAll(scratch)
}

// release builds a snapshot into a directory; the script works in another temporary one each time.
func release(dir string) (string, error) {
	out := filepath.Join(scratch, dir)
	cmd := exec.Command(filepath.Join(root(), ".ci/release"), out, "--snapshot")
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(root(), "bin/tools")+":"+os.Getenv("PATH"), "GOWORK=")
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, said)
	}
	return out, nil
}

var first = sync.OnceValues(func() (string, error) { return release("first") })

func built(t *testing.T) string {
	t.Helper()
	dir, err := first()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// unpacked is the content of the archive for a kind of machine.
func unpacked(t *testing.T, arch string) string {
	t.Helper()
	return unpack(t, "devpilot-"+version(t)+"-linux-"+arch)
}

func unpack(t *testing.T, archive string) string {
	t.Helper()
	dir := t.TempDir()
	run(t, dir, "tar", "-xzf", filepath.Join(built(t), archive+".tar.gz"), "--strip-components=1")
	return dir
}

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// version is what the files' names say.
func version(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(built(t), "devpilot-chart-*.tgz"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	return strings.TrimSuffix(strings.TrimPrefix(filepath.Base(found[0]), "devpilot-chart-"), ".tgz")
}

func TestRelease_theSameBytesTwice(t *testing.T) {
	t.Parallel()
	one := built(t)
	two, err := release("second")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(one)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if again, err := os.ReadDir(two); err != nil || len(again) != len(names) || len(names) < 4 {
		t.Fatalf("built %v, then %v, %v", names, again, err)
	}
	for _, name := range names {
		a, err1 := os.ReadFile(filepath.Join(one, name))
		b, err2 := os.ReadFile(filepath.Join(two, name))
		if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: %v, %v; %d and %d bytes, which are not the same", name, err1, err2, len(a), len(b))
		}
	}
}

func TestRelease_programsAreStaticAndSayTheirVersion(t *testing.T) {
	t.Parallel()
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		dir := unpacked(t, arch)
		for _, name := range programs(t) {
			path := filepath.Join(dir, "bin", name)
			f, err := elf.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if f.Machine != machine {
				t.Errorf("%s for %s is for %v", name, arch, f.Machine)
			}
			for _, p := range f.Progs {
				if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
					t.Errorf("%s for %s is not static: it has a segment %v", name, arch, p.Type)
				}
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			if want := name + " " + version(t) + "\n"; arch == "amd64" {
				if got := run(t, dir, path, "--version"); got != want {
					t.Errorf("%s --version prints %q, not %q", name, got, want)
				}
			}
		}
		if entries, err := os.ReadDir(filepath.Join(dir, "bin")); err != nil || len(entries) != len(programs(t)) {
			t.Errorf("programs: %v, %v", entries, err)
		}
	}
}

// TestRelease_theCommandLineAlone runs where people work, and is a small part of the product's program.
func TestRelease_theCommandLineAlone(t *testing.T) {
	t.Parallel()
	product, err := os.Stat(filepath.Join(unpacked(t, "amd64"), "bin/devpilot"))
	if err != nil {
		t.Fatal(err)
	}
	for machine, magic := range map[string]string{
		"linux-amd64": elf.ELFMAG, "linux-arm64": elf.ELFMAG, "darwin-amd64": "\xcf\xfa\xed\xfe", "darwin-arm64": "\xcf\xfa\xed\xfe",
	} {
		dir := unpack(t, "devpilot-cli-"+version(t)+"-"+machine)
		path := filepath.Join(dir, "bin/devpilot")
		program, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(program), magic) || int64(len(program)) > product.Size()/3 {
			t.Errorf("%s: begins %q, %d bytes beside %d", machine, program[:4], len(program), product.Size())
		}
		if listed := contents(t, filepath.Join(dir, "sbom/devpilot.cdx.json")); listed["github.com/spf13/cobra"] == "" {
			t.Errorf("%s: its contents are %v", machine, listed)
		}
		if machine == "linux-amd64" {
			if got := run(t, dir, path, "--version"); !strings.Contains(got, version(t)) {
				t.Errorf("--version prints %q", got)
			}
		}
	}
}

func TestRelease_everyModuleThatIsLinkedIsInTheContents(t *testing.T) {
	t.Parallel()
	dir := unpacked(t, "amd64")
	for _, name := range programs(t) {
		info, err := buildinfo.ReadFile(filepath.Join(dir, "bin", name))
		if err != nil {
			t.Fatal(err)
		}
		listed := contents(t, filepath.Join(dir, "sbom", name+".cdx.json"))
		if len(info.Deps) < 5 {
			t.Errorf("%s has %d modules", name, len(info.Deps))
		}
		for _, d := range info.Deps {
			if v := d.Version; d.Replace == nil && listed[d.Path] != v {
				t.Errorf("%s: %s %s is in the contents as %q", name, d.Path, v, listed[d.Path])
			}
		}
		if listed["std"] == "" {
			t.Errorf("%s: Go's own library is not in the contents", name)
		}
	}
	if listed := contents(t, filepath.Join(dir, "sbom/console.cdx.json")); listed["react"] == "" {
		t.Errorf("the console's contents lack react: %v", listed)
	}
}

// contents reads a CycloneDX document: versions by name.
func contents(t *testing.T, path string) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var bom struct {
		BOMFormat  string `json:"bomFormat"`
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal(raw, &bom); err != nil || bom.BOMFormat != "CycloneDX" {
		t.Fatalf("%s: %v", path, err)
	}
	out := map[string]string{}
	for _, c := range bom.Components {
		out[c.Name] = c.Version
	}
	return out
}

func TestRelease_theChartIsOfThisVersion(t *testing.T) {
	t.Parallel()
	c, err := loader.LoadFile(filepath.Join(built(t), "devpilot-chart-"+version(t)+".tgz"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil || c.Metadata.AppVersion != version(t) || !strings.HasSuffix(version(t), strings.TrimPrefix(c.Metadata.Version, "0.0.0-")) {
		t.Errorf("%v; version %s of %s, not of %s", err, c.Metadata.Version, c.Metadata.AppVersion, version(t))
	}
}

func TestRelease_checksumsAndOriginNameEveryFile(t *testing.T) {
	t.Parallel()
	dir := built(t)
	run(t, dir, "sha256sum", "--check", "--strict", "SHA256SUMS")
	sums, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	origins, err := filepath.Glob(filepath.Join(dir, "*.provenance.json"))
	if err != nil || len(origins) != 1 {
		t.Fatal(origins, err)
	}
	raw, err := os.ReadFile(origins[0])
	if err != nil {
		t.Fatal(err)
	}
	var origin struct {
		Subject []struct {
			Name   string
			Digest struct{ SHA256 string }
		}
	}
	if err := json.Unmarshal(raw, &origin); err != nil {
		t.Fatal(err)
	}
	for _, s := range origin.Subject {
		if !strings.Contains(string(sums), s.Digest.SHA256+"  "+s.Name+"\n") {
			t.Errorf("the origin names %s with another checksum", s.Name)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "SHA256SUMS" && !strings.Contains(string(sums), "  "+e.Name()+"\n") {
			t.Errorf("%s has no checksum", e.Name())
		}
		if strings.HasPrefix(e.Name(), "devpilot-") && !strings.HasSuffix(e.Name(), ".provenance.json") &&
			!slices.ContainsFunc(origin.Subject, func(s struct {
				Name   string
				Digest struct{ SHA256 string }
			}) bool {
				return s.Name == e.Name()
			}) {
			t.Errorf("%s has no origin", e.Name())
		}
	}
}

// A release of what is no release would carry a version that means something else.
func TestRelease_isOfATagAndOfNothingElse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   string
		want string
	}{
		"no tag":       {do: "true", want: "no tag is checked out"},
		"no version":   {do: "git tag nightly", want: "the tag nightly is no version like v1.2.3"},
		"changes":      {do: "git tag v1.2.3; echo >> README.md", want: "there are changes that v1.2.3 does not have"},
		"old contents": {do: "git tag v1.2.3; mkdir ../out; touch ../out/x", want: "is not empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			script, err := os.ReadFile(filepath.Join(root(), ".ci/release"))
			if err != nil {
				t.Fatal(err)
			}
			for path, content := range map[string][]byte{".ci/release": script, "README.md": []byte("x")} {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, "tree", path)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, "tree", path), content, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			tree := filepath.Join(dir, "tree")
			run(t, tree, "bash", "-ec", "git init -q; git add .; git -c user.name=x -c user.email=x@example.com commit -qm x; "+c.do)
			cmd := exec.Command(".ci/release", "../out")
			cmd.Dir = tree
			said, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(said), c.want) {
				t.Errorf("%v: %s", err, said)
			}
		})
	}
}
