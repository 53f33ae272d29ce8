package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

// late is a sink that takes the first line only once the hook has written all of its lines, so that
// they have to be told apart from what is left of them in the pipes.
type late struct {
	*lines
	t    *testing.T
	done string
}

func (l late) Line(from Stream, text string) {
	if l.text() == "" {
		testkit.Eventually(l.t, 30*time.Second, func() error { _, err := os.Stat(l.done); return err })
	}
	l.lines.Line(from, text)
}

// printed runs a hook with a sink that is there in time, or late, and returns what it was given.
func printed(t *testing.T, r Runner, command string, isLate bool) string {
	t.Helper()
	dir := t.TempDir()
	s := Spec{Command: "echo begin\n" + command + "\n: >done", Release: dir, Limits: Limits{Time: 60 * time.Second, DiskReserve: 1}}
	out := newLines()
	var sink Sink = out
	if isLate {
		sink = late{out, t, filepath.Join(dir, "done")}
	}
	if res, err := r.Run(t.Context(), s, sink); err != nil || !res.OK() {
		t.Fatalf("%+v %v; it printed %q", res, err, out.text())
	}
	return strings.TrimPrefix(out.text(), "stdout: begin\n")
}

func TestRun_oneTrueOrder(t *testing.T) {
	t.Parallel()
	sideBySide(t, func(t *testing.T, r Runner) {
		for _, c := range []struct{ command, want string }{
			{"echo 1; echo 2 >&2; echo 3", "o1 e2 o3"},
			{"echo 1 >&2; echo 2; echo 3 >&2; echo 4", "e1 o2 e3 o4"},
			{"echo 1; echo 2; echo 3 >&2; echo 4 >&2; echo 5", "o1 o2 e3 e4 o5"},
			{"echo 1; echo 2 >/dev/stderr; echo 3 >/dev/stdout; echo 4 >/dev/stderr", "o1 e2 o3 e4"},
			{"echo 1 >/dev/stderr; echo 2; echo 3 >/dev/stderr; echo 4 >/dev/stderr; echo 5", "e1 o2 e3 e4 o5"},
			{"echo 1 >/proc/self/fd/2; echo 2 >/proc/self/fd/1; echo 3 >/proc/self/fd/2; echo 4 >/proc/self/fd/1", "e1 o2 e3 o4"},
			{"exec 3>&1 4>&2; echo 1 >&4; echo 2 >&3; exec 1>&2; echo 3; echo 4 >&3", "e1 o2 e3 o4"},
			{"sh -c 'echo 1; echo 2 >&2'; (echo 3; echo 4 >&2); echo 5 | cat; cat /nonexistent 2>/dev/null || echo 6 >&2; echo 7", "o1 e2 o3 e4 o5 e6 o7"},
			{"{ echo 1; echo 2 >&2; } & wait; echo 3", "o1 e2 o3"},
			{"printf 1; echo 2 >&2; echo 3", "e2 o13"},
			{"printf '1\\n2\\n3\\n'; printf '4\\n5\\n' >&2; printf '6\\n7\\n'", "o1 o2 o3 e4 e5 o6 o7"},
			{"echo 1 2>&1; echo 2 >&2; set -x; : 3; set +x; echo 4", "o1 e2 e+ : 3 e+ set +x o4"},
		} {
			for _, isLate := range []bool{false, true} {
				text := strings.NewReplacer("stdout: ", "o", "stderr: ", "e", "\n", " ").Replace(printed(t, r, c.command, isLate))
				if text != c.want {
					t.Errorf("%s (late: %v): %q, want %q", c.command, isLate, text, c.want)
				}
			}
		}
	})
}

// Lines of any length, of which many leave in several writes or take several pages, in runs of any length.
func TestRun_oneTrueOrderOfManyLines(t *testing.T) {
	t.Parallel()
	sideBySide(t, func(t *testing.T, r Runner) {
		for seed := range 16 {
			text := printed(t, r, fmt.Sprintf(`perl -e '
use POSIX (); srand(%d);
for my $i (1..120) {
	my $to = rand() < 0.5 ? 1 : 2;
	my $text = sprintf("%%d %%s\n", $i, "x" x (rand() < 0.1 ? rand(30000) : rand(60)));
	while (length $text) {
		my $n = POSIX::write($to, $text, rand() < 0.1 ? 1 + rand(length $text) : length $text) or die;
		$text = substr $text, $n;
	}
}'`, seed), seed%2 == 0)
			if n := inOrder(t, strings.Split(text, "\n")); n != 120 {
				t.Errorf("seed %d: %d lines", seed, n)
			}
			if !strings.Contains(text, "stderr: ") || !strings.Contains(text, "stdout: ") {
				t.Error("only one stream")
			}
		}
	})
}

// inOrder checks that lines are numbered from 1, and counts them.
func inOrder(t *testing.T, all []string) int {
	t.Helper()
	for i, line := range all {
		_, text, _ := strings.Cut(line, ": ")
		if number, _, _ := strings.Cut(text, " "); number != fmt.Sprint(i+1) {
			t.Errorf("line %d is %.80q", i+1, line)
			return i
		}
	}
	return len(all)
}

// Writes of more than the pipe holds arrive whole, and each stream in its order. Between the two streams
// nothing is promised here: see streams.go on signals of writers that wait for room.
func TestRun_largeWrites(t *testing.T) {
	t.Parallel()
	sideBySide(t, func(t *testing.T, r Runner) {
		const script = `#!/usr/bin/env perl
use POSIX ();
my @lines;
for my $to (1, 2, 1) {
	my $block = join "", map { sprintf("%s %05d ", $to == 1 ? "o" : "e", $lines[$to]++) . "x" x 991 . "\n" } 1..5000;
	for (my $at = 0; $at < length $block;) { $at += POSIX::write($to, substr($block, $at), length($block) - $at) }
}
`
		out := newLines()
		res, err := r.Run(t.Context(), Spec{Command: script, Release: t.TempDir(), Limits: Limits{Time: 60 * time.Second, Output: 64 << 20, DiskReserve: 1}}, out)
		if err != nil || !res.OK() {
			t.Fatalf("%+v %v %.300q", res, err, out.text())
		}
		if len(out.all) != 15000 {
			t.Errorf("%d lines, want 15000", len(out.all))
		}
		for prefix, count := range map[string]int{"stdout: o": 10000, "stderr: e": 5000} {
			next := 0
			for _, line := range out.all {
				if !strings.HasPrefix(line, prefix) {
					continue
				}
				if want := fmt.Sprintf("%s %05d %s", prefix, next, strings.Repeat("x", 991)); line != want {
					t.Fatalf("line %d is %.80q, %d bytes; want %.80q, %d bytes", next, line, len(line), want, len(want))
				}
				next++
			}
			if next != count {
				t.Errorf("%d lines begin with %q, want %d", next, prefix, count)
			}
		}
	})
}
