package rules

import (
	"errors"
	"fmt"
	"iter"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bmatcuk/doublestar/v4"
)

// Limits of what may be saved.
const (
	// MaxPatterns is how many patterns one list may have.
	MaxPatterns = 64
	// MaxPattern is how long a pattern or a branch may be, in bytes; git's own limit for a branch
	// that is also a file name is 244.
	MaxPattern = 244
	// MaxPhrases and MaxPhrase bound skip phrases, the latter in bytes.
	MaxPhrases = 20
	MaxPhrase  = 100
	// maxAlternatives bounds into how many patterns the braces of one unfold.
	maxAlternatives = 64
)

// special are the characters that make a branch a pattern.
const special = "*?["

// IsGlob tells whether a watched branch is a pattern: the name of a branch has none of the
// characters that make one.
func IsGlob(branch string) bool { return strings.ContainsAny(branch, special) }

// CheckBranch refuses what is neither the name of a branch nor a pattern of such names. The message
// is for people.
func CheckBranch(branch string) error { return checkRef("branch", branch) }

// CheckTag refuses what is neither the name of a tag nor a pattern of such names.
func CheckTag(pattern string) error { return checkRef("tag", pattern) }

// TagFaults tells of a list of tags what is wrong, by place; -1 stands for the list as a whole.
func TagFaults(patterns []string) iter.Seq2[int, error] {
	return listFaults(patterns, MaxPatterns, CheckTag)
}

// CheckPath refuses what is not a pattern of paths in a repository.
func CheckPath(pattern string) error {
	if err := checkText("pattern", pattern, MaxPattern); err != nil {
		return err
	}
	switch {
	case strings.HasPrefix(pattern, "!"):
		return fmt.Errorf("%q begins with an exclamation mark: what is not to count belongs into the ignored paths, without the mark", pattern)
	case strings.HasPrefix(pattern, "/"):
		return fmt.Errorf("%q begins with a slash: write it as seen from the repository's root, such as docs/**", pattern)
	}
	for segment := range strings.SplitSeq(strings.TrimSuffix(pattern, "/"), "/") {
		switch segment {
		case "":
			return fmt.Errorf("%q has two slashes in a row", pattern)
		case ".", "..":
			return fmt.Errorf("%q has the segment %q: write it as seen from the repository's root, such as docs/**", pattern, segment)
		}
	}
	return checkGlob(pattern)
}

// PathFaults is TagFaults of a list of paths.
func PathFaults(patterns []string) iter.Seq2[int, error] {
	return listFaults(patterns, MaxPatterns, CheckPath)
}

// CheckSkipPhrase refuses a phrase that would match by accident, or never.
func CheckSkipPhrase(phrase string) error {
	if err := checkText("phrase", phrase, MaxPhrase); err != nil {
		return err
	}
	if len(phrase) < 3 {
		return fmt.Errorf("the phrase %q is too short: it would skip pushes by accident", phrase)
	}
	return nil
}

// PhraseFaults is TagFaults of a list of skip phrases.
func PhraseFaults(phrases []string) iter.Seq2[int, error] {
	return listFaults(phrases, MaxPhrases, CheckSkipPhrase)
}

func listFaults(list []string, most int, check func(string) error) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		if len(list) > most {
			yield(-1, fmt.Errorf("there are %d entries, and at most %d are allowed", len(list), most))
			return
		}
		seen := make(map[string]bool, len(list))
		for i, s := range list {
			err := check(s)
			if err == nil && seen[s] {
				err = fmt.Errorf("%q is there twice", s)
			}
			if seen[s] = true; err != nil && !yield(i, err) {
				return
			}
		}
	}
}

// checkText is what holds for everything that a person types here.
func checkText(what, s string, most int) error {
	switch {
	case strings.TrimSpace(s) == "":
		return fmt.Errorf("the %s is empty", what)
	case len(s) > most:
		return fmt.Errorf("the %s has %d bytes, and at most %d are allowed", what, len(s), most)
	case !utf8.ValidString(s):
		return fmt.Errorf("the %s is not valid UTF-8", what)
	case strings.ContainsFunc(s, unicode.IsControl):
		return fmt.Errorf("the %s has a control character, such as a line end", what)
	case strings.TrimSpace(s) != s:
		return fmt.Errorf("the %s %q begins or ends with a space", what, s)
	}
	return nil
}

