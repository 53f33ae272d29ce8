// Command dashboards makes the dashboards for Grafana of the table in boards.go. With -check it says whether that was done.
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
	check := flag.Bool("check", false, "write nothing, and fail where something is to be written")
	flag.Parse()
	if err := run(*dir, *check); err != nil {
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

func encode(b board) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(model(b))
	return out.Bytes(), err
}
