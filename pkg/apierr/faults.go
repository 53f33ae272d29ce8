package apierr

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxFaults bounds what one answer tells: nobody corrects more at once.
	maxFaults = 50
	// maxName bounds a field's name in an answer: the caller chose it.
	maxName = 200
)

// Faults collects what is wrong with a request, so that all of it is told at once. The zero value
// has none. It is not safe for concurrent use.
type Faults struct{ fields []Field }

// Add notes what is wrong with a field. Of one field the first fault counts.
func (f *Faults) Add(name, msg string) {
	if name = clip(name); f.Has(name) || len(f.fields) >= maxFaults {
		return
	}
	f.fields = append(f.fields, Field{Name: name, Message: msg})
}

// Take notes the fields of an INVALID_ARGUMENT that names some and returns nil; any other error it
// returns as it is.
func (f *Faults) Take(err error) error {
	if !Has(err, ReasonInvalidArgument) || len(From(err).fields) == 0 {
		return err
	}
	for _, v := range From(err).fields {
		f.Add(v.Name, v.Message)
	}
	return nil
}

// Has tells whether a fault of that very field was noted.
func (f *Faults) Has(name string) bool {
	for _, have := range f.fields {
		if have.Name == name {
			return true
		}
	}
	return false
}

// Full tells that no more are noted, so that there is no use in looking on.
func (f *Faults) Full() bool { return len(f.fields) >= maxFaults }

// MaxRequestID is how long a request id may be, in bytes, whichever service gets it.
const MaxRequestID = 200

// RequestID notes a request id that is too long.
func (f *Faults) RequestID(id string) {
	if len(id) > MaxRequestID {
		f.Add("requestId", fmt.Sprintf("at most %d bytes", MaxRequestID))
	}
}

// CheckRequestID is for requests in which nothing else can be wrong.
func CheckRequestID(id string) error {
	var f Faults
	f.RequestID(id)
	return f.Err()
}

// OneLine notes a text for people that would not stay in its line.
func (f *Faults) OneLine(name, text string) {
	if strings.ContainsFunc(text, unicode.IsControl) {
		f.Add(name, "must be one line, without control characters")
	}
}

// Err is the one error of all faults; nil when there are none.
func (f *Faults) Err() error {
	switch len(f.fields) {
	case 0:
		return nil
	case 1:
		return InvalidArgument(f.fields[0].Name, f.fields[0].Message)
	}
	var text strings.Builder
	opts := make([]Option, 0, len(f.fields))
	for i, v := range f.fields {
		if i > 0 {
			text.WriteString("; ")
		}
		fmt.Fprintf(&text, "%q: %s", v.Name, strings.TrimSuffix(v.Message, "."))
		opts = append(opts, WithField(v.Name, v.Message))
	}
	return New(ReasonInvalidArgument, fmt.Sprintf("%d fields are not right: %s.", len(f.fields), text.String()), opts...)
}

// clip makes a name that the caller chose fit for an answer.
func clip(name string) string {
	name = strings.ToValidUTF8(name, "\uFFFD")
	if len(name) <= maxName {
		return name
	}
	cut := maxName
	for !utf8.RuneStart(name[cut]) {
		cut--
	}
	return name[:cut] + "…"
}
