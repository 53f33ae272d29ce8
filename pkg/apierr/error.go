package apierr

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Field is one violation: which field of the request, in the spelling of the API
// (lowerCamelCase, dots between levels), and what is wrong with it.
type Field struct {
	Name    string `json:"name"`
	Message string `json:"message"`
}

// Error is the one error type. Make it with [New], [Newf] or [InvalidArgument]; it does not change
// afterwards and may be shared between goroutines.
type Error struct {
	reason     Reason
	kind       Kind
	message    string
	fields     []Field
	details    map[string]string
	retryAfter time.Duration
	cause      error
}

// Option adds to an Error while it is made.
type Option func(*Error)

// New makes an error of a reason; its kind comes from the table. The message is public: a sentence
// for people. A reason that is not in the table makes an Internal error.
func New(r Reason, message string, opts ...Option) *Error {
	e := &Error{reason: r, kind: byReason[r].Kind, message: message}
	for _, o := range opts {
		o(e)
	}
	return e
}

// Newf is New with a formatted message. For options use [Error.With]. Arguments become public;
// %w is not understood here: a cause goes into [WithCause].
func Newf(r Reason, format string, args ...any) *Error {
	return New(r, fmt.Sprintf(format, args...))
}

// InvalidArgument is the error of one wrong field.
func InvalidArgument(field, msg string) *Error {
	return New(ReasonInvalidArgument, fmt.Sprintf("The field %q is not right: %s.", field, strings.TrimSuffix(msg, ".")), WithField(field, msg))
}

// With returns a copy with more options applied.
func (e *Error) With(opts ...Option) *Error {
	c := *e
	c.fields = slices.Clone(e.fields)
	c.details = maps.Clone(e.details)
	for _, o := range opts {
		o(&c)
	}
	return &c
}

// WithCause keeps the error that led here, for logs and errors.Is; it never leaves the process.
func WithCause(err error) Option { return func(e *Error) { e.cause = err } }

// WithField adds one violation.
func WithField(name, msg string) Option {
	return func(e *Error) { e.fields = append(e.fields, Field{Name: name, Message: msg}) }
}

// WithRetryAfter says when a repeat can help. It is rounded up to whole seconds where it leaves as
// HTTP; zero and less mean that no time is known.
func WithRetryAfter(d time.Duration) Option {
	return func(e *Error) { e.retryAfter = max(d, 0) }
}

// WithDetail adds one public fact for programs, e.g. the scope that is missing. The keys are
// lowerCamelCase.
func WithDetail(key, value string) Option {
	return func(e *Error) {
		if e.details == nil {
			e.details = map[string]string{}
		}
		e.details[key] = value
	}
}

// Error is for logs: reason, public message and the whole cause.
func (e *Error) Error() string {
	s := string(e.reason) + ": " + e.message
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// Is matches a Kind, or another *Error of the same reason.
func (e *Error) Is(target error) bool {
	switch t := target.(type) {
	case Kind:
		return e.kind == t
	case *Error:
		return e.reason == t.reason
	default:
		return false
	}
}

// Reason says what happened.
func (e *Error) Reason() Reason { return e.reason }

// Kind is the class of the reason.
func (e *Error) Kind() Kind { return e.kind }

// Message is the public sentence for people.
func (e *Error) Message() string { return e.message }

// Fields lists the violations.
func (e *Error) Fields() []Field { return slices.Clone(e.fields) }

// RetryAfter is the time after which a repeat can help; zero when none is known.
func (e *Error) RetryAfter() time.Duration { return e.retryAfter }

// Details are the public facts for programs.
func (e *Error) Details() map[string]string { return maps.Clone(e.details) }

// Detail returns one public fact, or "".
func (e *Error) Detail(key string) string { return e.details[key] }

// Cause is the error that led here, or nil. It is for logs only.
func (e *Error) Cause() error { return e.cause }

// Retry says whether repeating can help.
func (e *Error) Retry() Retry {
	if row, ok := byReason[e.reason]; ok {
		return row.Retry
	}
	return kinds[e.kind].retry
}

// ReasonOf returns the reason of err as [From] reads it, and "" for nil.
func ReasonOf(err error) Reason {
	if err == nil {
		return ""
	}
	return From(err).reason
}

// Has reports whether err is of the given reason.
func Has(err error, r Reason) bool { return err != nil && ReasonOf(err) == r }

// KindOf returns the kind of err as [From] reads it; for nil it returns -1, which is none.
func KindOf(err error) Kind {
	if err == nil {
		return -1
	}
	return From(err).kind
}

// find returns the first *Error in err's tree.
func find(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

// Renamed returns a copy whose fields have the names that rename gives them, in the message too.
func (e *Error) Renamed(rename func(string) string) *Error {
	c := e.With()
	for i, f := range c.fields {
		if name := rename(f.Name); name != f.Name {
			c.fields[i].Name = name
			c.message = strings.ReplaceAll(c.message, strconv.Quote(f.Name), strconv.Quote(name))
		}
	}
	return c
}
