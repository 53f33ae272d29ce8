package prometheus

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// targetLabels are those that Prometheus adds to what it scrapes, and that of histograms.
var targetLabels = []string{"job", "instance", "le"}

var metricRow = regexp.MustCompile("(?m)^\\| `(devpilot_[a-z_]+)` \\| ([a-z]+) \\| [^|]+ \\| ([^|]+) \\|")

// metrics are those of services/METRICS.md with their labels, those of histograms by the names of their series.
func metrics(t *testing.T) map[string][]string {
	t.Helper()
	page, err := os.ReadFile("../../services/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for _, m := range metricRow.FindAllStringSubmatch(string(page), -1) {
		labels := strings.Split(strings.ReplaceAll(m[3], "`", ""), ", ")
		if m[2] == "histogram" {
			for _, end := range []string{"_bucket", "_sum", "_count"} {
				all[m[1]+end] = labels
			}
		}
		all[m[1]] = labels
	}
	if len(all) < 80 {
		t.Fatalf("services/METRICS.md tells of %d metrics", len(all))
	}
	return all
}

// known makes sure that an expression can be read, and names metrics and labels that there are.
func known(t *testing.T, where, text string) {
	t.Helper()
	expr, err := promQL().ParseExpr(text)
	if err != nil {
		t.Errorf("%s: %s: %v", where, text, err)
		return
	}
	all := metrics(t)
	var grouped []string
	var has []string
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			labels, ok := all[n.Name]
			if !ok {
				t.Errorf("%s: %s is no metric", where, n.Name)
			}
			for _, m := range n.LabelMatchers {
				if m.Name != "__name__" && !slices.Contains(labels, m.Name) && !slices.Contains(targetLabels, m.Name) {
					t.Errorf("%s: %s has no label %s", where, n.Name, m.Name)
				}
			}
			has = append(has, labels...)
		case *parser.AggregateExpr:
			grouped = append(grouped, n.Grouping...)
		}
		return nil
	})
	for _, label := range grouped {
		if !slices.Contains(has, label) && !slices.Contains(targetLabels, label) {
			t.Errorf("%s: nothing has the label %s", where, label)
		}
	}
}
