package e2e

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/stream"
)

// Every bucket and stream of a running product stands in the reference, and none that is not there.
func TestReference_namesEveryBucketAndStream(t *testing.T) {
	page, err := os.ReadFile("../../REFERENCE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, tables, _ := strings.Cut(string(page), "\n## Buckets\n")
	tables, _, _ = strings.Cut(tables, "\n## Limits\n")
	told := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(tables, -1) {
		told[m[1]] = true
	}
	s := startProcess(t, "info")
	names := s.js(t).StreamNames(t.Context())
	there := map[string]bool{}
	for name := range names.Name() {
		there[strings.TrimPrefix(name, "KV_")] = true
	}
	if err := names.Err(); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(there)) {
		if !told[name] {
			t.Errorf("%s is there and services/REFERENCE.md does not tell of it", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(told)) {
		// These are made for the first dead letter, and while a restore is not whole.
		if !there[name] && name != stream.DeadLettersStream && name != installation.RestoreStream {
			t.Errorf("services/REFERENCE.md tells of %s, which is not there", name)
		}
	}
}
