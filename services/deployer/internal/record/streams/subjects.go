package streams

import (
	"fmt"
	"strconv"
	"strings"

	"devpilot.io/bitbucket/pkg/stream"
)

const (
	workPrefix   = "devpilot.work.v1"
	decidePrefix = "devpilot.decide.v1"
	checkPrefix  = "devpilot.check.v1"

	// AllChecks matches the questions to the workers of every server.
	AllChecks = checkPrefix + ".>"
	logPrefix = "devpilot.log.v1"
)

// OutcomeSubject is where what came of pushes is stored until webhook has recorded it.
const OutcomeSubject = "devpilot.outcome.v1"

// WorkSubject is devpilot.work.v1.<server>.<workspace>.<app>.
func WorkSubject(server, workspace, app string) (string, error) {
	return stream.Subject(workPrefix, server, workspace, app)
}

// WorkFilter matches the wake-ups of one server.
func WorkFilter(server string) (string, error) {
	s, err := stream.Subject(workPrefix, server)
	return s + ".>", err
}

// ParseWorkSubject is the inverse of WorkSubject.
func ParseWorkSubject(subject string) (server, workspace, app string, err error) {
	t, err := stream.Tokens(subject, workPrefix, 3)
	if err != nil {
		return "", "", "", err
	}
	return t[0], t[1], t[2], nil
}

// DecideSubject is devpilot.decide.v1.<server>.<workspace>.<app>: an app's pushes wait for a worker
// of the server to decide about them.
func DecideSubject(server, workspace, app string) (string, error) {
	return stream.Subject(decidePrefix, server, workspace, app)
}

// DecideFilter matches the wake-ups of one server for decisions.
func DecideFilter(server string) (string, error) {
	s, err := stream.Subject(decidePrefix, server)
	return s + ".>", err
}

// ParseDecideSubject is the inverse of DecideSubject.
func ParseDecideSubject(subject string) (server, workspace, app string, err error) {
	t, err := stream.Tokens(subject, decidePrefix, 3)
	if err != nil {
		return "", "", "", err
	}
	return t[0], t[1], t[2], nil
}

// CheckSubject is devpilot.check.v1.<server>: a worker of the server is asked, outside all streams, what
// would come of a push.
func CheckSubject(server string) (string, error) { return stream.Subject(checkPrefix, server) }

// ExamineSubject is devpilot.check.v1.<server>.<worker>: one worker is asked, outside all streams, how its machine is. The
// dots that the id of a worker has from its host are no ends of tokens.
func ExamineSubject(server, worker string) (string, error) {
	return stream.Subject(checkPrefix, server, strings.ReplaceAll(worker, ".", "_"))
}

// LogSubject is devpilot.log.v1.<workspace>.<app>.<number>; deployments count from 1.
func LogSubject(workspace, app string, number int32) (string, error) {
	if number < 1 {
		return "", fmt.Errorf("%w: deployment number %d", stream.ErrBadToken, number)
	}
	return stream.Subject(logPrefix, workspace, app, strconv.FormatInt(int64(number), 10))
}

// LogsOfApp matches the logs of all deployments of one app.
func LogsOfApp(workspace, app string) (string, error) {
	s, err := stream.Subject(logPrefix, workspace, app)
	return s + ".*", err
}

// ParseLogSubject is the inverse of LogSubject.
func ParseLogSubject(subject string) (workspace, app string, number int32, err error) {
	t, err := stream.Tokens(subject, logPrefix, 3)
	if err != nil {
		return "", "", 0, err
	}
	n, err := strconv.ParseInt(t[2], 10, 32)
	if err != nil || n < 1 {
		return "", "", 0, fmt.Errorf("%w: deployment number %q", stream.ErrBadSubject, t[2])
	}
	return t[0], t[1], int32(n), nil
}
