package deploylog

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/terminal"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// masker is a writer that goes nowhere.
func masker(secrets ...string) *Writer {
	w := &Writer{sink: &Sink{Secrets: NewSecrets()}, mask: newMask(nil), streams: map[deployerv1.LogRecord_Stream]*before{}}
	named := map[string]seal.Secret{}
	for i, s := range secrets {
		named[fmt.Sprint("SECRET_", i)] = seal.NewSecret(s)
	}
	w.Hide(named)
	return w
}

// cleaned are the lines of a text as they are kept.
func (w *Writer) cleaned(text string) string {
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		out = append(out, w.clean(deployerv1.LogRecord_STDOUT, line))
	}
	return strings.Join(out, "\n")
}

func TestHide_everySpelling(t *testing.T) {
	for _, secret := range []string{"p4ss", "hunter2!", `it's "a" <b> & c/d+e\f %20`, "pässwörd€𝄞", "\x00\x01\xff\xfebinary", "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_"} {
		w := masker(secret)
		b64 := func(before, after string) string {
			return base64.StdEncoding.EncodeToString([]byte(before + secret + after))
		}
		texts := map[string]string{
			"plain":                  secret,
			"base64":                 b64("", ""),
			"base64 after a name":    b64("user:", ""),
			"base64 after two bytes": b64("a:", "\n"),
			"base64 in the middle":   b64("x", "and more"),
			"base64 for URLs":        base64.URLEncoding.EncodeToString([]byte("a:" + secret)),
			"base64 without padding": base64.RawURLEncoding.EncodeToString([]byte("user:" + secret)),
			"hex":                    hex.EncodeToString([]byte(secret)),
			"upper hex":              strings.ToUpper(hex.EncodeToString([]byte("a" + secret + "b"))),
			"query":                  url.QueryEscape(secret),
			"path":                   url.PathEscape(secret),
			"lower percent":          lowerPercent(url.QueryEscape(secret)),
			"basic authorization":    "Authorization: Basic " + b64("jane:", ""),
		}
		if b, err := json.Marshal(secret); err == nil && strings.ToValidUTF8(secret, "") == secret {
			texts["json"] = strings.Trim(string(b), `"`)
		}
		for what, text := range texts {
			got := w.cleaned("before " + text + " after " + text)
			want := "before [redacted] after [redacted]"
			if what == "basic authorization" {
				want = "before Authorization: Basic [redacted] after Authorization: Basic [redacted]"
			}
			if got != want {
				t.Errorf("%s of %q: %q", what, secret, got)
			}
		}
	}
}

// What programs really print.
func TestHide_spellingsOfPrograms(t *testing.T) {
	const secret = `o'Neil "x" $y`
	w := masker(secret)
	for _, script := range []string{`set -x; : "$S"`, `printf '%q\n' "$S" 2>/dev/null || :`, `printf %s "user:$S" | base64`, `printf %s "$S" | od -An -tx1 | tr -d ' \n'`} {
		for _, shell := range []string{"/bin/sh", "/bin/bash"} {
			cmd := exec.CommandContext(t.Context(), shell, "-c", script)
			cmd.Env = []string{"S=" + secret, "PATH=/usr/bin:/bin"}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if got := w.cleaned(string(out)); strings.Contains(got, "Neil") || len(out) > 0 && !strings.Contains(got, seal.Redacted) {
				t.Errorf("%s: %q became %q", script, out, got)
			}
		}
	}
}

func TestHide_severalLines(t *testing.T) {
	key := "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEF\n  indented-part\r\nxy\n-----END KEY-----\n"
	w := masker(key)
	got := w.cleaned("cat key\n" + key + "and: indented-part, xy stays")
	if want := "cat key\n[redacted]\n[redacted]\n  [redacted]\nxy\n[redacted]\nand: [redacted], xy stays"; got != want {
		t.Errorf("%q", got)
	}
	if got := w.cleaned(base64.StdEncoding.EncodeToString([]byte(key))); got != seal.Redacted {
		t.Errorf("%q", got)
	}
	if b, err := json.Marshal(key); err != nil || strings.Contains(w.cleaned(string(b)), "MIIE") {
		t.Errorf("%q %v", w.cleaned(string(b)), err)
	}
}

