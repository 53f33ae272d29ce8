package main

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// described are the metrics that services/METRICS.md describes.
func described(t *testing.T) map[string]bool {
	t.Helper()
	page, err := os.ReadFile("../../../services/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(devpilot_[a-z_]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		all[m[1]] = true
	}
	if len(all) < 50 {
		t.Fatalf("the page describes %d metrics", len(all))
	}
	return all
}

var (
	histogramPart = regexp.MustCompile("_(bucket|sum|count)$")
	variables     = strings.NewReplacer("$__rate_interval", "5m", "$namespace", ".*")
)

// TestBoards_askForWhatIsTold: each question is PromQL about metrics that the services tell, and each metric that they tell
// is on some board.
func TestBoards_askForWhatIsTold(t *testing.T) {
	unseen := described(t)
	known := described(t)
	for _, b := range boards {
		for _, r := range b.rows {
			for _, p := range r.panels {
				if p.title == "" || p.what == "" || p.unit == "" || len(p.lines) == 0 {
					t.Errorf("%s, %s: %+v is not whole", b.title, r.title, p)
				}
				for _, l := range p.lines {
					expr, err := parser.NewParser(parser.Options{}).ParseExpr(variables.Replace(l.expr))
					if err != nil {
						t.Errorf("%s, %s: %s: %v", b.title, p.title, l.expr, err)
						continue
					}
					parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
						if s, ok := node.(*parser.VectorSelector); ok {
							name := s.Name
							if !known[name] {
								name = histogramPart.ReplaceAllString(name, "")
							}
							if !known[name] && !strings.HasPrefix(name, "process_") {
								t.Errorf("%s, %s: no service tells %s", b.title, p.title, s.Name)
							}
							delete(unseen, name)
						}
						return nil
					})
				}
			}
		}
	}
	for name := range unseen {
		t.Errorf("%s is on no board", name)
	}
}

// TestRun_writesWhatGrafanaImports, and -check knows it from what is not as it ought to be.
func TestRun_writesWhatGrafanaImports(t *testing.T) {
	dir := t.TempDir()
	if err := run(dir, false); err != nil {
		t.Fatal(err)
	}
	if err := run(dir, true); err != nil {
		t.Fatal(err)
	}
	uids := map[string]bool{}
	for _, b := range boards {
		raw, err := os.ReadFile(dir + "/" + b.file + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var page struct {
			UID    string
			Panels []struct {
				ID      int
				GridPos struct{ X, Y, W, H int }
			}
		}
		if err := json.Unmarshal(raw, &page); err != nil {
			t.Fatal(err)
		}
		if uids[page.UID] || len(page.UID) > 40 {
			t.Errorf("uid %q", page.UID)
		}
		uids[page.UID] = true
		taken := map[[2]int]int{} // no two panels in one place
		for _, p := range page.Panels {
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other, ok := taken[[2]int{x, y}]; ok || x >= 24 {
						t.Fatalf("%s: panels %d and %d overlap", b.file, other, p.ID)
					}
					taken[[2]int{x, y}] = p.ID
				}
			}
		}
	}
	if err := os.WriteFile(dir+"/old.json", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(dir, true); err == nil {
		t.Error("a file of no board passes")
	}
	if err := os.Remove(dir + "/old.json"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/auth.json", []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(dir, true); err == nil {
		t.Error("a changed file passes")
	}
}
