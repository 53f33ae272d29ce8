package stream

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Names of the streams that several services use (DESIGN.md#state).
const (
	PushesStream      = "DEVPILOT_PUSHES"
	WorkStream        = "DEVPILOT_WORK"
	EventsStream      = "DEVPILOT_EVENTS"
	LogsStream        = "DEVPILOT_LOGS"
	DeadLettersStream = "DEVPILOT_DEAD_LETTERS"
	OutcomesStream    = "DEVPILOT_OUTCOMES"
)

const (
	pushPrefix   = "devpilot.push.v1"
	workPrefix   = "devpilot.work.v1"
	decidePrefix = "devpilot.decide.v1"
	checkPrefix  = "devpilot.check.v1"
	eventPrefix  = "devpilot.event.v1"
	logPrefix    = "devpilot.log.v1"
	deadPrefix   = "devpilot.dead.v1"

	outcomeSubject = "devpilot.outcome.v1"
)

// Filters that match every subject of their kind.
const (
	AllPushes      = pushPrefix + ".>"
	AllWork        = workPrefix + ".>"
	AllDecisions   = decidePrefix + ".>"
	AllEvents      = eventPrefix + ".>"
	AllLogs        = logPrefix + ".>"
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

func join(prefix string, tokens ...string) (string, error) {
	for _, t := range tokens {
		if err := CheckToken(t); err != nil {
			return "", err
		}
	}
	return prefix + "." + strings.Join(tokens, "."), nil
}

func split(subject, prefix string, n int) ([]string, error) {
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

// OutcomeSubject is where the deployer stores what came of pushes until webhook has recorded it.
func OutcomeSubject() string { return outcomeSubject }

// PushSubject is devpilot.push.v1.<workspace>.<repository>.
func PushSubject(workspace, repository string) (string, error) {
	return join(pushPrefix, workspace, repository)
}

// ParsePushSubject is the inverse of PushSubject.
func ParsePushSubject(subject string) (workspace, repository string, err error) {
	t, err := split(subject, pushPrefix, 2)
	if err != nil {
		return "", "", err
	}
	return t[0], t[1], nil
}

// WorkSubject is devpilot.work.v1.<server>.<workspace>.<app>.
func WorkSubject(server, workspace, app string) (string, error) {
	return join(workPrefix, server, workspace, app)
}

// WorkFilter matches the wake-ups of one server.
func WorkFilter(server string) (string, error) {
	s, err := join(workPrefix, server)
	return s + ".>", err
}

// ParseWorkSubject is the inverse of WorkSubject.
func ParseWorkSubject(subject string) (server, workspace, app string, err error) {
	t, err := split(subject, workPrefix, 3)
	if err != nil {
		return "", "", "", err
	}
	return t[0], t[1], t[2], nil
}

// DecideSubject is devpilot.decide.v1.<server>.<workspace>.<app>: an app's pushes wait for a worker
// of the server to decide about them.
func DecideSubject(server, workspace, app string) (string, error) {
	return join(decidePrefix, server, workspace, app)
}

// DecideFilter matches the wake-ups of one server for decisions.
func DecideFilter(server string) (string, error) {
	s, err := join(decidePrefix, server)
	return s + ".>", err
}

// ParseDecideSubject is the inverse of DecideSubject.
func ParseDecideSubject(subject string) (server, workspace, app string, err error) {
	t, err := split(subject, decidePrefix, 3)
	if err != nil {
		return "", "", "", err
	}
	return t[0], t[1], t[2], nil
}

// CheckSubject is devpilot.check.v1.<server>: a worker of the server is asked, outside all streams, what
// would come of a push.
func CheckSubject(server string) (string, error) { return join(checkPrefix, server) }

// EventSubject is devpilot.event.v1.<service>.<workspace>.<kind>.
func EventSubject(service, workspace, kind string) (string, error) {
	return join(eventPrefix, service, workspace, kind)
}

// EventsOfService matches all change events of one service, or one kind of them when kind is not
// empty.
func EventsOfService(service, kind string) (string, error) {
	if kind == "" {
		s, err := join(eventPrefix, service)
		return s + ".>", err
	}
	for _, t := range []string{service, kind} {
		if err := CheckToken(t); err != nil {
			return "", err
		}
	}
	return eventPrefix + "." + service + ".*." + kind, nil
}

// EventsOfWorkspace matches all change events of one workspace.
func EventsOfWorkspace(workspace string) (string, error) {
	if err := CheckToken(workspace); err != nil {
		return "", err
	}
	return eventPrefix + ".*." + workspace + ".*", nil
}

// ParseEventSubject is the inverse of EventSubject.
func ParseEventSubject(subject string) (service, workspace, kind string, err error) {
	t, err := split(subject, eventPrefix, 3)
	if err != nil {
		return "", "", "", err
	}
	return t[0], t[1], t[2], nil
}

// LogSubject is devpilot.log.v1.<workspace>.<app>.<number>; deployments count from 1.
func LogSubject(workspace, app string, number int32) (string, error) {
	if number < 1 {
		return "", fmt.Errorf("%w: deployment number %d", ErrBadToken, number)
	}
	return join(logPrefix, workspace, app, strconv.FormatInt(int64(number), 10))
}

// LogsOfApp matches the logs of all deployments of one app.
func LogsOfApp(workspace, app string) (string, error) {
	s, err := join(logPrefix, workspace, app)
	return s + ".*", err
}

// ParseLogSubject is the inverse of LogSubject.
func ParseLogSubject(subject string) (workspace, app string, number int32, err error) {
	t, err := split(subject, logPrefix, 3)
	if err != nil {
		return "", "", 0, err
	}
	n, err := strconv.ParseInt(t[2], 10, 32)
	if err != nil || n < 1 {
		return "", "", 0, fmt.Errorf("%w: deployment number %q", ErrBadSubject, t[2])
	}
	return t[0], t[1], int32(n), nil
}

// DeadLetterSubject is devpilot.dead.v1.<stream>.<consumer>.<sequence>: one subject per parked
// message, so that parking it twice stores it once.
func DeadLetterSubject(stream, consumer string, sequence uint64) (string, error) {
	return join(deadPrefix, stream, consumer, strconv.FormatUint(sequence, 10))
}

// ParseDeadLetterSubject is the inverse of DeadLetterSubject.
func ParseDeadLetterSubject(subject string) (stream, consumer string, sequence uint64, err error) {
	t, err := split(subject, deadPrefix, 3)
	if err != nil {
		return "", "", 0, err
	}
	if sequence, err = strconv.ParseUint(t[2], 10, 64); err != nil {
		return "", "", 0, fmt.Errorf("%w: sequence %q", ErrBadSubject, t[2])
	}
	return t[0], t[1], sequence, nil
}