// Lines that stand in every other file are no secrets where they stand alone; where the secret's lines
// come one after the other, they are.
func TestHide_commonLinesOfSeveral(t *testing.T) {
	secret := "[\n  \"main\",\n  \"main\"\n]\nkind: Config\nport: 5432\nenabled: true\n\"development\"\nTOKEN=0123456789-s3cr3t\nS3cr3t!x\np4ssw0rd\nmain\n"
	for text, want := range map[string]string{
		"On branch \"main\", port: 5432, \"main\"":        "On branch \"main\", port: 5432, \"main\"",
		"\"main\"\nmain\nkind: Config\nport: 5433":        "\"main\"\nmain\nkind: Config\nport: 5433",
		"\"development\"\nx\nenabled: true\n\"main\",":    "\"development\"\nx\nenabled: true\n\"main\",",
		"is TOKEN=0123456789-s3cr3t, or S3cr3t!x?":        "is [redacted], or [redacted]?",
		"p4ssw0rd\nmain\nmain":                            "[redacted]\n[redacted]\nmain",
		"p4ssw0rd\nfain\nmain":                            "[redacted]\nfain\nmain",
		"cat:\n" + secret + "end":                         "cat:\n[\n  [redacted]\n  [redacted]\n]" + strings.Repeat("\n[redacted]", 8) + "\nend",
		strings.ReplaceAll(secret, "\n", "\r\n"):          "[\n  [redacted]\n  [redacted]\n]" + strings.Repeat("\n[redacted]", 8) + "\n",
		base64.StdEncoding.EncodeToString([]byte(secret)): "[redacted]",
		base64.StdEncoding.EncodeToString([]byte("main")): "bWFpbg==",
	} {
		w := masker(secret)
		if got := w.cleaned(text); got != want {
			t.Errorf("%q:\n%q, want\n%q", text, got, want)
		}
	}
	// The other stream's lines do not come between.
	w := masker(secret)
	for _, c := range []struct {
		from       deployerv1.LogRecord_Stream
		text, want string
	}{{deployerv1.LogRecord_STDOUT, "p4ssw0rd", "[redacted]"}, {deployerv1.LogRecord_STDERR, "main", "main"}, {deployerv1.LogRecord_STDOUT, "main", "[redacted]"}} {
		if got := w.clean(c.from, c.text); got != c.want {
			t.Errorf("%v %q: %q", c.from, c.text, got)
		}
	}
	if got := masker().Hide(map[string]seal.Secret{"BRANCHES": seal.NewSecret("main\nstaging\n"), "KEY": seal.NewSecret("main\n" + secret)}); fmt.Sprint(got) != "[BRANCHES]" {
		t.Errorf("%q", got)
	}
}

// A colour within a secret does not show it: what is read is what counts.
func TestHide_coloured(t *testing.T) {
	w := masker("hunter2-hunter2")
	for _, text := range []string{"is \x1b[31mhunter2\x1b[0m-hunter2!", "is hunter2\x1b[m\x1b[K-\x1b[1mhunter2!", "is hunter2-\x1b]8;;https://a.example\x07hunter2\x1b]8;;\x07!"} {
		if got := w.cleaned(text); got != "is [redacted]!" {
			t.Errorf("%q: %q", text, got)
		}
	}
	if got := w.cleaned("\x1b[31mis hunter2-hunter2!\x1b[0m"); got != "\x1b[31mis [redacted]!\x1b[0m" {
		t.Errorf("%q", got)
	}
}

// Of a sequence that the cut of a line falls into nothing is left, for it would swallow the cut's mark.
func TestClean_cutWithinASequence(t *testing.T) {
	w := masker()
	for _, s := range []string{"\x1b[38;5;196m", "\x1b]8;;https://a.example/long\x1b\\"} {
		for n := range len(s) + 1 {
			got := w.cleaned(strings.Repeat("x", maxLine-n) + s + strings.Repeat("y", 100))
			if !strings.HasSuffix(terminal.Strip(got), "x … (line cut)") {
				t.Errorf("%q", got[maxLine-n:])
			}
		}
	}
}

