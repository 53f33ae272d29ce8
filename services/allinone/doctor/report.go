package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/checkup"
)

// Report is what came of all checks. Its JSON is read by programs: fields are added and never renamed.
type Report struct {
	Program  string          `json:"program"` // whose settings were checked
	Version  string          `json:"version"` // of this program
	Time     time.Time       `json:"time"`
	State    checkup.State   `json:"state"` // the worst of the checks
	OK       int             `json:"ok"`
	Warnings int             `json:"warnings"`
	Failed   int             `json:"failed"`
	Skipped  int             `json:"skipped"`
	Checks   []checkup.Check `json:"checks"`
}

// conclude counts the checks.
func (r *Report) conclude() {
	for _, c := range r.Checks {
		switch c.State {
		case checkup.OK:
			r.OK++
		case checkup.Warning:
			r.Warnings++
		case checkup.Failed:
			r.Failed++
		case checkup.Skipped:
			r.Skipped++
		}
	}
	r.State = checkup.Worst(r.Checks)
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
	case checkup.Failed:
		last = "Something failed: do what the arrows say, and run it again."
	case checkup.Warning:
		last = "It works; read the warnings."
	case checkup.OK, checkup.Skipped:
	}
	fmt.Fprintf(&b, "%d checks of %s (version %s): %d OK, %d with a warning, %d failed, %d skipped. %s\n", len(r.Checks), r.Program, r.Version, r.OK, r.Warnings, r.Failed, r.Skipped, last)
	_, err := io.WriteString(w, b.String())
	return err
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
