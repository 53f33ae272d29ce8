package papers

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

var (
	// A file of ours by its name's end, with a heading where one is named. Other endings (.json, .html)
	// are mostly those of what users deploy: they are looked up where a directory of ours is before them.
	ours = regexp.MustCompile(`(^|[^\w./:@*<>{}$…~-])((?:\.{1,2}/)*(?:\.?[A-Za-z0-9_-]+/)*[A-Za-z0-9_.-]*[A-Za-z0-9_-]\.(?:md|go|proto|tsx?|mjs|binpb))(#[\w-]+)?($|[^\w/*<{…(-])`)
	// A directory or file below one of ours.
	below = regexp.MustCompile(`(^|[^\w./:@*<>{}$…~-])((?:\.\./)*(?:[a-z0-9_-]+/)*(?:internal|pkg|services|proto|deploy|cmd|\.ci)/[A-Za-z0-9_./-]*[A-Za-z0-9_-])`)
	// A section by its number.
	section  = regexp.MustCompile("([A-Za-z0-9_/-]+\\.md)`?,? sections? (\\d+(?:\\.\\d+)*)")
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	testName = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w+)`")
)

// faultsOf says what is wrong with the citations in a line of the file.
func (h *house) faultsOf(name, text string) []string {
	var faults []string
	add := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	for _, m := range ours.FindAllStringSubmatch(text, -1) {
		cited, anchor := m[2], strings.TrimPrefix(m[3], "#")
		if strings.HasPrefix(cited, ".") && !strings.Contains(cited, "/") || cited == "nats.go" {
			continue // a file name's end, or the library of that name
		}
		found := h.find(name, cited)
		switch {
		case found == "":
			add("names %s, which is not here", cited)
		case anchor != "" && path.Ext(found) == ".md" && !h.headings[found][anchor]:
			add("cites %s#%s, and no heading of %s makes that anchor", cited, anchor, found)
		}
	}
	for _, m := range below.FindAllStringSubmatch(text, -1) {
		if cited := strings.TrimRight(m[2], "."); h.find(name, cited) == "" {
			add("names %s, which is not here", cited)
		}
	}
	for _, m := range section.FindAllStringSubmatch(text, -1) {
		if found := h.find(name, m[1]); found != "" && !h.headings[found]["#"+m[2]] {
			add("cites section %s of %s, which has none of that number", m[2], found)
		}
	}
	if path.Ext(name) != ".md" {
		return faults
	}
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		target, anchor, _ := strings.Cut(m[1], "#")
		switch {
		case strings.Contains(target, "://"), strings.HasPrefix(target, "mailto:"):
		case target == "" && !h.headings[name][anchor]:
			add("links to #%s, and no heading here makes that anchor", anchor)
		case target != "" && !h.has(path.Join(path.Dir(name), target)):
			add("links to %s, which is not here", target)
		case target != "" && anchor != "" && !h.headings[path.Join(path.Dir(name), target)][anchor]:
			add("links to %s, and no heading there makes that anchor", m[1])
		}
	}
	for _, m := range testName.FindAllStringSubmatch(text, -1) {
		if !h.tests[m[1]] {
			add("names the test %s, which is not here", m[1])
		}
	}
	return faults
}

func (h *house) has(name string) bool { return h.files[name] || h.dirs[name] }

// find looks a cited path up: from the citing file's directory and those above it; below it; and, when
// it has a directory of its own, as the end of any path.
func (h *house) find(from, cited string) string {
	for d := path.Dir(from); ; d = path.Dir(d) {
		if p := path.Join(d, cited); h.has(p) {
			return p
		}
		if d == "." {
			break
		}
	}
	dir := strings.TrimPrefix(path.Dir(from)+"/", "./")
	anywhere := strings.Contains(cited, "/") || path.Ext(cited) == ".md"
	for _, p := range h.sorted {
		if strings.HasSuffix(p, "/"+cited) && (anywhere || strings.HasPrefix(p, dir)) {
			return p
		}
	}
	return ""
}
