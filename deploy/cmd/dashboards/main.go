// Command dashboards makes the dashboards for Grafana of the table in boards.go, and copies them and the alerts to where the
// chart reads them. With -check it says whether that was done.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	dir := flag.String("dir", "grafana", "where to write")
	alerts := flag.String("alerts", "prometheus/alerts.yaml", "the alerts")
	chart := flag.String("chart", "chart/devpilot/files", "where the chart reads dashboards and alerts")
	check := flag.Bool("check", false, "write nothing, and fail where something is to be written")
	flag.Parse()
	err := run(*dir, *check)
	if err == nil {
		err = run(filepath.Join(*chart, "grafana"), *check)
	}
	if err == nil {
		err = toChart(*alerts, filepath.Join(*chart, "alerts.yaml"), *check)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "dashboards:", err)
		os.Exit(1)
	}
}

func run(dir string, check bool) error {
	wanted := map[string]bool{}
	for _, b := range boards {
		made, err := encode(b)
		if err != nil {
			return err
		}
		path := filepath.Join(dir, b.file+".json")
		wanted[path] = true
		if check {
			old, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if !bytes.Equal(old, made) {
				return fmt.Errorf("%s is not as boards.go has it", path)
			}
			continue
		}
		if err := os.WriteFile(path, made, 0o644); err != nil { //nolint:gosec // a file of the repository
			return err
		}
	}
	there, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return err
	}
	for _, path := range there {
		if !wanted[path] {
			return fmt.Errorf("%s is of no board", path)
		}
	}
	return nil
}

// toChart copies a file: the chart can read only what is below its own directory.
func toChart(from, to string, check bool) error {
	want, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if !check {
		return os.WriteFile(to, want, 0o644) //nolint:gosec // a file of the repository
	}
	have, err := os.ReadFile(to)
	if err != nil {
		return err
	}
	if !bytes.Equal(want, have) {
		return fmt.Errorf("%s is not %s", to, from)
	}
	return nil
}

func encode(b board) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(model(b))
	return out.Bytes(), err
}
