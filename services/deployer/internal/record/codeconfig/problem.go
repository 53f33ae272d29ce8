package codeconfig

import (
	"fmt"
	"slices"
	"strings"
)

// Problem is one mistake in the file.
type Problem struct {
	File         string // its name, as given to Parse
	Line, Column int    // from 1; the column counts characters
	Message      string // a sentence for people
}

// String is such as ".devpilot.yaml:4:12: unknown key …".
func (p Problem) String() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// Problems are all mistakes of a file, in its order. As an error they are one line each.
type Problems []Problem

// maxProblems bounds what is told of a file that is wrong everywhere.
const maxProblems = 50

// Error implements error.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// sorted is ps in the file's order, cut at maxProblems.
func (ps Problems) sorted() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	if more := len(ps) - maxProblems + 1; more > 1 {
		last := ps[maxProblems-1]
		last.Message = fmt.Sprintf("from here on there are %d more problems", more)
		ps = append(ps[:maxProblems-1:maxProblems-1], last)
	}
	return ps
}

// quote shows a word of the file.
func quote(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		s = string(r[:most-1]) + "…"
	}
	return fmt.Sprintf("%q", s)
}

// suggest is the known word that a wrong one was probably meant to be, or "".
func suggest(word string, known []string) string {
	best, least := "", max(2, len(word)/3)+1
	for _, k := range known {
		if plain(word) == plain(k) {
			return k
		}
		if len(word) > 2*len(k)+4 {
			continue
		}
		if d := distance(plain(word), plain(k)); d < least && d < len(k) {
			best, least = k, d
		}
	}
	return best
}

// plain makes spellings of one word equal: shared_paths, shared-paths, sharedpaths.
func plain(s string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(s))
}

// distance is the number of letters to change, add or drop (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal, row[j+1] = row[j+1], min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
