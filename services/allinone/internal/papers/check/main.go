// Command check prints the citations of documents and comments that lead nowhere; there being any
// makes it fail. Run it at the root of the repository.
package main

import (
	"context"
	"fmt"
	"os"

	"devpilot.io/bitbucket/services/allinone/internal/papers"
)

func main() {
	faults, err := papers.Faults(context.Background(), ".")
	if err != nil {
		faults = []string{err.Error()}
	}
	for _, f := range faults {
		fmt.Fprintln(os.Stderr, f)
	}
	if len(faults) > 0 {
		os.Exit(1) //nolint:forbidigo // this is a main
	}
}
