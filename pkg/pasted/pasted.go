// Package pasted reads texts as the people meant them who pasted them: out of an editor, a mail or a
// file, with the byte order mark, the line ends and the blanks that came along.
//
// It depends on google.golang.org/protobuf.
package pasted

import (
	"regexp"
	"strings"
	"unicode"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

var lineEnd = regexp.MustCompile(`\r+\n`)

// mark is the byte order mark. Within a text it is an invisible blank of no width.
const mark = "\ufeff"

// Text is a text of several lines, such as a script: without a byte order mark, its lines ended by a
// line feed alone.
func Text(s string) string {
	return strings.ReplaceAll(lineEnd.ReplaceAllLiteralString(strings.TrimLeft(s, mark), "\n"), "\r", "\n")
}

// Line is a text of one line, such as a name, an address or a token: without blanks and line ends, seen
// and unseen, before and after it. Those within it stay, to be refused by who knows what it should be.
func Line(s string) string {
	return strings.TrimFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || strings.ContainsRune("\ufeff\u200b\u200e\u200f\u2060\x00", r)
	})
}

// Value is a text in which blanks may be meant, such as a variable's: what is of one line has no line
// end, and what is of several has them as Text.
func Value(s string) string {
	s = lineEnd.ReplaceAllLiteralString(strings.TrimLeft(s, mark), "\n")
	if one := strings.Trim(s, "\r\n"); !strings.Contains(one, "\n") {
		return one
	}
	return s
}

// Fields makes a Line of each string in a message, lists and messages within it included, and of those
// fields that are named what their function says.
func Fields(m proto.Message, others map[protoreflect.FullName]func(string) string) {
	fields(m.ProtoReflect(), others)
}

func fields(m protoreflect.Message, others map[protoreflect.FullName]func(string) string) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		read := others[f.FullName()]
		if read == nil {
			read = Line
		}
		switch {
		case f.IsMap(): // none holds what people type
		case f.IsList():
			list := v.List()
			for i := range list.Len() {
				if f.Message() != nil {
					fields(list.Get(i).Message(), others)
				} else if f.Kind() == protoreflect.StringKind {
					list.Set(i, protoreflect.ValueOfString(read(list.Get(i).String())))
				}
			}
		case f.Message() != nil:
			fields(v.Message(), others)
		case f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString(read(v.String())))
		}
		return true
	})
}
