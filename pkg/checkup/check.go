package checkup

import "fmt"

// State is what a check came to.
type State string

// The states.
const (
	OK      State = "OK"
	Warning State = "WARNING" // it works, and something is to be known or mended
	Failed  State = "FAILED"
	Skipped State = "SKIPPED" // not checked; Found says why
)

// Check is one thing that was looked at. Its JSON is read by programs: fields are added and never renamed.
type Check struct {
	Name           string `json:"name"`
	Where          string `json:"where,omitempty"` // which of several of the kind, such as a worker
	State          State  `json:"state"`
	Found          string `json:"found"`  // a sentence
	Remedy         string `json:"remedy"` // a sentence; empty where there is nothing to do
	DurationMillis int64  `json:"durationMillis"`
}

// Well is a check that found nothing to mend.
func Well(format string, args ...any) Check {
	return Check{State: OK, Found: fmt.Sprintf(format, args...)}
}

// Skip is a check that was not made, and says why.
func Skip(format string, args ...any) Check {
	return Check{State: Skipped, Found: fmt.Sprintf(format, args...)}
}

// Warn is a check that found what is to be known or mended.
func Warn(found, remedy string) Check { return Check{State: Warning, Found: found, Remedy: remedy} }

// Fail is a check that found what does not work.
func Fail(found, remedy string) Check { return Check{State: Failed, Found: found, Remedy: remedy} }

// Worst is the worst of the states of some checks; what was not checked is none.
func Worst(checks []Check) State {
	worst := OK
	for _, c := range checks {
		switch c.State {
		case Failed:
			return Failed
		case Warning:
			worst = Warning
		case OK, Skipped:
		}
	}
	return worst
}
