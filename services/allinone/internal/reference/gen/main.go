// Command gen writes services/REFERENCE.md. Run it at the root of the repository; with -check it
// only says whether the page is as it would be written.
package main

import (
	"flag"
	"fmt"
	"os"

	"devpilot.io/bitbucket/services/allinone/internal/reference"
)

const page = "services/REFERENCE.md"

func main() {
	check := flag.Bool("check", false, "only compare")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:forbidigo // this is a main
	}
}

func run(check bool) error {
	want, err := reference.Make(".")
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
