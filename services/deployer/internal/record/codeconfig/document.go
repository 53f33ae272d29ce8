package codeconfig

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// MaxSize is how large the file may be, in bytes.
const MaxSize = 64 << 10

const (
	// maxNesting bounds brackets within brackets: the file needs three, and the parser's time grows
	// with the square of it.
	maxNesting = 8
	// maxEntries bounds the dashes of lists within lists on one line, for the same reason.
	maxEntries = 4
	// maxKeys and maxTokens bound the rest of the parser's work; a file that uses all limits has
	// about 320 keys and 2,000 tokens.
	maxKeys   = 1000
	maxTokens = 10_000 // words of a .devpilot.yaml
)

// reader collects the problems of one file.
type reader struct {
	name     string
	problems Problems
}

func (r *reader) problem(line, column int, format string, args ...any) {
	r.problems = append(r.problems, Problem{File: r.name, Line: max(line, 1), Column: max(column, 1), Message: fmt.Sprintf(format, args...)})
}

func (r *reader) at(n ast.Node, format string, args ...any) {
	line, column := position(n)
	r.problem(line, column, format, args...)
}

// position is where a node begins. The token of some kinds of nodes is one in their middle.
func position(n ast.Node) (line, column int) {
	for {
		switch v := n.(type) {
		case *ast.MappingNode:
			if !v.IsFlowStyle && len(v.Values) > 0 {
				n = v.Values[0].Key
				continue
			}
		case *ast.MappingValueNode:
			n = v.Key
			continue
		case *ast.LiteralNode:
			return v.Start.Position.Line, v.Start.Position.Column
		}
		break
	}
	if tk := n.GetToken(); tk != nil && tk.Position != nil {
		return tk.Position.Line, tk.Position.Column
	}
	return 1, 1
}

// document is the file's one document; nil with problems when it has none that can be read.
func (r *reader) document(b []byte) (root ast.Node) {
	defer func() {
		// The parser is not ours and the file anybody's.
		if p := recover(); p != nil {
			r.problem(1, 1, "the file cannot be read as YAML")
			root = nil
		}
	}()
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	if !r.plainText(b) {
		return nil
	}
	tokens := lexer.Tokenize(string(b))
	if !r.plainYAML(tokens) {
		return nil
	}
	// Repeated keys are found by us, all of them.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		r.syntax(err)
		return nil
	}
	for _, d := range file.Docs {
		switch {
		case d.Body == nil:
		case root != nil:
			r.at(d.Body, "there is more than one document: the file has one only")
			return nil
		default:
			root = d.Body
		}
	}
	if root == nil {
		r.problem(1, 1, "the file is empty: it needs at least version: 1")
	}
	return root
}

// plainText refuses what is too large or not text.
func (r *reader) plainText(b []byte) bool {
	if len(b) > MaxSize {
		r.problem(1, 1, "the file has %d bytes, and at most %d are allowed", len(b), MaxSize)
		return false
	}
	line, column := 1, 1
	for len(b) > 0 {
		c, n := utf8.DecodeRune(b)
		switch {
		case c == utf8.RuneError && n == 1:
			r.problem(line, column, "the file is not valid UTF-8 here")
			return false
		case c < ' ' && c != '\n' && c != '\r' && c != '\t', c == 0x7f:
			r.problem(line, column, "there is a control character (%#x) here", c)
			return false
		case c == '\n':
			line, column = line+1, 1
		default:
			column++
		}
		b = b[n:]
	}
	return true
}

// plainYAML refuses what YAML has beyond lists, mappings and scalars, and what is nested too deep,
// before anything is built of it.
func (r *reader) plainYAML(tokens token.Tokens) bool {
	depth, line, entries, keys, content := 0, 0, 0, 0, false
	for i, tk := range tokens {
		if tk.Position.Line != line {
			line, entries = tk.Position.Line, 0
		}
		refused := ""
		switch tk.Type { //nolint:exhaustive // the rest is plain
		case token.AnchorType, token.AliasType:
			refused = "anchors and aliases (& and *) are not supported: write the value out, or put quotes around it"
		case token.MergeKeyType:
			refused = "merge keys (<<) are not supported: write the values out"
		case token.TagType:
			refused = "tags (!) are not supported: put quotes around a value that begins with an exclamation mark"
		case token.DirectiveType:
			refused = "directives (%) are not supported"
		case token.MappingKeyType:
			refused = "keys that begin with a question mark are not supported"
		case token.DocumentHeaderType:
			if content {
				refused = "there is more than one document: the file has one only"
			}
		case token.DocumentEndType:
		case token.SequenceStartType, token.MappingStartType:
			if depth++; depth > maxNesting {
				refused = "brackets are nested too deep here"
			}
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.MappingValueType:
			if keys++; keys > maxKeys {
				refused = "the file has too many keys"
			}
		case token.SequenceEntryType:
			if entries++; entries > maxEntries {
				refused = "lists are nested too deep here"
			}
		}
		if refused == "" && i >= maxTokens {
			refused = "the file has too many parts"
		}
		if refused != "" {
			r.problem(tk.Position.Line, tk.Position.Column, "%s", refused)
			return false
		}
		content = content || tk.Type != token.CommentType
	}
	return true
}

// syntax tells what the parser told.
func (r *reader) syntax(err error) {
	var e yaml.Error
	if !errors.As(err, &e) || e.GetToken() == nil || e.GetToken().Position == nil {
		r.problem(1, 1, "the file cannot be read as YAML")
		return
	}
	p := e.GetToken().Position
	r.problem(p.Line, p.Column, "this is not valid YAML: %s", strings.Join(strings.Fields(strings.ToValidUTF8(e.GetMessage(), "?")), " "))
}
