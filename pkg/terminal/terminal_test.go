package terminal_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"devpilot.io/bitbucket/pkg/terminal"
)

func TestStrip(t *testing.T) {
	for text, want := range map[string]string{
		"plain ünïcödé\ttab\nnext":                                     "plain ünïcödé\ttab\nnext",
		"\x1b[31mred\x1b[0m, \x1b[1;38;5;196mbold":                     "red, bold",
		"\x1b[38:2::1:2:3mtrue colour\x1b[m":                           "true colour",
		"\x1b[2K\x1b[1Gdone\x1b[?25h\x1b[>4;2m":                        "done",
		"\x1b[0 qcursor\x1b[!p":                                        "cursor",
		"\u009b31mone character\u009b0m":                               "one character",
		"\x1b(B\x1b[mtput sgr0\x1b)0\x1b#8":                            "tput sgr0",
		"\x1b7saved\x1b8\x1bc\x1b=\x1b>\x1bM":                          "saved",
		"\x1b]0;title\x07text":                                         "text",
		"\x1b]2;title\x1b\\text":                                       "text",
		"\u009d0;title\u009ctext":                                      "text",
		"\x1b]8;;https://a.example/?x=1\x1b\\link\x1b]8;;\x1b\\ after": "link after",
		"\x1b]8;id=1;https://a.example\x07link\x1b]8;;\x07 after":      "link after",
		"\x1b]1337;File=inline=1:aGVsbG8=\x07image":                    "image",
		"\x1bPq#0;2;0;0;0~~@@vv\x1b\\sixel":                            "sixel",
		"\x1b_Gf=24;payload\x1b\\kitty":                                "kitty",
		"\x1b^privacy\x1b\\pm\x1bXstring\x1b\\sos":                     "pmsos",
		"\x1b]4;1;rgb:aa/bb/cc\x1b\\\x1b]104\x07p":                     "p",
		"\x1b]P1aabbccLinux\x1b]R":                                     "Linux",
		"\x1b]0;aborted\x1b[31mred":                                    "red",
		"\x1b]0;aborted\x18text\x1bPabc\x1atext":                       "texttext",
		"broken off \x1b[3":                                            "broken off ",
		"broken off \x1b[38;5":                                         "broken off ",
		"broken off \x1b":                                              "broken off ",
		"broken off \x1b(":                                             "broken off ",
		"broken off \x1b]8;;https://a.example":                         "broken off ",
		"\x1b[31\u00e9":                                                "é",
		"\x1b\x1b[31mtwice":                                            "twice",
		"|\b/\b-\b\\\b done":                                           " done",
		"_\bu_\bn":                                                     "un",
		"\bfirst":                                                      "first",
		"bell\x07 null\x00 del\x7f nel\u0085 cr\r":                     "bell null del nel cr",
		"not a sequence: [31m and ]8;;":                                "not a sequence: [31m and ]8;;",
	} {
		if got := terminal.Strip(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// However a text is cut and continued, nothing of a sequence remains once its parts are together.
func TestTrimUnfinished(t *testing.T) {
	for _, whole := range []string{"a\x1b[38;5;196mb", "a\x1b]8;;https://a.example\x1b\\b", "a\x1bPq~~\x1b\\b", "a\x1b(Bb", "a\u009b31mb", "a\x1b]0;t\x07b"} {
		for i := range len(whole) {
			if !utf8.ValidString(whole[:i]) {
				continue
			}
			got := terminal.TrimUnfinished(whole[:i])
			if want := min(i, 1); terminal.Strip(got+" (cut)") != whole[:want]+" (cut)" {
				t.Errorf("%q became %q", whole[:i], got)
			}
		}
		if got := terminal.TrimUnfinished(whole); got != whole {
			t.Errorf("%q became %q", whole, got)
		}
	}
}

func FuzzStrip(f *testing.F) {
	f.Add("\x1b]8;;x\x1b\\y\x1b[31m\b")
	f.Fuzz(func(t *testing.T, text string) {
		got := terminal.Strip(text)
		if strings.ContainsFunc(got, func(r rune) bool { return r < ' ' && r != '\t' && r != '\n' || r >= 0x7f && r < 0xa0 }) || len(got) > 3*len(text) {
			t.Errorf("%q became %q", text, got)
		}
		if again := terminal.Strip(got); again != got {
			t.Errorf("%q became %q, then %q", text, got, again)
		}
	})
}
