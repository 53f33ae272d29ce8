package routes

import (
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
)

// deprecated are the calls that are to go, by full method or by the template of a stream. DESIGN.md#what-may-change-in-v1 says
// what is promised; TestDeprecated_keepsThePromise holds each row against it. None is now.
var deprecated = map[string]Deprecation{}

// leastNotice is how long a call works after it was said that it goes.
const leastNotice = 180 * 24 * time.Hour

// Deprecation says that a call is to go.
type Deprecation struct {
	Since   time.Time // when it was said
	Sunset  time.Time // until when it works at least
	Instead string    // a sentence: what takes its place
}

// Check holds a row against what is promised.
func (d Deprecation) Check() error {
	switch {
	case d.Since.IsZero():
		return fmt.Errorf("no day since when")
	case d.Sunset.Sub(d.Since) < leastNotice:
		return fmt.Errorf("it goes %d days after that was said, and %d are promised", int(d.Sunset.Sub(d.Since).Hours()/24), int(leastNotice.Hours()/24))
	case d.Instead == "" || !unicode.IsUpper([]rune(d.Instead)[0]) || !strings.HasSuffix(d.Instead, "."):
		return fmt.Errorf("no sentence that says what takes its place")
	}
	return nil
}

// Write says it in the headers of an answer: Deprecation (RFC 9745), Sunset (RFC 8594), and where it is told what
// takes its place.
func (d Deprecation) Write(h http.Header, reference string) {
	h.Set("Deprecation", fmt.Sprintf("@%d", d.Since.Unix()))
	h.Set("Sunset", d.Sunset.UTC().Format(http.TimeFormat))
	h.Add("Link", fmt.Sprintf(`<%s>; rel="deprecation"; type="text/html"`, reference))
}

// OperationID is the call's name in the OpenAPI document.
func (r Route) OperationID() string {
	switch r.Template {
	case EventsTemplate:
		return "streamEvents"
	case ActivityExportTemplate:
		return "exportActivity"
	}
	name := r.RPC[strings.LastIndex(r.RPC, "/")+1:]
	return strings.ToLower(name[:1]) + name[1:]
}

// deprecate marks the routes that a table names, by full method or template.
func deprecate(all []Route, table map[string]Deprecation) []Route {
	for i, r := range all {
		for _, name := range []string{r.RPC, r.Template} {
			if d, ok := table[name]; ok && name != "" {
				all[i].Deprecated = &d
			}
		}
	}
	return all
}