// checkRef follows git-check-ref-format as far as it holds for patterns too.
func checkRef(what, s string) error {
	if err := checkText(what, s, MaxPattern); err != nil {
		return err
	}
	for _, prefix := range []string{"refs/heads/", "refs/tags/"} {
		if rest, ok := strings.CutPrefix(s, prefix); ok {
			return fmt.Errorf("%q begins with %s: write only %q", s, prefix, rest)
		}
	}
	glob := IsGlob(s)
	forbidden := " ~^:\\"
	if glob {
		forbidden = " ~:" // ^ and \ mean something in a pattern
	}
	switch i := strings.IndexAny(s, forbidden); {
	case i >= 0:
		return fmt.Errorf("%q has the character %q, which no %s's name has", s, s[i], what)
	case strings.HasPrefix(s, "/"), strings.HasSuffix(s, "/"), strings.Contains(s, "//"):
		return fmt.Errorf("%q begins or ends with a slash, or has two in a row, as no %s's name does", s, what)
	case strings.Contains(s, ".."), strings.Contains(s, "@{"), strings.HasSuffix(s, "."), s == "@", strings.HasPrefix(s, "-"):
		return fmt.Errorf("%q is not a name that git allows for a %s", s, what)
	}
	for segment := range strings.SplitSeq(s, "/") {
		if strings.HasPrefix(segment, ".") || strings.HasSuffix(segment, ".lock") {
			return fmt.Errorf("%q is not a name that git allows for a %s: a part begins with a dot or ends with .lock", s, what)
		}
	}
	if glob {
		return checkGlob(s)
	}
	return nil
}

// checkGlob refuses what doublestar does not understand, or understands otherwise than it reads.
func checkGlob(s string) error {
	if !doublestar.ValidatePattern(s) {
		return fmt.Errorf("%q is not a valid pattern: a bracket or brace is not closed, or it ends with a backslash", s)
	}
	if err := checkBraces(s); err != nil {
		return fmt.Errorf("%q is not a valid pattern: %w", s, err)
	}
	for segment := range strings.SplitSeq(s, "/") {
		if segment != "**" && strings.Contains(segment, "**") {
			return fmt.Errorf("%q has ** beside other characters: it must stand alone between slashes, as in feature/**", s)
		}
	}
	return nil
}

// checkBraces bounds the work of matching: braces in a row multiply.
func checkBraces(s string) error {
	product, here, open, class := 1, 1, false, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case c == '[':
			class = true
			if i+1 < len(s) && (s[i+1] == '!' || s[i+1] == '^') {
				i++
			}
		case c == '{' && open:
			return errors.New("there are braces within braces")
		case c == '{':
			open, here = true, 1
		case c == ',' && open:
			here++
		case c == '}' && open:
			open = false
			if product *= here; product > maxAlternatives {
				return fmt.Errorf("its braces stand for more than %d patterns", maxAlternatives)
			}
		}
	}
	return nil
}

// MatchBranch tells whether a branch is the one watched, or matches the pattern that is. Case
// matters. A pattern that is not valid matches nothing.
func MatchBranch(pattern, branch string) bool {
	if !IsGlob(pattern) {
		return pattern != "" && pattern == branch
	}
	return match(pattern, branch)
}

// MatchTag tells whether a tag matches one of the patterns.
func MatchTag(patterns []string, tag string) bool {
	for _, p := range patterns {
		if MatchBranch(p, tag) {
			return true
		}
	}
	return false
}

// pathPattern is a pattern made ready to be matched many times.
type pathPattern struct {
	text string // the whole pattern: a path of just this name matches
	dir  string // for a pattern without special characters: what all below it begins with
	glob string // for one with them; empty when it is not valid
}

type pathPatterns []pathPattern

func compile(patterns []string) pathPatterns {
	out := make(pathPatterns, 0, len(patterns))
	for _, text := range patterns {
		bare := strings.TrimSuffix(text, "/")
		p := pathPattern{text: text}
		switch {
		case bare == "":
			continue
		case !strings.ContainsAny(bare, special+`{\`):
			p.dir = bare + "/"
		case len(text) > MaxPattern || checkGlob(bare) != nil:
		case bare != text:
			p.glob = bare + "/**/*" // at least one segment below
		default:
			p.glob = text
		}
		out = append(out, p)
	}
	return out
}

func (ps pathPatterns) match(path string) bool {
	for _, p := range ps {
		switch {
		case path == p.text:
			return true
		case p.dir != "":
			if strings.HasPrefix(path, p.dir) {
				return true
			}
		case p.glob != "":
			if ok, err := doublestar.Match(p.glob, path); err == nil && ok {
				return true
			}
		}
	}
	return false
}

// match is false for what checkGlob would refuse, so that nothing saved by an older version can
// make matching dear.
func match(pattern, name string) bool {
	if len(pattern) > MaxPattern || checkGlob(pattern) != nil {
		return false
	}
	ok, err := doublestar.Match(pattern, name)
	return err == nil && ok
}
