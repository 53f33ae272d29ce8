// Package papers holds documents and comments to what is there: a file, directory, heading or test
// that one of them names must exist. It reads what git tracks and depends on nothing of ours.
//
// Flow: [Faults] lists the tracked files, takes from each the text that people read (comments of
// code, all of a Markdown file), finds the citations in it (cite.go) and looks each of them up. Then it asks each Go package for a
// comment (packages.go).
package papers

import (
	"bytes"
	"context"
	"fmt"
	"go/scanner"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
)

// Faults returns one line per citation in the tree at root that leads nowhere, and per Go package that
// does not say what it is for.
func Faults(ctx context.Context, root string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return nil, fmt.Errorf("list the tracked files: %w", err)
	}
	var names []string
	for _, name := range strings.Split(strings.TrimRight(string(out), "\x00"), "\x00") {
		if _, err := os.Stat(filepath.Join(root, name)); err == nil {
			names = append(names, name)
		}
	}
	cited, err := Check(os.DirFS(root), names)
	if err != nil {
		return nil, err
	}
	silent, err := Packages(os.DirFS(root), names)
	return append(cited, silent...), err
}

// Check returns the citations that lead nowhere in the given files of a tree, in order.
func Check(tree fs.FS, names []string) ([]string, error) {
	h := &house{files: map[string]bool{}, dirs: map[string]bool{".": true}, headings: map[string]map[string]bool{}, tests: map[string]bool{}}
	texts := map[string][]byte{}
	for _, name := range names {
		h.files[name] = true
		for d := path.Dir(name); d != "."; d = path.Dir(d) {
			h.dirs[d] = true
		}
		if !readable(name) {
			continue
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		texts[name] = text
		h.learn(name, text)
	}
	h.sorted = append(slices.Sorted(maps.Keys(h.files)), slices.Sorted(maps.Keys(h.dirs))...)
	var faults []string
	for name, text := range texts {
		for _, l := range prose(name, text) {
			for _, why := range h.faultsOf(name, l.text) {
				faults = append(faults, fmt.Sprintf("%s:%d: %s", name, l.number, why))
			}
		}
	}
	sort.Strings(faults)
	return faults, nil
}

type house struct {
	files, dirs map[string]bool
	sorted      []string                   // the files, then the directories
	headings    map[string]map[string]bool // of each Markdown file: its anchors, and its numbers as "#4.2"
	tests       map[string]bool
}

var (
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	heading  = regexp.MustCompile(`(?m)^#+ +(.+?) *$`)
	numbered = regexp.MustCompile(`^(\d+(?:\.\d+)*)\.? `)
	noSlug   = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// learn takes from a file what others may cite.
func (h *house) learn(name string, text []byte) {
	if strings.HasSuffix(name, "_test.go") {
		for _, m := range testFunc.FindAllSubmatch(text, -1) {
			h.tests[string(m[1])] = true
		}
	}
	if path.Ext(name) != ".md" {
		return
	}
	anchors := map[string]bool{}
	for _, m := range heading.FindAllSubmatch(text, -1) {
		title := strings.ToLower(string(m[1]))
		if n := numbered.FindStringSubmatch(title); n != nil {
			anchors["#"+n[1]] = true
		}
		anchors[strings.ReplaceAll(noSlug.ReplaceAllString(title, ""), " ", "-")] = true
	}
	h.headings[name] = anchors
}

// readable says whether people read the file as text of ours.
func readable(name string) bool {
	switch {
	case strings.HasPrefix(name, "proto/gen/"), strings.Contains(name, "/testdata/"), path.Base(name) == "package-lock.json":
		return false
	case strings.HasPrefix(name, ".ci/"), path.Base(name) == "Makefile", path.Base(name) == "Dockerfile":
		return true
	}
	switch path.Ext(name) {
	case ".md", ".go", ".proto", ".ts", ".tsx", ".css", ".yml", ".yaml", ".sh", ".js":
		return true
	}
	return false
}

type line struct {
	number int
	text   string
}

// prose returns the lines of a file that are prose: all of a document, the comments of code. A
// comment over several lines is one line, so that what is broken between them is found.
func prose(name string, text []byte) []line {
	switch path.Ext(name) {
	case ".md":
		return document(text)
	case ".go":
		return goComments(text)
	case ".proto", ".ts", ".tsx", ".css", ".js":
		return comments(text, regexp.MustCompile(`(?:^|\s)(?://|/\*+|\*)(?:\s(.*)|$)`))
	default:
		return comments(text, regexp.MustCompile(`(?:^|\s)#+\s(.*)`))
	}
}

// document leaves out what is fenced: examples of commands, trees and logs.
func document(text []byte) []line {
	var lines []line
	fenced := false
	for i, l := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(strings.TrimSpace(l), "```") {
			fenced = !fenced
		} else if !fenced {
			lines = append(lines, line{i + 1, l})
		}
	}
	return lines
}

func goComments(text []byte) []line {
	set := token.NewFileSet()
	file := set.AddFile("", set.Base(), len(text))
	var s scanner.Scanner
	s.Init(file, text, nil, scanner.ScanComments)
	var lines []line
	last := -1
	for {
		pos, tok, lit := s.Scan()
		if tok == token.EOF {
			return lines
		}
		if tok != token.COMMENT || strings.HasPrefix(lit, "//go:") {
			continue
		}
		at := set.Position(pos).Line
		said := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(lit, "//"), "/*"), "*/")
		if at == last+1 && len(lines) > 0 {
			lines[len(lines)-1].text += " " + strings.TrimSpace(said)
		} else {
			lines = append(lines, line{at, said})
		}
		last = at
	}
}

func comments(text []byte, mark *regexp.Regexp) []line {
	var lines []line
	last := -1
	for i, l := range bytes.Split(text, []byte("\n")) {
		m := mark.FindSubmatch(l)
		if m == nil {
			continue
		}
		if i == last+1 && len(lines) > 0 {
			lines[len(lines)-1].text += " " + strings.TrimSpace(string(m[1]))
		} else {
			lines = append(lines, line{i + 1, string(m[1])})
		}
		last = i
	}
	return lines
}
