package hosting

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestOptions(t *testing.T) {
	for header, want := range map[string]string{
		"":                                  "",
		"gzip":                              "gzip.gz gzip",
		"GZip":                              "gzip.gz gzip",
		"x-gzip":                            "gzip.gz gzip",
		"gzip, deflate, br, zstd":           "br.br zstd.zst gzip.gz zstd gzip",
		"gzip;q=1.0, br;q=0.5":              "gzip.gz gzip br.br",
		"gzip;q=0":                          "",
		"gzip;q=0.000":                      "",
		"*":                                 "br.br zstd.zst gzip.gz zstd gzip",
		"*;q=0.5, zstd;q=0":                 "br.br gzip.gz gzip",
		"identity":                          "",
		"identity;q=1, gzip;q=0.5":          "",
		"identity;q=0.2, gzip;q=0.5":        "gzip.gz gzip",
		"identity;q=0":                      "",
		"deflate":                           "",
		"gzip;q=2":                          "",
		"gzip;q=-1":                         "",
		"gzip;q=NaN":                        "",
		"gzip;q=abc":                        "",
		"gzip;q=0.12345":                    "",
		"gzip;level=9":                      "",
		" gzip ; Q=0.5 ,, ;q=1":             "gzip.gz gzip",
		strings.Repeat("a,", 5000) + "gzip": "gzip.gz gzip",
	} {
		h := http.Header{}
		if header != "" {
			h.Set("Accept-Encoding", header)
		}
		var got []string
		for _, o := range options(h) {
			got = append(got, string(o.coding)+o.ext)
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%.40q: %q, want %q", header, s, want)
		}
	}
}

func TestCleanPath(t *testing.T) {
	for target, want := range map[string]string{ // "-": refused; a slash at the end: it had one
		"/": "/", "/a": "a", "/a/": "a/", "/a/b.html": "a/b.html", "/a%20b": "a b", "/%C3%A9": "é", "/a:b": "a:b", "/...": "...", "/a..b": "a..b",
		"/%252e%252e/a": "%2e%2e/a", "/.git": ".git",
		"//": "-", "//evil.example/": "-", "/a//b": "-", "/a//": "-", "/.": "-", "/..": "-", "/../a": "-", "/a/../b": "-", "/a/./b": "-",
		"/%2e%2e/a": "-", "/%2E%2e/a": "-", "/a%2fb": "-", "/a%2Fb": "-", "/..%2fa": "-", "/a%5cb": "-", "/a%5C..": "-",
		"/a%00b": "-", "/a%0ab": "-", "/a%7f": "-", "/" + strings.Repeat("a", 256): "-", "/" + strings.Repeat("a/", 2100): "-",
	} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatalf("%q: %v", target, err)
		}
		got, slash, err := cleanPath(u)
		if slash {
			got += "/"
		}
		if err != nil {
			got = "-"
		}
		if got != want {
			t.Errorf("%.40q: %q, want %q", target, got, want)
		}
	}
}

func TestLRU_isBoundedByCost(t *testing.T) {
	l := newLRU[int, string](10)
	l.add(1, "a", 4)
	l.add(2, "b", 4)
	l.get(1)
	l.add(3, "c", 4) // 2 leaves: 1 was used since
	l.add(4, "too large", 11)
	l.add(3, "c2", 5)
	for key, want := range map[int]string{1: "a", 2: "", 3: "c2", 4: ""} {
		if got, ok := l.get(key); got != want || ok != (want != "") {
			t.Errorf("%d: %q, %t, want %q", key, got, ok, want)
		}
	}
	if l.used != 9 || l.entries.Len() != 2 {
		t.Errorf("used %d in %d entries", l.used, l.entries.Len())
	}
}
