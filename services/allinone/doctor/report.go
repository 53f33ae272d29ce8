package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// State is what a check came to.
type State string

// The states.
const (
	OK      State = "OK"
	Warning State = "WARNING" // it works, and something is to be known or mended
	Failed  State = "FAILED"
	Skipped State = "SKIPPED" // not checked; Found says why
)

// Check is one thing that was looked at.
type Check struct {
	Name           string `json:"name"`
	State          State  `json:"state"`
	Found          string `json:"found"`  // a sentence
	Remedy         string `json:"remedy"` // a sentence; empty where there is nothing to do
	DurationMillis int64  `json:"durationMillis"`
}

func ok(format string, args ...any) Check {
	return Check{State: OK, Found: fmt.Sprintf(format, args...)}
}

func skipped(format string, args ...any) Check {
	return Check{State: Skipped, Found: fmt.Sprintf(format, args...)}
}

func warning(found, remedy string) Check { return Check{State: Warning, Found: found, Remedy: remedy} }

func failed(found, remedy string) Check { return Check{State: Failed, Found: found, Remedy: remedy} }

// Report is what came of all checks. Its JSON is read by programs: fields are added and never renamed.
type Report struct {
	Program  string    `json:"program"` // whose settings were checked
	Version  string    `json:"version"` // of this program
	Time     time.Time `json:"time"`
	State    State     `json:"state"` // the worst of the checks
	OK       int       `json:"ok"`
	Warnings int       `json:"warnings"`
	Failed   int       `json:"failed"`
	Skipped  int       `json:"skipped"`
	Checks   []Check   `json:"checks"`
}

// conclude counts the checks.
func (r *Report) conclude() {
	for _, c := range r.Checks {
		switch c.State {
		case OK:
			r.OK++
		case Warning:
			r.Warnings++
		case Failed:
			r.Failed++
		case Skipped:
			r.Skipped++
		}
	}
	switch {
	case r.Failed > 0:
		r.State = Failed
	case r.Warnings > 0:
		r.State = Warning
	default:
		r.State = OK
	}
}

func (r *Report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

// writeTable writes a line for each check, what to do below it, and a last line that sums up.
func (r *Report) writeTable(w io.Writer) error {
	width := 0
	for _, c := range r.Checks {
		width = max(width, len(c.Name))
	}
	var b strings.Builder
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%-8s %-*s  %s\n", c.State, width, c.Name, oneLine(c.Found))
		if c.Remedy != "" {
			fmt.Fprintf(&b, "%-8s %-*s  -> %s\n", "", width, "", oneLine(c.Remedy))
		}
	}
	last := "All is well."
	switch r.State {
	case Failed:
		last = "Something failed: do what the arrows say, and run it again."
	case Warning:
		last = "It works; read the warnings."
	case OK, Skipped:
	}
	fmt.Fprintf(&b, "%d checks of %s (version %s): %d OK, %d with a warning, %d failed, %d skipped. %s\n", len(r.Checks), r.Program, r.Version, r.OK, r.Warnings, r.Failed, r.Skipped, last)
	_, err := io.WriteString(w, b.String())
	return err
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
