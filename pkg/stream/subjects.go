package stream

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Names of all streams (DESIGN.md#state): those that several services use, the one for what they give up
// on, and those of one service, which share the store with them.
const (
	PushesStream      = "DEVPILOT_PUSHES"
	EventsStream      = "DEVPILOT_EVENTS"
	DeadLettersStream = "DEVPILOT_DEAD_LETTERS"
	InboxStream       = "DEVPILOT_INBOX"
	WorkStream        = "DEVPILOT_WORK"
	LogsStream        = "DEVPILOT_LOGS"
	OutcomesStream    = "DEVPILOT_OUTCOMES"
)

const (
	pushPrefix  = "devpilot.push.v1"
	eventPrefix = "devpilot.event.v1"
	deadPrefix  = "devpilot.dead.v1"
)

// Filters that match every subject of their kind.
const (
	AllPushes      = pushPrefix + ".>"
	AllEvents      = eventPrefix + ".>"
	AllDeadLetters = deadPrefix + ".>"
)

// ErrBadToken says that a part of a subject is empty, too long, or holds a character that subjects
// give a meaning to. Encode such a value first.
var ErrBadToken = errors.New("stream: not usable as a subject token")

// ErrBadSubject says that a subject is not of the kind that was expected.
var ErrBadSubject = errors.New("stream: unexpected subject")

// maxToken keeps subjects far below the server's limit of a control line, 4 KiB.
const maxToken = 512

// CheckToken returns ErrBadToken unless s may be one token of a subject: not empty, and without
// '.', '*', '>', white space and control characters.
func CheckToken(s string) error {
	if s == "" || len(s) > maxToken {
		return fmt.Errorf("%w: length %d", ErrBadToken, len(s))
	}
	for _, r := range s {
		if r <= ' ' || r == 0x7f || r == '.' || r == '*' || r == '>' {
			return fmt.Errorf("%w: holds %q", ErrBadToken, r)
		}
	}
	return nil
}

// Subject is prefix and the tokens after it, or ErrBadToken.
func Subject(prefix string, tokens ...string) (string, error) {
	for _, t := range tokens {
		if err := CheckToken(t); err != nil {
			return "", err
		}
	}
	return prefix + "." + strings.Join(tokens, "."), nil
}

// Tokens are the n tokens after the prefix of a subject, or ErrBadSubject.
func Tokens(subject, prefix string, n int) ([]string, error) {
	rest, ok := strings.CutPrefix(subject, prefix+".")
	if !ok {
		return nil, fmt.Errorf("%w: %q is not under %s", ErrBadSubject, subject, prefix)
	}
	tokens := strings.Split(rest, ".")
	if len(tokens) != n {
		return nil, fmt.Errorf("%w: %q has %d tokens after %s, not %d", ErrBadSubject, subject, len(tokens), prefix, n)
	}
	for _, t := range tokens {
		if err := CheckToken(t); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBadSubject, err)
		}
	}
	return tokens, nil
}

// PushSubject is devpilot.push.v1.<workspace>.<repository>.
func PushSubject(workspace, repository string) (string, error) {
	return Subject(pushPrefix, workspace, repository)
}

// ParsePushSubject is the inverse of PushSubject.
func ParsePushSubject(subject string) (workspace, repository string, err error) {
	t, err := Tokens(subject, pushPrefix, 2)
	if err != nil {
		return "", "", err
	}
	return t[0], t[1], nil
}

// EventSubject is devpilot.event.v1.<service>.<workspace>.<kind>.
func EventSubject(service, workspace, kind string) (string, error) {
	return Subject(eventPrefix, service, workspace, kind)
}

// EventsOfService matches all change events of one service, or one kind of them when kind is not
// empty.
func EventsOfService(service, kind string) (string, error) {
	if kind == "" {
		s, err := Subject(eventPrefix, service)
		return s + ".>", err
	}
	for _, t := range []string{service, kind} {
		if err := CheckToken(t); err != nil {
			return "", err
		}
	}
	return eventPrefix + "." + service + ".*." + kind, nil
}

// EventsBy matches all change events of one service, whose name is one of ours.
func EventsBy(service string) string { return eventPrefix + "." + service + ".>" }

// EventsOfWorkspace matches all change events of one workspace.
func EventsOfWorkspace(workspace string) (string, error) {
	if err := CheckToken(workspace); err != nil {
		return "", err
	}
	return eventPrefix + ".*." + workspace + ".*", nil
}

// ParseEventSubject is the inverse of EventSubject.
func ParseEventSubject(subject string) (service, workspace, kind string, err error) {
	t, err := Tokens(subject, eventPrefix, 3)
	if err != nil {
		return "", "", "", err
	}
	return t[0], t[1], t[2], nil
}

// DeadLetterSubject is devpilot.dead.v1.<stream>.<consumer>.<sequence>: one subject per parked
// message, so that parking it twice stores it once.
func DeadLetterSubject(stream, consumer string, sequence uint64) (string, error) {
	return Subject(deadPrefix, stream, consumer, strconv.FormatUint(sequence, 10))
}

// ParseDeadLetterSubject is the inverse of DeadLetterSubject.
func ParseDeadLetterSubject(subject string) (stream, consumer string, sequence uint64, err error) {
	t, err := Tokens(subject, deadPrefix, 3)
	if err != nil {
		return "", "", 0, err
	}
	if sequence, err = strconv.ParseUint(t[2], 10, 64); err != nil {
		return "", "", 0, fmt.Errorf("%w: sequence %q", ErrBadSubject, t[2])
	}
	return t[0], t[1], sequence, nil
}
