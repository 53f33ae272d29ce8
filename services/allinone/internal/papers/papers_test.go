package papers

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

var tree = map[string]string{
	"README.md":                      "Read [the design](services/DESIGN.md#the-switch), then a service's `doc.go`. `TestSwitch_holds` tells.\n",
	"services/DESIGN.md":             "# Design\n\n## The switch\n\n### 4.2 Numbers\n",
	"services/a/doc.go":              "// Package a is one (DESIGN.md#the-switch). The store is store.go, and\n// internal/store holds the rest; \"nothing.go\" is in nats.go.\npackage a\n",
	"services/a/store.go":            "package a\n\nconst url = \"http://gone.md\" // as DESIGN.md section 4.2 has it\n",
	"services/a/internal/store/s.go": "// Package store: see services/a/doc.go.\npackage store\n",
	"services/a/a_test.go":           "package a\n\nfunc TestSwitch_holds(t *testing.T) {}\n",
}

func check(t *testing.T, change map[string]string) []string {
	t.Helper()
	fsys := fstest.MapFS{}
	var names []string
	put := func(name, text string) {
		if _, ok := fsys[name]; !ok {
			names = append(names, name)
		}
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	for name, text := range tree {
		put(name, strings.Replace(text, `"nothing.go" is in`, "the client is", 1))
	}
	for name, text := range change {
		put(name, text)
	}
	faults, err := Check(fsys, names)
	if err != nil {
		t.Fatal(err)
	}
	return faults
}

func TestCheck_whatIsThereMayBeCited(t *testing.T) {
	if faults := check(t, nil); len(faults) > 0 {
		t.Errorf("faults in a tree without any:\n%s", strings.Join(faults, "\n"))
	}
}

// Each line is wrong in one way: the check must notice it, whoever says it.
func TestCheck_noticesWhatIsGone(t *testing.T) {
	for name, c := range map[string]struct{ file, text, want string }{
		"a document":              {"services/a/x.go", "// As paper.md says.\npackage a\n", "names paper.md"},
		"a document of old":       {"services/a/x.go", "// As design.md section 5 says.\npackage a\n", "names design.md"},
		"a file beside":           {"services/a/x.go", "// It is stored (gone.go).\npackage a\n", "names gone.go"},
		"a file with a path":      {"services/a/x.go", "// It is stored by internal/store/gone.go.\npackage a\n", "internal/store/gone.go"},
		"a directory":             {"README.md", "Read `services/a/internal/gone` first.\n", "names services/a/internal/gone"},
		"an anchor":               {"services/a/x.go", "// It switches (DESIGN.md#the-gone).\npackage a\n", "cites DESIGN.md#the-gone"},
		"an anchor on a new line": {"services/a/x.go", "// It switches (see\n// DESIGN.md#the-gone).\npackage a\n", "cites DESIGN.md#the-gone"},
		"a number":                {"services/a/x.go", "// It switches (DESIGN.md section 9).\npackage a\n", "cites section 9"},
		"a number broken apart":   {"services/a/x.go", "// It switches (DESIGN.md section\n// 9).\npackage a\n", "cites section 9"},
		"a link":                  {"README.md", "[gone](services/GONE.txt)\n", "links to services/GONE.txt"},
		"a link's anchor":         {"README.md", "[gone](services/DESIGN.md#gone)\n", "no heading"},
		"a test":                  {"README.md", "`TestSwitch_gone` tells.\n", "names the test TestSwitch_gone"},
		"in TypeScript":           {"console/x.ts", "  // as ./gone.ts does\n", "gone.ts"},
		"in a proto":              {"proto/x.proto", "// See DESIGN.md#the-gone.\n", "cites DESIGN.md#the-gone"},
		"in a script":             {".ci/x", "# as .ci/gone does\n", "names .ci/gone"},
	} {
		t.Run(name, func(t *testing.T) {
			faults := check(t, map[string]string{c.file: c.text})
			if !slices.ContainsFunc(faults, func(f string) bool { return strings.HasPrefix(f, c.file+":") && strings.Contains(f, c.want) }) {
				t.Errorf("%q in %s: faults are %q, want one of %q", c.text, c.file, faults, c.want)
			}
		})
	}
}

// A comment counts on any file of the package but a test, and only right above the package clause.
func TestPackages_eachSaysWhatItIsFor(t *testing.T) {
	fsys, names := fstest.MapFS{}, []string{}
	for name, text := range map[string]string{
		"a/a.go":           "package a\n",
		"a/doc.go":         "// Package a is one.\npackage a\n",
		"b/b.go":           "// Apart from it.\n\npackage b\n",
		"b/b_test.go":      "// Package b is tested.\npackage b\n",
		"c/c.go":           "//go:build linux\n\npackage c\n",
		"d/d_test.go":      "package d\n",
		"proto/gen/e/e.go": "package e\n",
	} {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
		names = append(names, name)
	}
	faults, err := Packages(fsys, names)
	if err != nil || len(faults) != 2 || !strings.HasPrefix(faults[0], "b:") || !strings.HasPrefix(faults[1], "c:") {
		t.Errorf("%q, %v: want b and c", faults, err)
	}
}

func TestFaults_thisRepositoryHasNone(t *testing.T) {
	faults, err := Faults(t.Context(), "../../../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		t.Error(f)
	}
}
