// Command gen writes services/REFERENCE.md and services/METRICS.md. Run it at the root of the repository; with
// -check it only says whether the pages are as they would be written.
package main

import (
	"flag"
	"fmt"
	"os"

	"devpilot.io/bitbucket/services/allinone/internal/reference"
)

// pages are what is made, and how.
var pages = []struct {
	file string
	make func(root string) (string, error)
}{
	{"services/REFERENCE.md", reference.Make},
	{"services/METRICS.md", reference.MakeMetrics},
}

func main() {
	check := flag.Bool("check", false, "only compare")
	flag.Parse()
	for _, p := range pages {
		if err := run(p.file, p.make, *check); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1) //nolint:forbidigo // this is a main
		}
	}
}

func run(page string, produce func(string) (string, error), check bool) error {
	want, err := produce(".")
	if err != nil {
		return err
	}
	if !check {
		return os.WriteFile(page, []byte(want), 0o644) //nolint:gosec // a document
	}
	have, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	if string(have) != want {
		return fmt.Errorf("%s is stale: run make generate", page)
	}
	return nil
}
