package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	reference = "../../../services/REFERENCE.md"
	schema    = "../../chart/devpilot/values.schema.json"
)

func TestSettings_areThoseOfThePrograms(t *testing.T) {
	t.Parallel()
	if err := run(reference, schema, true); err != nil {
		t.Error(err)
	}
	// A setting more, and one whose bound is another, must be noticed.
	table, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	for name, changed := range map[string]string{
		"a new setting": strings.Replace(string(table), "| `--log-level` |", "| `--new-one` | `DEVPILOT_NEW_ONE` | `1` | 1 to 2 | New. |\n| `--log-level` |", 1),
		"a new bound":   regexp.MustCompile(`\| (\d+) to (\d+) \|`).ReplaceAllString(string(table), "| $1 to ${2}7 |"),
	} {
		path := filepath.Join(t.TempDir(), "REFERENCE.md")
		if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := run(path, schema, true); err == nil || !strings.Contains(err.Error(), "make generate") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
