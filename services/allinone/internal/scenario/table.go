package scenario

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// shown is what the table says of the story.
var shown = []struct{ app, what string }{
	{"web", "live and in sync; deliveries with every outcome, one considered again"},
	{"staging", "behind: auto-deploy is off"},
	{"handbook", "live; Bitbucket does not let its webhook be made"},
	{"search", "live by a redeployment"},
	{"shop", "live; one deployment was cancelled, one superseded"},
	{"blog", "rolled back, auto-deploy paused with it"},
	{"mobile", "live with a chosen commit"},
	{"landing", "never deployed"},
	{"api", "failing: a hook ended with 1, its log is there"},
	{"reports", "waiting: Bitbucket's git does not answer"},
	{"video", "being deployed, for an hour"},
}

// Table tells what there is, with links.
func Table(out io.Writer, public, site string, end time.Time) {
	fmt.Fprintf(out, "\nThe scenario \"team\" is ready.\n\n")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, s := range shown {
		fmt.Fprintf(w, "  %s\t%s\t%s/w/%s/apps/%s\n", s.app, s.what, public, workspace, s.app)
	}
	fmt.Fprintf(w, "  empty\ta workspace that nobody connected\t%s/w/%s/apps\n", public, bareWorkspace)
	for _, p := range People() {
		role := p.Role
		if role == "" {
			role = "invited as a member; the link of the invitation was answered to who made it"
		}
		fmt.Fprintf(w, "  %s\t%s\tchoose %s\n", p.ID, role, p.Name)
	}
	_ = w.Flush() // a terminal that went away is no error of ours
	fmt.Fprintf(out, "\nSign in as anybody at %s/sign-in, or with a program: %s%s says how far the scenario is and who is there\n", public, site, Path)
	if !end.IsZero() {
		fmt.Fprintf(out, "The API's times end at %s\n", end.Format(time.RFC3339))
	}
}
