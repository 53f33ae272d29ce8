package tree

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// TestHostileTree_lies holds our own checks to lists that git would not let through.
func TestHostileTree_lies(t *testing.T) {
	oid := strings.Repeat("1", 40)
	line := func(mode, kind, size, path string) string {
		return fmt.Sprintf("%s %s %s %7s\t%s\x00", mode, kind, oid, size, path)
	}
	blob := func(path string) string { return line(ModeFile, "blob", "1", path) }
	for name, list := range map[string]string{
		"dot dot":                blob("a/../../x"),
		"absolute":               blob("/etc/passwd"),
		"empty":                  blob(""),
		"doubled slash":          blob("a//b"),
		"dot":                    blob("./a"),
		".git":                   blob("a/.git/config"),
		".git as Windows has it": blob(".git::$INDEX_ALLOCATION/config"),
		".git and dots":          blob(".git. ./config"),
		"a file twice":           blob("a") + blob("a"),
		"a file and directory":   blob("a") + blob("a/b"),
		"a directory and file":   blob("a/b/c") + blob("a"),
		"a link and below it":    line(ModeLink, "blob", "1", "a") + blob("a/b/c"),
		"below a submodule's":    line(ModeSubmodule, "commit", "-", "a/b") + blob("a"),
		"a device":               line("060000", "blob", "1", "a"),
		"more than all":          line(ModeFile, "blob", "9223372036854775807", "a") + line(ModeFile, "blob", "9223372036854775807", "b"),
	} {
		p := &Plan{root: &Tree{Limits: Limits{Bytes: 5 << 30, Files: 250_000}}}
		err := p.read(strings.NewReader(list), &Tree{}, "")
		if err == nil {
			err = p.checkCollisions()
		}
		if !remote.HasReason(err, remote.ReasonTreeRefused) && !remote.HasReason(err, remote.ReasonRepositoryTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, list := range map[string]string{"no size": line(ModeFile, "blob", "-", "a"), "cut": "100644 blob " + oid, "negative": line(ModeFile, "blob", "-1", "a")} {
		p := &Plan{root: &Tree{Limits: Limits{Bytes: 5 << 30, Files: 250_000}}}
		if err := p.read(strings.NewReader(list), &Tree{}, ""); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestHostileTree_namesThatAVolumeTakesForOne(t *testing.T) {
	for _, c := range []struct {
		paths []string
		ok    bool
	}{
		{[]string{"a", "b/c", "b/d"}, true},
		{[]string{"README", "readme"}, false},
		{[]string{"Dir/a", "dir/b"}, false},
		{[]string{"x/Y/a", "x/y"}, false},
		{[]string{"É", "é"}, false},
	} {
		var entries []entry
		for _, p := range c.paths {
			entries = append(entries, entry{Mode: ModeFile, Path: p})
		}
		if err := foldedApart(entries); (err == nil) != c.ok {
			t.Errorf("%q: %v", c.paths, err)
		}
	}
}

// TestHostileTree_linksOfLinks: following them all would take for ever.
func TestHostileTree_linksOfLinks(t *testing.T) {
	var entries []entry
	for i := range 2000 {
		next := fmt.Sprintf("l%d/", (i+1)%2000)
		entries = append(entries, entry{Mode: ModeLink, Path: fmt.Sprintf("l%d", i), link: strings.Repeat("a/../", 300) + strings.Repeat(next, 100)})
	}
	begin := time.Now()
	if err := checkLinks(entries, ""); !remote.HasReason(err, remote.ReasonTreeRefused) {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > 2*time.Minute {
		t.Fatalf("took %v", d)
	}
}

// TestHostileTree_linksOutsideTheDirectory: which links count where an app has a directory of its own.
func TestHostileTree_linksOutsideTheDirectory(t *testing.T) {
	links := func(pairs ...string) (out []entry) {
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, entry{Mode: ModeLink, Path: pairs[i], link: pairs[i+1]})
		}
		return append(out, entry{Mode: ModeFile, Path: "site/f"})
	}
	for name, c := range map[string]struct {
		entries []entry
		ok      bool
	}{
		"absolute, beside it":          {links("tools/python", "/usr/bin/python3"), true},
		"out, beside it":               {links("out", "../../x"), true},
		"out, of a like name":          {links("site2/l", "/etc", "sit", "/etc"), true},
		"absolute, in it":              {links("site/l", "/etc"), false},
		"deep in it":                   {links("site/a/b/l", "../../../../x"), false},
		"in it, in another case":       {links("Site/l", "/etc"), false},
		"in it, out of it":             {links("site/l", "../tools/x"), true},
		"through one beside it":        {links("site/l", "../tools/python", "tools/python", "/usr/bin/python3"), false},
		"it is a link out":             {links("site", "/srv"), false},
		"it is a link":                 {links("site", "real", "real/l", "/etc"), false},
		"it is a link in another case": {links("Site", "real", "real/l", "/etc"), false},
		"empty, beside it":             {links("l", ""), false},
	} {
		if err := checkLinks(c.entries, "site"); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := checkLinks(links("a/site/l", "/etc", "a", "b"), "a/site"); err == nil {
		t.Error("a link on the way to the directory")
	}
}
