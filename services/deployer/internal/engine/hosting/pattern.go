package hosting

import (
	"errors"
	"fmt"
	"strings"
)

// pattern is a path pattern of a _headers file: what comes before the "*", and what comes after it.
// Matching takes time linear in path and pattern, without backtracking: a placeholder is a whole
// segment, and there is one "*".
type pattern struct {
	before, after []piece
	splat         bool
}

// piece is a literal, or a placeholder when name is set.
type piece struct{ literal, name string }

func parsePattern(text string) (pattern, error) {
	if strings.ContainsAny(text, " \t?#\\\x00\x7f") {
		return pattern{}, errors.New("a path holds no spaces, \"?\", \"#\" or backslashes; write headers on lines of their own")
	}
	before, after, splat := strings.Cut(text, "*")
	if strings.Contains(after, "*") {
		return pattern{}, errors.New("a path may hold one \"*\" only")
	}
	p := pattern{splat: splat}
	seen := map[string]bool{}
	var err error
	if p.before, err = parsePieces(before, seen, splat); err != nil {
		return pattern{}, err
	}
	p.after, err = parsePieces(after, seen, false)
	return p, err
}

// parsePieces takes literals and placeholders apart; open tells that something follows without a slash.
func parsePieces(text string, seen map[string]bool, open bool) ([]piece, error) {
	var pieces []piece
	literal := ""
	for i, segment := range strings.Split(text, "/") {
		if i > 0 {
			literal += "/"
		}
		name, isName := placeholder(segment)
		last := strings.Count(text, "/") == i
		if !isName || i == 0 || (last && open) {
			literal += segment
			continue
		}
		if seen[name] || name == "splat" {
			return nil, fmt.Errorf("the placeholder :%s is there twice", name)
		}
		seen[name] = true
		pieces = append(pieces, piece{literal: literal}, piece{name: name})
		literal = ""
	}
	if literal != "" {
		pieces = append(pieces, piece{literal: literal})
	}
	return pieces, nil
}

// placeholder tells whether a segment is ":name".
func placeholder(segment string) (string, bool) {
	name, ok := strings.CutPrefix(segment, ":")
	return name, ok && name != "" && identifier(name) == len(name)
}

// identifier is the length of the name that text begins with: a letter, then letters, digits and "_".
func identifier(text string) int {
	for i := range len(text) {
		c := text[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || (c != '_' && (c < '0' || c > '9'))) {
			return i
		}
	}
	return len(text)
}

// captures are what the parts of a pattern matched, in pairs of name and text.
type captures []string

func (p *pattern) match(path string) (captures, bool) {
	var found captures
	for _, piece := range p.before {
		if piece.name == "" {
			rest, ok := strings.CutPrefix(path, piece.literal)
			if !ok {
				return nil, false
			}
			path = rest
			continue
		}
		end := strings.IndexByte(path, '/')
		if end < 0 {
			end = len(path)
		}
		if end == 0 {
			return nil, false
		}
		found = append(found, piece.name, path[:end])
		path = path[end:]
	}
	if !p.splat {
		return found, path == ""
	}
	for i := len(p.after) - 1; i >= 0; i-- { // what follows the "*" is matched from the end
		piece := p.after[i]
		if piece.name == "" {
			rest, ok := strings.CutSuffix(path, piece.literal)
			if !ok {
				return nil, false
			}
			path = rest
			continue
		}
		start := strings.LastIndexByte(path, '/') + 1
		if start == len(path) {
			return nil, false
		}
		found = append(found, piece.name, path[start:])
		path = path[:start]
	}
	return append(found, "splat", path), true
}

// expand puts what was matched in the place of :name in a header's value. It comes from the visitor, so
// all but letters, digits and "-._~/" is percent-encoded: it can neither end a value nor add a directive.
// ok is false when the result has more than limit bytes.
func (c captures) expand(value string, limit int) (_ string, ok bool) {
	if len(c) == 0 || !strings.Contains(value, ":") {
		return value, len(value) <= limit
	}
	var out strings.Builder
	for {
		i := strings.IndexByte(value, ':')
		if i < 0 {
			break
		}
		out.WriteString(value[:i])
		value = value[i+1:]
		n := identifier(value)
		text, ok := c.get(value[:n])
		if !ok {
			out.WriteByte(':')
			continue
		}
		escape(&out, text)
		if out.Len() > limit {
			return "", false
		}
		value = value[n:]
	}
	out.WriteString(value)
	return out.String(), out.Len() <= limit
}

func (c captures) get(name string) (string, bool) {
	for i := 0; i+1 < len(c); i += 2 {
		if c[i] == name {
			return c[i+1], true
		}
	}
	return "", false
}

func escape(out *strings.Builder, text string) {
	for i := range len(text) {
		c := text[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~/", c) >= 0 {
			out.WriteByte(c)
			continue
		}
		fmt.Fprintf(out, "%%%02X", c)
	}
}
