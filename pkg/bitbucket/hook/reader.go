package hook

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// reader reads a body value by value. After the first error nothing more is read; what was read until
// then is worth nothing.
type reader struct {
	dec *jsontext.Decoder
	in  bytes.Buffer
	err error
}

var readers = sync.Pool{New: func() any { return &reader{dec: &jsontext.Decoder{}} }}

// newReader gives a reader of a body, until it is freed.
func newReader(body []byte) *reader {
	r, _ := readers.Get().(*reader)
	r.in, r.err = *bytes.NewBuffer(body), nil
	r.dec.Reset(&r.in, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	return r
}

func (r *reader) free() {
	r.in = bytes.Buffer{}
	r.dec.Reset(&r.in)
	readers.Put(r)
}

// value reads one value and returns it as it stands in the body, until the next read.
func (r *reader) value() jsontext.Value {
	if r.err != nil {
		return nil
	}
	var v jsontext.Value
	v, r.err = r.dec.ReadValue()
	return v
}

func (r *reader) skip() {
	if r.err == nil {
		r.err = r.dec.SkipValue()
	}
}

// open goes into a value that begins with '{' or '['; false passes over another one.
func (r *reader) open(kind jsontext.Kind) bool {
	if r.dec.PeekKind() != kind {
		r.skip()
		return false
	}
	r.token()
	return r.err == nil
}

func (r *reader) token() {
	if r.err == nil {
		_, r.err = r.dec.ReadToken()
	}
}

// more tells whether another value comes before the end of the object or array that is open.
func (r *reader) more(end jsontext.Kind) bool {
	if r.err != nil {
		return false
	}
	if r.dec.PeekKind() == end {
		r.token()
		return false
	}
	return true
}

// object reads an object: it calls read with the place in names of each name that is wanted, and read
// reads its value. It is false for a value that is no object, which is passed over.
func (r *reader) object(names []string, read func(name int)) bool {
	if !r.open('{') {
		return false
	}
	for r.more('}') {
		at := find(names, r.value())
		switch {
		case r.err != nil:
		case at < 0:
			r.skip()
		default:
			read(at)
		}
	}
	return true
}

// array reads an array: element reads each of its values. It is false for a value that is no array,
// which is passed over.
func (r *reader) array(element func()) bool {
	if !r.open('[') {
		return false
	}
	for r.more(']') {
		element()
	}
	return true
}

// null passes over a null and tells whether there was one.
func (r *reader) null() bool {
	if r.err != nil || r.dec.PeekKind() != 'n' {
		return false
	}
	r.token()
	return true
}

func (r *reader) nullOrObject(names []string, read func(name int)) bool {
	return r.null() || r.object(names, read)
}

func (r *reader) nullOrArray(element func()) bool { return r.null() || r.array(element) }

// text reads a string; null makes it empty, and a value of another type leaves it as it is.
func (r *reader) text(into *string) {
	switch r.dec.PeekKind() {
	case '"':
		*into = unquote(r.value())
	case 'n':
		*into = ""
		r.skip()
	default:
		r.skip()
	}
}

// flag reads a boolean; a value of another type is false.
func (r *reader) flag(into *bool) {
	*into = r.dec.PeekKind() == 't'
	r.skip()
}

// end makes sure that nothing follows.
func (r *reader) end() {
	if r.err != nil {
		return
	}
	if _, err := r.dec.ReadToken(); !errors.Is(err, io.EOF) {
		r.err = ErrNotJSON
	}
}

// find returns the place of a quoted name in names, also where the case of its letters differs; -1
// when it is not among them.
func find(names []string, quoted jsontext.Value) int {
	if len(quoted) < 2 {
		return -1
	}
	bare := quoted[1 : len(quoted)-1]
	for i, name := range names {
		if string(bare) == name {
			return i
		}
	}
	if !bytes.ContainsFunc(bare, func(c rune) bool { return c == '\\' || 'A' <= c && c <= 'Z' || c >= utf8.RuneSelf }) {
		return -1
	}
	text := unquote(quoted)
	for i, name := range names {
		if strings.EqualFold(text, name) {
			return i
		}
	}
	return -1
}

// unquote is the text of a string as it stands in the body.
func unquote(quoted jsontext.Value) string {
	if len(quoted) < 2 {
		return ""
	}
	if bare := quoted[1 : len(quoted)-1]; bytes.IndexByte(bare, '\\') < 0 && utf8.Valid(bare) {
		return string(bare)
	}
	text, _ := jsontext.AppendUnquote(nil, quoted) // an error tells of U+FFFD in place of what is no UTF-8
	return string(text)
}
