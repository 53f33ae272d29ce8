package deploylog

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// A text longer than wholeUpTo is known by its pieces of pieceLength, so that a part of it is
	// hidden too, and so that no line has to be read further than a piece beyond its cut.
	wholeUpTo   = 64
	pieceLength = 32 // characters of a part of a long secret that is masked
	// Pieces of encodings; a match of one extends over its surroundings.
	base64Piece, hexPiece = 8, 12
	// mostPieces bounds how many pieces one text becomes; beyond, not every offset has its own.
	mostPieces = 4096
)

// formsOf are the ways in which programs write a chosen secret: as it is, in base64 (RFC 4648
// sections 4 and 5) wherever in the encoded text it stands, in hexadecimal, in URLs, in JSON and
// quoted by a shell. A secret of several lines is also hidden line by line, where a line tells enough
// (see telling). None: it is too short.
func formsOf(secret string) []form {
	var out []form
	secret = strings.Trim(secret, "\r\n")
	parts := []string{secret}
	if strings.ContainsAny(secret, "\n") {
		for line := range strings.SplitSeq(secret, "\n") {
			if line = strings.TrimSpace(line); telling(line) {
				parts = append(parts, line)
			}
		}
	} else if t := strings.TrimSpace(secret); t != secret {
		parts = append(parts, t)
	}
	for _, p := range parts {
		if len(strings.TrimSpace(p)) < shortestChosen {
			continue
		}
		if !strings.Contains(p, "\n") {
			out = append(out, pieces(p, wholeUpTo, pieceLength, nil)...)
		}
		for _, w := range written(p) {
			out = append(out, pieces(w, wholeUpTo, pieceLength, nil)...)
		}
		for _, h := range []string{hex.EncodeToString([]byte(p)), strings.ToUpper(hex.EncodeToString([]byte(p)))} {
			out = append(out, pieces(h, hexPiece, hexPiece, hexLetters)...)
		}
		for _, c := range cores(p) {
			out = append(out, pieces(c, base64Piece, base64Piece, base64Letters)...)
		}
	}
	return out
}

// telling reports whether one of a secret's lines is a secret by itself: it is long, or made as no word
// is. Lines such as "main", or port: 5432, are in many files; they are hidden among their neighbours only
// (see passage).
func telling(line string) bool {
	core := strings.TrimFunc(line, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	if !strings.ContainsFunc(core, func(r rune) bool { return !unicode.IsLetter(r) }) {
		return len(core) >= longWord
	}
	if strings.ContainsAny(core, " \t") {
		return len(line) >= longPhrase
	}
	return len(line) >= longLine || len(line) >= shortest && mixed(core)
}

// A line of a word, of several, and of other things tells enough from so many characters on.
const longWord, longPhrase, longLine = 20, 16, 13

// mixed reports whether a text has a digit between letters, or letters of both cases and
// a digit, as passwords have.
func mixed(text string) bool {
	var lower, upper, digit, between bool
	for i := range len(text) {
		c := text[i]
		switch {
		case c >= 'a' && c <= 'z':
			lower = true
		case c >= 'A' && c <= 'Z':
			upper = true
		case c >= '0' && c <= '9':
			digit = true
			between = between || i > 0 && i+1 < len(text) && strings.IndexByte(letters, text[i-1]) >= 0 && strings.IndexByte(letters, text[i+1]) >= 0
		}
	}
	return between || lower && upper && digit
}

// pieces cuts a text that is longer than whole.
func pieces(text string, whole, length int, in *alphabet) []form {
	if len(text) < shortestChosen {
		return nil
	}
	if len(text) <= whole {
		return []form{{text, in}}
	}
	var out []form
	step := 1 + len(text)/mostPieces
	for i := 0; i+length <= len(text); i += step {
		out = append(out, form{text[i : i+length], in})
	}
	return append(out, form{text[len(text)-length:], in})
}

// cores are what a text always becomes in base64, whatever stands before and after it: before it
// may stand any number of bytes, of which only the remainder by three matters, and the characters
// that it shares with its neighbours are left out.
func cores(text string) []string {
	var out []string
	for before := range 3 {
		enc := base64.StdEncoding.EncodeToString(append(make([]byte, before), text...))
		core := enc[(8*before+5)/6 : 8*(before+len(text))/6]
		out = append(out, core)
		if u := strings.NewReplacer("+", "-", "/", "_").Replace(core); u != core {
			out = append(out, u)
		}
	}
	return out
}

// written are the other spellings of a text, without those that are the text itself.
func written(text string) []string {
	query, path := url.QueryEscape(text), url.PathEscape(text)
	// What JavaScript's encodeURIComponent leaves as it is.
	component := strings.NewReplacer("+", "%20", "%21", "!", "%27", "'", "%28", "(", "%29", ")", "%2A", "*").Replace(query)
	all := []string{query, path, component, lowerPercent(query), lowerPercent(path), lowerPercent(component)}
	for _, escapeHTML := range []bool{true, false} {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(escapeHTML)
		if e.Encode(text) == nil {
			j := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(b.String(), "\n"), `"`), `"`)
			all = append(all, j, strings.ReplaceAll(j, "/", `\/`), ascii(j))
		}
	}
	// 'it'\''s' and 'it'"'"'s' of sh -x and of quoting libraries, and printf %q.
	all = append(all, strings.ReplaceAll(text, "'", `'\''`), strings.ReplaceAll(text, "'", `'"'"'`), backslashed(text))
	out := all[:0]
	for _, w := range all {
		if w != text && !strings.Contains(w, "\n") {
			out = append(out, w)
		}
	}
	return out
}

// lowerPercent writes %2F as %2f.
func lowerPercent(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:], bytes.ToLower(b[i+1:i+3]))
		}
	}
	return string(b)
}

// ascii escapes what is not ASCII as JSON may (RFC 8259 section 7), as Python does.
func ascii(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r < utf8.RuneSelf:
			b.WriteRune(r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func backslashed(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < utf8.RuneSelf && !strings.Contains(letters+digits+"_-./:=@%+", string(rune(c))) {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
