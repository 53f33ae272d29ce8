package reference

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
)

const metricsIntro = `# Metrics

Made from the code by ` + "`make generate`" + `: change a name or its sentence where it stands, not here. Every service tells its own at ` + "`/metrics`" + ` of its ops
address ([Addresses](REFERENCE.md#addresses)); the one program tells all of them. A test scrapes the running product and holds what it finds to this page,
both ways. [RUNBOOKS.md](../deploy/RUNBOOKS.md) says what to do when an alert calls.

* What "all replicas tell the same" of is shared: take ` + "`max`" + ` over replicas, never ` + "`sum`" + `.
* A label is never an app, a repository or a workspace, so that the number of series does not grow with use.
* Beside these there are those of the Go runtime (` + "`go_…`" + `) and of the process (` + "`process_…`" + `).

| metric | type | unit | labels | told by | meaning |
| --- | --- | --- | --- | --- | --- |
`

// metric is one as its code describes it.
type metric struct {
	name, kind, help, dir string
	labels                []string
}

// MakeMetrics returns the page of metrics for the tree at root.
func MakeMetrics(root string) (string, error) {
	code, err := read(root)
	if err != nil {
		return "", err
	}
	list, err := code.metrics()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(metricsIntro)
	for _, m := range list {
		labels := "none"
		if len(m.labels) > 0 {
			labels = "`" + strings.Join(m.labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", m.name, m.kind, unit(m), labels, teller(m.dir), cell(m.help))
	}
	return b.String(), nil
}

// teller is the service that a directory is of.
func teller(dir string) string {
	if rest, ok := strings.CutPrefix(dir, "services/"); ok {
		service, _, _ := strings.Cut(rest, "/")
		return service
	}
	return "all that use `" + dir + "`"
}

// units are the endings of names, and what they count in.
var units = [][2]string{
	{"_seconds", "seconds"}, {"_bytes", "bytes"}, {"_bytes_total", "bytes"}, {"_ratio", "of 1"}, {"_days_left", "days"}, {"_messages", "messages"}, {"_revisions", "revisions"},
	{"_up", "0 or 1"}, {"_ready", "0 or 1"}, {"_failing", "0 or 1"},
}

func unit(m metric) string {
	for _, u := range units {
		if strings.HasSuffix(m.name, u[0]) {
			return u[1]
		}
	}
	return "count"
}

// kinds are the constructors of metrics, and what each makes.
var kinds = map[string]string{
	"NewCounter": "counter", "NewCounterVec": "counter", "NewCounterFunc": "counter",
	"NewGauge": "gauge", "NewGaugeVec": "gauge", "NewGaugeFunc": "gauge",
	"NewHistogram": "histogram", "NewHistogramVec": "histogram", "NewDesc": "",
}

// metrics are those that the code makes, by name. One whose name, sentence or labels are not written out where it
// is made is an error.
func (c *code) metrics() ([]metric, error) {
	var list []metric
	var failed error
	for _, s := range c.packages {
		if strings.HasPrefix(s.dir, "pkg/bitbucket/emulator") {
			continue
		}
		for _, f := range s.files {
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				kind, ok := kinds[of(call.Fun, "prometheus")]
				if !ok {
					return true
				}
				m, err := s.metric(call, kind)
				if err != nil && failed == nil {
					failed = fmt.Errorf("%s: %w", s.fset.Position(call.Pos()), err)
				}
				list = append(list, m)
				return true
			})
		}
	}
	slices.SortFunc(list, func(a, b metric) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(list) && failed == nil; i++ {
		if list[i].name == list[i-1].name {
			failed = fmt.Errorf("%s is made in %s and in %s", list[i].name, list[i-1].dir, list[i].dir)
		}
	}
	return list, failed
}

// of is the name that e selects of a package, or "".
func of(e ast.Expr, name string) string {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if id, ok := sel.X.(*ast.Ident); !ok || id.Name != name {
		return ""
	}
	return sel.Sel.Name
}

// metric reads a call of a constructor.
func (s *source) metric(call *ast.CallExpr, kind string) (metric, error) {
	m := metric{kind: kind, dir: s.dir}
	var labels []ast.Expr
	if kind == "" { // NewDesc(name, help, labels, const labels); what it describes is seen by its name
		m.name, m.help, m.kind = s.text(call.Args[0]), s.text(call.Args[1]), "gauge"
		if strings.HasSuffix(m.name, "_total") {
			m.kind = "counter"
		}
		labels = append(labels, call.Args[2])
	} else {
		opts, ok := call.Args[0].(*ast.CompositeLit)
		if !ok {
			return m, fmt.Errorf("a metric whose options are not written out")
		}
		for _, e := range opts.Elts {
			kv, _ := e.(*ast.KeyValueExpr)
			switch kv.Key.(*ast.Ident).Name {
			case "Name":
				m.name = s.text(kv.Value)
			case "Help":
				m.help = s.text(kv.Value)
			case "ConstLabels":
				labels = append(labels, kv.Value)
			}
		}
		if strings.HasSuffix(of(call.Fun, "prometheus"), "Vec") {
			labels = append(labels, call.Args[1])
		}
	}
	if m.name == "" || m.help == "" {
		return m, fmt.Errorf("a metric whose name or sentence is not written out")
	}
	for _, e := range labels {
		if id, ok := e.(*ast.Ident); ok && id.Name == "nil" {
			continue
		}
		lit, ok := e.(*ast.CompositeLit)
		if !ok {
			return m, fmt.Errorf("%s: labels that are not written out", m.name)
		}
		for _, e := range lit.Elts {
			if kv, ok := e.(*ast.KeyValueExpr); ok {
				e = kv.Key
			}
			name := s.text(e)
			if b, ok := e.(*ast.BasicLit); ok && name == "" { // of a map whose type is another package's
				name = strings.Trim(b.Value, `"`)
			}
			if name == "" {
				return m, fmt.Errorf("%s: a label that is not written out", m.name)
			}
			m.labels = append(m.labels, name)
		}
	}
	slices.Sort(m.labels)
	return m, nil
}
