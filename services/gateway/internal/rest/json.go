package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"devpilot.io/bitbucket/pkg/apierr"
)

// maxDepth bounds how deep a body nests. What the API takes has five levels.
const maxDepth = 64

// errTooDeep ends the reading of a body: what is below is not read.
var errTooDeep = errors.New("rest: nested too deeply")

// parseBody reads one JSON value. encoding/json alone would replace text that is not Unicode, and
// take the last of two fields of the same name; here these are faults of the field that has them.
func parseBody(raw []byte, faults *apierr.Faults) (any, error) {
	p := parser{raw: raw, dec: json.NewDecoder(bytes.NewReader(raw)), faults: faults}
	p.dec.UseNumber()
	v, err := p.value("", 0)
	switch {
	case errors.Is(err, errTooDeep):
		return nil, faults.Err()
	case err != nil:
		return nil, malformed(raw)
	}
	if _, err := p.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, apierr.New(apierr.ReasonInvalidArgument, "The body holds more than one JSON value, or something after it. Send one object and nothing else.", apierr.WithField(wholeBody, "holds something after its one JSON object"))
	}
	return v, nil
}

type parser struct {
	raw    []byte
	dec    *json.Decoder
	faults *apierr.Faults
}

// token returns the next token and, of a text, whether all of it is Unicode.
func (p *parser) token() (tok json.Token, unicode bool, err error) {
	start := p.dec.InputOffset()
	if tok, err = p.dec.Token(); err != nil {
		return nil, false, err
	}
	return tok, isUnicode(p.raw[start:p.dec.InputOffset()]), nil
}

func (p *parser) value(path string, depth int) (any, error) {
	tok, unicode, err := p.token()
	if err != nil {
		return nil, err
	}
	switch tok {
	case json.Delim('{'):
		return p.object(path, depth)
	case json.Delim('['):
		return p.list(path, depth)
	}
	if !unicode {
		p.faults.Add(named(path), notUnicode)
	}
	return tok, nil
}

func (p *parser) object(path string, depth int) (any, error) {
	if err := p.deeper(path, depth); err != nil {
		return nil, err
	}
	object := map[string]any{}
	for p.dec.More() {
		tok, unicode, err := p.token()
		if err != nil {
			return nil, err
		}
		name, _ := tok.(string) // the decoder takes nothing else here
		at := join(path, name)
		if !unicode {
			p.faults.Add(at, "the name is not Unicode text")
		}
		if _, twice := object[name]; twice {
			p.faults.Add(at, "is there twice")
		}
		if object[name], err = p.value(at, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := p.dec.Token()
	return object, err
}

func (p *parser) list(path string, depth int) (any, error) {
	if err := p.deeper(path, depth); err != nil {
		return nil, err
	}
	list := []any{}
	for p.dec.More() {
		v, err := p.value(element(path, len(list)), depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	_, err := p.dec.Token()
	return list, err
}

func (p *parser) deeper(path string, depth int) error {
	if depth < maxDepth {
		return nil
	}
	top, _, _ := strings.Cut(path, ".")
	top, _, _ = strings.Cut(top, "[")
	p.faults.Add(named(top), fmt.Sprintf("nests more than %d levels deep", maxDepth))
	return errTooDeep
}

const notUnicode = "must be Unicode text in UTF-8: some of its bytes or escapes are no characters"

// isUnicode tells whether a token as it was sent is UTF-8 without escapes of half a character.
func isUnicode(token []byte) bool {
	if !utf8.Valid(token) {
		return false
	}
	for i := bytes.IndexByte(token, '\\'); i >= 0 && i+1 < len(token); {
		size := 2
		if token[i+1] == 'u' {
			size = 6
			if r := escaped(token[i:]); utf16.IsSurrogate(r) {
				if utf16.DecodeRune(r, escaped(token[i+6:])) == utf8.RuneError {
					return false
				}
				size = 12
			}
		}
		next := bytes.IndexByte(token[i+size:], '\\')
		if next < 0 {
			return true
		}
		i += size + next
	}
	return true
}

// escaped is the UTF-16 unit of a \u escape at the beginning of b; 0 when there is none.
func escaped(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	if err != nil {
		return 0
	}
	return rune(n)
}

// wholeBody names what is wrong with no field of a body, but with all of it.
const wholeBody = "body"

// malformed says where the JSON breaks, as editors count.
func malformed(raw []byte) error {
	err := json.NewDecoder(bytes.NewReader(raw)).Decode(new(json.RawMessage))
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return apierr.New(apierr.ReasonInvalidArgument, "The body is not complete JSON: it ends too early.", apierr.WithField(wholeBody, "ends too early"), apierr.WithCause(err))
	}
	before := raw[:min(int(syntax.Offset), len(raw))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - bytes.LastIndexByte(before, '\n') - 1
	return apierr.Newf(apierr.ReasonInvalidArgument, "The body is not JSON: line %d, column %d: %s.", line, max(column, 1), strings.TrimPrefix(syntax.Error(), "json: ")).
		With(apierr.WithField(wholeBody, "is not JSON"))
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func element(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// named is a path as an answer names it: the body as a whole has none.
func named(path string) string {
	if path == "" {
		return wholeBody
	}
	return path
}
