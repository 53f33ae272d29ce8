// Package reference makes services/REFERENCE.md from the code: settings from the flag groups,
// addresses from each program's Spec, buckets and streams from the names that are opened, limits from
// the constants that carry a comment, roles from the gateway's table.
//
// Flow: [Make] reads each package's source (source.go), collects the tables (tables.go) and writes the
// page. A test holds the page in the repository to what is made here.
package reference

import (
	"fmt"
	"strings"
)

const intro = `# Settings and limits

Made from the code by ` + "`make generate`" + `: change a value or its sentence where it stands, not here. What they are for is told in
[DESIGN.md](DESIGN.md).

## Where to look

`

// looked are questions that people had, and the table and name that answers each. A name that is
// gone is an error of Make.
var looked = [][2]string{
	{"where the product listens", "--listen"},
	{"how many deployments run at a time", "--workers"},
	{"how long a silent worker keeps its deployments", "--worker-lease"},
	{"how long a deployment waits for Bitbucket before it fails", "RetryLimit"},
	{"how often a push that failed outside its commit is tried again", "MostRetries"},
	{"how many rows a page has", "DefaultPage"},
	{"how many releases an app keeps", "defaultRetention"},
	{"how much of the disk an app may take", "--app-disk-mib"},
	{"how often branches are compared with Bitbucket", "--reconcile-interval"},
	{"when a refused connection has to be made anew", "RefusalsApart"},
	{"how long an old webhook secret is accepted", "Overlap"},
	{"the size of a delivery", "MaxBody"},
	{"how long a session lasts", "DefaultLife"},
}

// Make returns the page for the tree at root.
func Make(root string) (string, error) {
	code, err := read(root)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(intro)
	limits, settings := code.limits(), settingsTable()
	if mute := code.mute(); len(mute) > 0 {
		return "", fmt.Errorf("say in a comment what these constants decide:\n%s", strings.Join(mute, "\n"))
	}
	b.WriteString("| question | answer |\n| --- | --- |\n")
	for _, l := range looked {
		row, ok := find(l[1], settings, limits)
		if !ok {
			return "", fmt.Errorf("the reference tells of %s, which is no setting and no limit any more: change looked in services/allinone/internal/reference", l[1])
		}
		fmt.Fprintf(&b, "| %s | %s |\n", l[0], row)
	}
	writeSettings(&b, settings)
	code.writeAddresses(&b)
	writeRoles(&b)
	code.writeStores(&b)
	writeLimits(&b, limits)
	return b.String(), nil
}

func (c *code) mute() []string {
	var list []string
	for _, s := range c.packages {
		list = append(list, s.mute...)
	}
	return list
}

func find(name string, settings []setting, limits []limit) (string, bool) {
	for _, s := range settings {
		if "--"+s.flag == name {
			return fmt.Sprintf("`%s`, default %s", name, s.fallback), true
		}
	}
	for _, l := range limits {
		if l.name == name {
			return fmt.Sprintf("`%s` in `%s`: %s", name, l.dir, l.value), true
		}
	}
	return "", false
}
