package prometheus

import (
	"context"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
)

const alertsFile = "alerts.yaml"

func promQL() parser.Parser { return parser.NewParser(parser.Options{}) }

func alerts(t *testing.T) []rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(alertsFile, false, model.UTF8Validation, promQL(), slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Error(err)
	}
	if t.Failed() {
		t.FailNow()
	}
	var all []rulefmt.Rule
	for _, g := range groups.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("there are no alerts")
	}
	return all
}

// Each alert fires in its story, once, with all that it says filled in; and is silent beside it.
func TestAlerts_fireWhenTheyOughtToAndOnlyThen(t *testing.T) {
	told := map[string]bool{}
	for _, rule := range alerts(t) {
		told[rule.Alert] = true
		t.Run(rule.Alert, func(t *testing.T) {
			s, ok := stories[rule.Alert]
			if !ok {
				t.Fatal("no story fires it")
			}
			fired := firing(t, rule, s.fires)
			if len(fired) != 1 {
				t.Fatalf("its story fires %d alerts", len(fired))
			}
			if summary := fired[0].Annotations.Get("summary"); summary == "" || strings.Contains(summary, "<") || strings.Contains(summary, "{{") {
				t.Errorf("it says %q", summary)
			} else {
				t.Log(summary)
			}
			if quiet := firing(t, rule, s.quiet); len(quiet) != 0 {
				t.Errorf("it fires where nothing is wrong: %v", quiet[0].Labels)
			}
		})
	}
	for name := range stories {
		if !told[name] {
			t.Errorf("there is a story of %s, and no such alert", name)
		}
	}
}

// firing evaluates a rule each minute over what Prometheus has seen, and returns what fires at the end.
func firing(t *testing.T, rule rulefmt.Rule, seen []string) []*rules.Alert {
	t.Helper()
	loader, err := promqltest.NewLazyLoader("load 1m\n\t"+strings.Join(seen, "\n\t"), promqltest.LazyLoaderOpts{EnableAtModifier: true, EnableNegativeOffset: true})
	if err != nil {
		t.Fatal(err)
	}
	defer loader.Close()
	expr, err := promQL().ParseExpr(rule.Expr)
	if err != nil {
		t.Fatal(err)
	}
	alert := rules.NewAlertingRule(rule.Alert, expr, time.Duration(rule.For), time.Duration(rule.KeepFiringFor), labels.FromMap(rule.Labels), labels.FromMap(rule.Annotations),
		labels.EmptyLabels(), "", true, slog.New(slog.DiscardHandler))
	query := rules.EngineQueryFunc(loader.QueryEngine(), loader.Queryable())
	for minute := range samples(t, seen) {
		at := time.Unix(0, 0).UTC().Add(time.Duration(minute) * time.Minute)
		loader.WithSamplesTill(at, func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		})
		if _, err := alert.Eval(context.WithoutCancel(loader.Context()), 0, at, query, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	var out []*rules.Alert
	for _, a := range alert.ActiveAlerts() {
		if a.State == rules.StateFiring {
			out = append(out, a)
		}
	}
	return out
}

// samples is for how many minutes the longest of the series lasts.
func samples(t *testing.T, seen []string) int {
	t.Helper()
	most := 0
	for _, s := range seen {
		_, values, err := promQL().ParseSeriesDesc(s)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		most = max(most, len(values))
	}
	return most
}

// Each alert says how urgent it is, and has a runbook that says all that one on call asks; and each runbook an alert.
func TestAlerts_haveRunbooks(t *testing.T) {
	page, err := os.ReadFile("../RUNBOOKS.md")
	if err != nil {
		t.Fatal(err)
	}
	books := map[string]string{}
	for _, part := range strings.Split(string(page), "\n## ")[1:] {
		name, text, _ := strings.Cut(part, "\n")
		books[name] = text
	}
	for _, rule := range alerts(t) {
		if !slices.Contains([]string{"page", "ticket"}, rule.Labels["severity"]) {
			t.Errorf("%s: severity %q", rule.Alert, rule.Labels["severity"])
		}
		if want := "deploy/RUNBOOKS.md#" + strings.ToLower(rule.Alert); rule.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook %q, want %q", rule.Alert, rule.Annotations["runbook_url"], want)
		}
		text, ok := books[rule.Alert]
		if !ok {
			t.Errorf("%s has no runbook", rule.Alert)
			continue
		}
		delete(books, rule.Alert)
		parts := []string{map[string]string{"page": "*Page.*", "ticket": "*Ticket.*"}[rule.Labels["severity"]], "* **Who suffers.** ", "* **Look at.** ", "* **Do.** "}
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("the runbook of %s lacks %q", rule.Alert, part)
			}
		}
	}
	for name := range books {
		t.Errorf("there is a runbook for %s, and no such alert", name)
	}
}

// Alerts, runbooks and stories speak of metrics and labels that there are.
func TestAlerts_nameMetricsThatThereAre(t *testing.T) {
	for _, rule := range alerts(t) {
		known(t, rule.Alert, rule.Expr)
	}
	page, err := os.ReadFile("../RUNBOOKS.md")
	if err != nil {
		t.Fatal(err)
	}
	all := metrics(t)
	for _, name := range regexp.MustCompile("`(devpilot_[a-z_]+)`").FindAllStringSubmatch(string(page), -1) {
		if _, ok := all[name[1]]; !ok {
			t.Errorf("RUNBOOKS.md speaks of %s, which is no metric", name[1])
		}
	}
	for name, s := range stories {
		for _, series := range slices.Concat(s.fires, s.quiet) {
			if !strings.HasPrefix(series, "devpilot_") { // of others
				continue
			}
			desc, _, err := promQL().ParseSeriesDesc(series)
			if err != nil {
				t.Fatal(err)
			}
			m, ok := all[desc.Get("__name__")]
			if !ok {
				t.Errorf("the story of %s: %s is no metric", name, series)
				continue
			}
			desc.Range(func(l labels.Label) {
				if l.Name != "__name__" && !slices.Contains(targetLabels, l.Name) && !slices.Contains(m, l.Name) {
					t.Errorf("the story of %s: %s has no label %s", name, series, l.Name)
				}
			})
		}
	}
}
