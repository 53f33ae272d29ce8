package hosting

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"
)

func TestCheckHeaders_reportsTheLine(t *testing.T) {
	manyRules := strings.Repeat("/a\n  X-A: b\n", maxRules+2)
	manyHeaders := "/a\n" + strings.Repeat("  X-A: b\n", maxOperations+1)
	for _, tc := range []struct {
		name, file string
		want       []string // "line: part of the message"
	}{
		{"empty", "", nil},
		{"good", "# comment\n\n/*\n  X-A: b\n\tX-B: c:d\n  # inside\n  ! X-Frame-Options\n/a/:b/*\n  X-S: :splat\n", nil},
		{"byte order mark and CRLF", "\xef\xbb\xbf/*\r\n  X-A: b\r\n", nil},
		{"header first", "  X-A: b\n/*\n  X-A: b\n", []string{"1: before the first path"}},
		{"whole URL", "https://example.com/*\n  X-A: b\n", []string{"1: whole URLs"}},
		{"header not indented", "/*\nX-A: b\n", []string{"2: begins with a space"}},
		{"two stars", "/*/a/*\n  X-A: b\n", []string{"1: one \"*\""}},
		{"query", "/a?b\n  X-A: b\n", []string{"1: no spaces"}},
		{"header behind a path", "/a X-A: b\n", []string{"1: no spaces"}},
		{"placeholder twice", "/:a/:a\n  X-A: b\n", []string{"1: twice"}},
		{"placeholder splat", "/:splat\n  X-A: b\n", []string{"1: twice"}},
		{"no colon", "/*\n  X-A\n", []string{"2: Name: value"}},
		{"bad name", "/*\n  X A: b\n  : c\n  ! \n", []string{"2: no header name", "3: no header name", "4: no header name"}},
		{"bad value", "/*\n  X-A: a\x01b\n  X-B:\n", []string{"2: characters", "3: empty"}},
		{"forbidden", "/*\n  set-cookie: a=b\n  Content-Length: 3\n  Transfer-Encoding: chunked\n  Basic-Auth: jane:secret\n  ! X-Content-Type-Options\n",
			[]string{"2: Set-Cookie", "3: Content-Length", "4: Transfer-Encoding", "5: Basic-Auth", "6: X-Content-Type-Options"}},
		{"long line", "/*\n  X-A: " + strings.Repeat("a", maxHeaderLine) + "\n  X-B: c\n", []string{"2: longer than 2000"}},
		{"many paths", manyRules, []string{"201: more than 100", "203: more than 100"}},
		{"many headers", manyHeaders, []string{"52: more than 50"}},
		{"large", strings.Repeat("# 345678901234567\n", maxHeadersFile/16), []string{"0: larger than 64 KiB"}},
		{"garbage", strings.Repeat("garbage\n", 1000), slices.Repeat([]string{": whole URLs"}, maxProblems)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, p := range CheckHeaders(strings.NewReader(tc.file)) {
				got = append(got, fmt.Sprintf("%d: %s", p.Line, p.Message))
			}
			if !slices.EqualFunc(got, tc.want, func(got, want string) bool {
				line, message, _ := strings.Cut(want, ": ")
				return strings.HasPrefix(got, line) && strings.Contains(got, message)
			}) {
				t.Errorf("problems are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
			for _, p := range got {
				if strings.Contains(p, "secret") {
					t.Errorf("a message shows a value: %s", p)
				}
			}
		})
	}
}

func TestApply(t *testing.T) {
	const file = `
/*
  X-All: yes
  Cache-Control: no-cache
/assets/*
  ! Cache-Control
  Cache-Control: public, immutable
/assets/*.js
  X-Kind: script
  Link: <a>; rel=preload
  Link: <b>; rel=preload
/users/:name/posts/:post
  X-User: u=:name p=:post t=12:30 :other
/files/*/raw/:last
  X-Splat: :splat|:last
/exact
  X-Exact: 1
  X-Frame-Options: DENY
/exac*
  X-Frame-Options: SAMEORIGIN
/:top
  X-Top: :top
bad
  X-Bad: 1
`
	rules, problems := parseHeaders(strings.NewReader(file))
	if len(problems) != 1 {
		t.Fatalf("problems: %v", problems)
	}
	for _, tc := range []struct {
		path string
		want string // names and values, sorted
	}{
		{"/", "Cache-Control: no-cache\nX-All: yes"},
		{"/assets/", "Cache-Control: public, immutable\nX-All: yes"},
		{"/assets", "Cache-Control: no-cache\nX-All: yes\nX-Top: assets"},
		{"/assets/a/b.js", "Cache-Control: public, immutable\nLink: <a>; rel=preload, <b>; rel=preload\nX-All: yes\nX-Kind: script"},
		{"/users/jane/posts/7", "Cache-Control: no-cache\nX-All: yes\nX-User: u=jane p=7 t=12:30 :other"},
		{"/users/jane/posts/7/", "Cache-Control: no-cache\nX-All: yes"},
		{"/users//posts/7", "Cache-Control: no-cache\nX-All: yes"},
		{"/users/a;b, c:name\"/posts/\xff", "Cache-Control: no-cache\nX-All: yes\nX-User: u=a%3Bb%2C%20c%3Aname%22 p=%FF t=12:30 :other"},
		{"/files/x/y/raw/z", "Cache-Control: no-cache\nX-All: yes\nX-Splat: x/y|z"},
		{"/files/x/y/raw/", "Cache-Control: no-cache\nX-All: yes"},
		{"/exact", "Cache-Control: no-cache\nX-All: yes\nX-Exact: 1\nX-Frame-Options: SAMEORIGIN\nX-Top: exact"},
	} {
		h := http.Header{"Cache-Control": {"default"}, "X-Frame-Options": nil}
		apply(rules, tc.path, h)
		var got []string
		for name, values := range h {
			for _, v := range values {
				got = append(got, name+": "+v)
			}
		}
		slices.Sort(got)
		if s := strings.Join(got, "\n"); s != tc.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tc.path, s, tc.want)
		}
	}
}

