package e2e

import (
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"regexp"
	"sync"
	"testing"
)

// The console's tests show each of these answers, as the API gave it.
const recordedFile = "../../gateway/console/test/why.json"

var (
	record    = flag.Bool("why.record", false, "write the answers to "+recordedFile)
	recording sync.Mutex
)

// varying is what no two answers have in common.
var varying = []struct {
	pattern *regexp.Regexp
	put     string
}{
	{regexp.MustCompile(`\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`), "00000000-0000-4000-8000-000000000000"},
	{regexp.MustCompile(`\b[0-9a-f]{40}\b`), "0123456789abcdef0123456789abcdef01234567"},
	{regexp.MustCompile(`\b[0-9a-f]{7}\b`), "0123456"},
	{regexp.MustCompile(`\b[a-z2-7]{26}\b`), "abcdefghijklmnopqrstuvwxyz"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "2026-03-02T09:00:00Z"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d UTC`), "2026-03-02 09:00 UTC"},
	{regexp.MustCompile(`\d+ MiB`), "200 MiB"},
	{regexp.MustCompile(`took (under )?\d+\.\d s`), "took 0.1 s"},
	{regexp.MustCompile(`at least every (\d+ )?(second|minute)s?`), "at least every 33 seconds"},
}

// recorded holds an answer against the recorded one of its cause: the sentence, the reason and the remedy.
func recorded(t testing.TB, name string, answer object) {
	t.Helper()
	recording.Lock()
	defer recording.Unlock()
	list := map[string]object{}
	raw, err := os.ReadFile(recordedFile)
	if err == nil {
		err = json.Unmarshal(raw, &list)
	}
	if err != nil {
		t.Fatal(err)
	}
	raw, err = json.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range varying {
		raw = v.pattern.ReplaceAll(raw, []byte(v.put))
	}
	got := object{}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if *record {
		list[name] = got
		if raw, err = json.MarshalIndent(list, "", "  "); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(recordedFile, append(raw, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, field := range []string{"message", "reason", "remedy"} {
		if want := list[name][field]; !reflect.DeepEqual(got[field], want) {
			t.Errorf("the console's tests have another %s for %q: %v, got %v; run TestWhy with -why.record", field, name, want, got[field])
		}
	}
}
