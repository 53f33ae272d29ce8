package testkit_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

// tellsTime tells the time whenever it is asked, and whether an hour has passed since it began.
const tellsTime = `package main

import (
	"os"
	"time"
)

func main() {
	began := time.Now()
	for asked := []byte{0}; ; {
		if n, _ := os.Stdin.Read(asked); n == 0 {
			return
		}
		now := time.Now()
		println(now.Unix(), now.Sub(began) > time.Hour)
	}
}
`

// A program's clock goes ahead and back while it runs; how long something takes is measured as before.
func TestClock_isSetWhileAProgramRuns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	overlay, err := testkit.ClockOverlay(dir)
	if err != nil {
		t.Fatal(err)
	}
	source, path := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	if err := os.WriteFile(source, []byte(tellsTime), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "-o", path, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	clock := testkit.NewClock(t)
	run := exec.CommandContext(t.Context(), path)
	run.Env = append(os.Environ(), clock.Env())
	ask, err := run.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	told, err := run.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(told)
	for _, ahead := range []time.Duration{0, 3 * time.Hour, -2 * time.Minute, 0} {
		clock.Set(ahead)
		before := time.Now()
		if _, err := ask.Write([]byte{'?'}); err != nil {
			t.Fatal(err)
		}
		var at int64
		var later bool
		if _, err := fmt.Fscanln(answers, &at, &later); err != nil {
			t.Fatal(err)
		}
		if first, last := before.Add(ahead).Unix(), time.Now().Add(ahead).Unix(); at < first || at > last || later {
			t.Errorf("%v ahead it is %d, not within %d and %d; an hour has passed: %v", ahead, at, first, last, later)
		}
	}
	if err := ask.Close(); err != nil {
		t.Fatal(err)
	}
	if err := run.Wait(); err != nil {
		t.Error(err)
	}
}