// An encoded secret that was broken into lines is hidden but for its first characters, wherever it
// stands.
func TestHide_brokenIntoLines(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		secret := make([]byte, 20+r.IntN(200))
		for i := range secret {
			secret[i] = byte(r.IntN(256))
		}
		w := masker(string(secret))
		before := strings.Repeat("b", r.IntN(60))
		for _, c := range []struct {
			encoded, after string
			width          int
		}{{base64.StdEncoding.EncodeToString([]byte(before + string(secret) + "af")), "af", 76}, {hex.EncodeToString([]byte(before + string(secret))), "", 60}} {
			for i := 0; i < len(c.encoded); i += c.width {
				line := c.encoded[i:min(i+c.width, len(c.encoded))]
				got := w.cleaned(line)
				// Of the line in which the secret begins, too little may be there to know it.
				begins := len(before) * len(c.encoded) / (len(before) + len(secret) + len(c.after))
				if there := i + len(line) - begins; got != seal.Redacted && there > 12 {
					t.Fatalf("%q became %q, with %d characters of the secret", line, got, there)
				}
			}
		}
	}
}

func TestHide_partsOfALongOne(t *testing.T) {
	secret := strings.Repeat("0123456789abcdefghijklmnopqrstuv", 30)
	w := masker(secret)
	if got := w.cleaned("begins " + secret[5:500] + " and ends"); got != "begins [redacted] and ends" {
		t.Errorf("%q", got)
	}
	if got := w.cleaned(strings.Repeat("x", maxLine-20) + secret); !strings.HasSuffix(got, "xx[redacted] … (line cut)") && !strings.HasSuffix(got, "xx[redacted]") {
		t.Errorf("%q", got[maxLine-40:])
	}
}

// Masking makes a line shorter; what then moves up must have been masked too.
func TestClean_nothingMovesPastTheCut(t *testing.T) {
	const secret = "planted-secret-0123456789-0123456789"
	for n := range 2 * len(secret) {
		w := masker(secret)
		line := strings.Repeat(secret+" ", 200) + strings.Repeat("x", maxLine+n-200*(len(secret)+1)) + secret
		if got := w.cleaned(line); strings.Contains(got, "plan") || strings.Contains(got, "6789") || len(got) > maxLine+20 {
			t.Fatalf("%d: …%q", n, got[max(0, len(got)-80):])
		}
	}
}

func TestHide_overlapping(t *testing.T) {
	w := masker("abcd1234", "1234efgh", "4321")
	w.sink.Secrets.Hide(1<<40, "efghIJKLMNOP")
	if got := w.cleaned("-abcd1234efghIJKLMNOP-abcd1234-x43214321x"); got != "-[redacted]-[redacted]-x[redacted]x" {
		t.Errorf("%q", got)
	}
}

func TestHide_saysWhatIsTooShort(t *testing.T) {
	w := masker()
	got := w.Hide(map[string]seal.Secret{"PIN": seal.NewSecret("123"), "NONE": {}, "LINES": seal.NewSecret("a\nb\n"), "LONG": seal.NewSecret("1234"), "A": seal.NewSecret("é")})
	if fmt.Sprint(got) != "[A LINES PIN]" {
		t.Errorf("%q", got)
	}
	if got := w.cleaned("123 1234 a"); got != "123 [redacted] a" {
		t.Errorf("%q", got)
	}
}

func BenchmarkClean(b *testing.B) {
	var secrets []string
	for i := range 50 {
		secrets = append(secrets, fmt.Sprintf("secret-%d-%x", i, rand.Uint64()))
	}
	w := masker(secrets...)
	line := strings.Repeat("npm http fetch GET 200 https://registry.example/package 35ms ", 2)
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		w.clean(deployerv1.LogRecord_STDOUT, line)
	}
}
