package sandbox

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAssembler_lines(t *testing.T) {
	long := strings.Repeat("x", longestLine)
	for what, c := range map[string]struct {
		writes []string
		want   []string
	}{
		"pieces":                  {[]string{"pla", "nted", " secret\nnext"}, []string{"planted secret", "next"}},
		"empty lines":             {[]string{"a\n\nb\n"}, []string{"a", "", "b"}},
		"line ends of Windows":    {[]string{"a\r\nb\r", "\nc\r\r\n"}, []string{"a", "b", "c"}},
		"a bar is its last state": {[]string{"10 %\r", "20 %\r100 %\ndone\n"}, []string{"100 %", "done"}},
		"a bar without line end":  {[]string{"10 %\r20 %\r"}, []string{"20 %"}},
		"nothing":                 {nil, nil},
		"too long":                {[]string{long, "half of a secret", "\nnext\n"}, []string{long + cutMark, "next"}},
		"just not too long":       {[]string{long + "\n"}, []string{long}},
	} {
		for _, whole := range []bool{true, false} {
			var got []string
			a := assembler{line: func(s string) { got = append(got, s) }, now: time.Now}
			for _, w := range c.writes {
				if whole {
					a.write([]byte(w))
					continue
				}
				for i := range len(w) {
					a.write([]byte{w[i]})
				}
			}
			a.end()
			if !slices.Equal(got, c.want) {
				t.Errorf("%s: %.200q", what, got)
			}
		}
	}
}

func TestAssembler_showsALongRunningBarNowAndThen(t *testing.T) {
	var got []string
	now := time.Unix(0, 0)
	a := assembler{line: func(s string) { got = append(got, s) }, now: func() time.Time { return now }}
	for i := range 100 {
		a.write(fmt.Appendf(nil, "%d %%\r", i))
		now = now.Add(100 * time.Millisecond)
	}
	a.end()
	if len(got) != 5 || got[4] != "99 %" {
		t.Fatalf("%q", got)
	}
}

func TestRun_outputInPieces(t *testing.T) {
	t.Parallel()
	sideBySide(t, func(t *testing.T, r Runner) {
		_, text := run(t, r, "printf plan; sleep 0.3; printf ted; printf 'other\n' >&2; sleep 0.3; printf -- '-secret\n'")
		if text != "stderr: other\nstdout: planted-secret" {
			t.Fatalf("%q", text)
		}
	})
}

func TestRun_endlessOutputIsCutOnce(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, r Runner) {
		res, text := run(t, r, "yes 0123456789 | head -c 5000000; echo the last words; exit 4", func(s *Spec) { s.Limits.Output = 100 << 10 })
		if !res.OutputCut || res.ExitCode != 4 || len(text) > 220<<10 || strings.Count(text, "notice: Output cut here") != 1 || strings.Contains(text, "last words") {
			t.Fatalf("%+v, %d bytes, …%q", res, len(text), text[max(0, len(text)-300):])
		}
	})
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{12: "12 bytes", 8 << 20: "8 MiB", 2 << 30: "2 GiB", 1536: "1.5 KiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}