func TestApply_isBounded(t *testing.T) {
	rules, problems := parseHeaders(strings.NewReader("/*\n  X-A: b\n  X-Blow: " + strings.Repeat(":splat", 300) + "\n  X-C: d\n"))
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	h := http.Header{}
	apply(rules, "/"+strings.Repeat("\xff", 4000), h)
	if h.Get("X-Blow") != "" || h.Get("X-A") != "b" || h.Get("X-C") != "d" {
		t.Errorf("got %d bytes of X-Blow, X-A %q, X-C %q", len(h.Get("X-Blow")), h.Get("X-A"), h.Get("X-C"))
	}
}

// FuzzHeaders: no file and no path makes a header that a server must not send, or more than is allowed.
func FuzzHeaders(f *testing.F) {
	for _, seed := range []string{
		"/*\n  X-A: b\n", "# c\n/a/:b/*\n  X-S: :splat :b\n  ! Cache-Control\n", "  X: y\n/\n X: y", "/*/:a\n\tX-A: :a::splat:\n",
		"/*\nSet-Cookie: a=b\n  Set-Cookie: a=b\n", "/\x00\n  A: b\r\n  C: d\x00\n", "\xef\xbb\xbf/*\n A:b", strings.Repeat("/a*b\n A: :splat\n", 120),
		"/:a/:b/:c*d/:e\n  X: :a:b:c:d:e:splat\n",
	} {
		f.Add([]byte(seed), "/a/b/c.js")
	}
	f.Add([]byte("/*\n X: :splat"), "/\r\nSet-Cookie: a=b")
	f.Fuzz(func(t *testing.T, file []byte, path string) {
		rules, problems := parseHeaders(bytes.NewReader(file))
		if len(rules) > maxRules || len(problems) > maxProblems {
			t.Fatalf("%d rules, %d problems", len(rules), len(problems))
		}
		w := httptest.NewRecorder()
		apply(rules, path, w.Header())
		total := 0
		for name, values := range w.Header() {
			if _, no := refused[name]; no || !httpguts.ValidHeaderFieldName(name) {
				t.Fatalf("header %q was set", name)
			}
			for _, v := range values {
				total += len(v)
				if !httpguts.ValidHeaderFieldValue(v) {
					t.Fatalf("value %q was set", v)
				}
			}
		}
		if total > maxHeaderBytes+maxRules*maxOperations*2 {
			t.Fatalf("%d bytes of headers", total)
		}
	})
}
