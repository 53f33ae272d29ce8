package reference

import (
	"os"
	"strings"
	"testing"
)

const root = "../../../.."

func TestMake_thePageIsAsTheCodeIs(t *testing.T) {
	want, err := Make(root)
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile(root + "/services/REFERENCE.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != want {
		t.Error("services/REFERENCE.md is stale: run make generate")
	}
	for _, row := range []string{
		"| `--workers` | `DEVPILOT_WORKERS` | `0` | 0 to 1024 |",
		"| `--reconcile-interval` | `DEVPILOT_RECONCILE_INTERVAL` | `30s` | 100ms to 24h |",
		"| webhook | `:8082` | `127.0.0.1:7003` | `127.0.0.1:7103` |",
		"| `DefaultPage` | 50 |", "| `RetryLimit` | 24h |", "| `MaxBody` | 512 KiB |", "| `deployer-lanes` |", "| `DEVPILOT_INBOX` |",
	} {
		if !strings.Contains(want, row) {
			t.Errorf("the page lacks %q", row)
		}
	}
}

func TestLimits_ofASource(t *testing.T) {
	dir := t.TempDir()
	text := `package p

import "time"

// Lease is how long a holder may be silent. Then another may take it.
const Lease = 90 * time.Second

const (
	// most bytes of a body.
	most = 3 << 20
	few  = 7 // of each
	mute = 12_000
	mask = 0xff // of somebody else
)

const (
	a = iota // one of a list
	b
)
`
	if err := os.WriteFile(dir+"/p.go", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := parse(dir, durations())
	if err != nil {
		t.Fatal(err)
	}
	c := &code{packages: []*source{s}}
	var got []string
	for _, l := range c.limits() {
		got = append(got, l.name+"="+l.value+" "+l.meaning)
	}
	if want := "Lease=1m30s Lease is how long a holder may be silent.; few=7 of each; most=3 MiB most bytes of a body.; mute=12,000 "; strings.Join(got, "; ") != want {
		t.Errorf("limits %q, want %q", strings.Join(got, "; "), want)
	}
	if len(c.mute()) != 1 || !strings.HasSuffix(c.mute()[0], ": mute") {
		t.Errorf("without a word: %q", c.mute())
	}
}
