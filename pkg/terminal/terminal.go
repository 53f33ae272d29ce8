// Package terminal takes out of a text what a terminal would obey: what programs print is a
// stranger's, and is shown where it may colour nothing and move nothing.
//
// The sequences are those of ECMA-48 (section 5): control sequences (colours, cursor), control strings
// (titles, hyperlinks, images) and the short escapes, all with ESC or as one character of U+0080 to
// U+009F.
//
// It depends on the standard library.
package terminal

import (
	"regexp"
	"strings"
)

const (
	// introducers begin a string: DCS, SOS, OSC, PM, APC. It goes on to its terminator, ST or BEL; what
	// aborts it on terminals (CAN, SUB, another escape) ends it, too.
	introducers = `(?:\x1b[PX\]^_]|[\x{90}\x{98}\x{9d}-\x{9f}])`
	inString    = `[^\x07\x18\x1a\x1b\x{9c}]*`
	parameters  = `(?:\x1b\[|\x{9b})[0-?]*[ -/]*`
)

var (
	sequence = regexp.MustCompile(
		`\x1b\](?:R|P[0-9A-Fa-f]{7})` + // a Linux console's palette, which has no terminator
			`|` + introducers + inString + `(?:\x07|\x18|\x1a|\x1b\\|\x{9c})?` +
			`|` + parameters + `[@-~]?` +
			`|\x1b[ -/]*[0-~]?`)
	unfinished = regexp.MustCompile(`(?:` + introducers + inString + `\x1b?|` + parameters + `|\x1b[ -/]*)$`)
)

// Strip returns what a person would read: without sequences, whole or broken off, and without control
// characters but tabs and line ends; a backspace takes the character before it.
func Strip(text string) string {
	if strings.IndexFunc(text, control) < 0 {
		return text
	}
	var out []rune
	for _, r := range sequence.ReplaceAllLiteralString(text, "") {
		switch {
		case r == '\b' && len(out) > 0 && out[len(out)-1] != '\n':
			out = out[:len(out)-1]
		case !control(r):
			out = append(out, r)
		}
	}
	return string(out)
}

func control(r rune) bool { return r < ' ' && r != '\t' && r != '\n' || r >= 0x7f && r < 0xa0 }

// TrimUnfinished takes a sequence away that was cut off at the end of a text: it would swallow what is
// put behind it.
func TrimUnfinished(text string) string {
	return text[:len(text)-len(unfinished.FindString(text))]
}
