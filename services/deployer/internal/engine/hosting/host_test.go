package hosting_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/deployer/internal/engine/hosting"
)

func TestParseHost(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, tc := range []struct {
		host string
		want hosting.Name // zero: refused
	}{
		{"web.default.localhost", hosting.Name{Workspace: "default", App: "web"}},
		{"web.default.localhost:8083", hosting.Name{Workspace: "default", App: "web"}},
		{"WEB.Default.LocalHost.:8083", hosting.Name{Workspace: "default", App: "web"}},
		{"12--web.default.localhost", hosting.Name{Workspace: "default", App: "web", Number: 12}},
		{"12--web--site.default.localhost", hosting.Name{Workspace: "default", App: "web--site", Number: 12}},
		{"web--12.default.localhost", hosting.Name{Workspace: "default", App: "web--12"}},
		{"0--12--web.default.localhost", hosting.Name{Workspace: "default", App: "12--web"}},
		{"0--web.default.localhost", hosting.Name{Workspace: "default", App: "web"}},
		{"3--12--web.default.localhost", hosting.Name{Workspace: "default", App: "12--web", Number: 3}},
		{"012--web.default.localhost", hosting.Name{Workspace: "default", App: "012--web"}},
		{"2147483647--web.default.localhost", hosting.Name{Workspace: "default", App: "web", Number: 2147483647}},
		{"2147483648--web.default.localhost", hosting.Name{Workspace: "default", App: "2147483648--web"}},
		{"12-web.default.localhost", hosting.Name{Workspace: "default", App: "12-web"}},
		{"12.default.localhost", hosting.Name{Workspace: "default", App: "12"}},
		{"12---web.default.localhost", hosting.Name{Workspace: "default", App: "12---web"}},
		{long + "." + long + ".localhost", hosting.Name{Workspace: long, App: long}},
		{long + "a.default.localhost", hosting.Name{}},
		{"", hosting.Name{}},
		{"localhost", hosting.Name{}},
		{"default.localhost", hosting.Name{}},
		{".localhost", hosting.Name{}},
		{"..localhost", hosting.Name{}},
		{".default.localhost", hosting.Name{}},
		{"web..localhost", hosting.Name{}},
		{"a.web.default.localhost", hosting.Name{}},
		{"web.default.localhost.evil.example", hosting.Name{}},
		{"web.default.notlocalhost", hosting.Name{}},
		{"web.defaultlocalhost", hosting.Name{}},
		{"web.default.localhost..", hosting.Name{}},
		{"web.default.localhost:80:80", hosting.Name{}},
		{"we_b.default.localhost", hosting.Name{}},
		{"-web.default.localhost", hosting.Name{}},
		{"web.default.localhost\x00", hosting.Name{}},
		{"[::1]:8083", hosting.Name{}},
		{"[::1]", hosting.Name{}},
		{"::1", hosting.Name{}},
		{"127.0.0.1:8083", hosting.Name{}},
	} {
		got, err := hosting.ParseHost(tc.host, "localhost")
		if got != tc.want || (tc.want == hosting.Name{}) != errors.Is(err, hosting.ErrHost) {
			t.Errorf("ParseHost(%q) = %+v, %v, want %+v", tc.host, got, err, tc.want)
		}
	}
}

func TestHost_tellsWhatDNSCannotCarry(t *testing.T) {
	for _, tc := range []struct {
		app, workspace string
		number         int32
		live, want     string
	}{
		{"web", "default", 0, "localhost", "web.default.localhost"},
		{"web", "default", 12, "localhost", "12--web.default.localhost"},
		{"12--web", "default", 0, "localhost", "0--12--web.default.localhost"},
		{"12--web", "default", 3, "localhost", "3--12--web.default.localhost"},
		{"xn--web", "default", 0, "localhost", "0--xn--web.default.localhost"},
		{strings.Repeat("a", 63), "default", 0, "localhost", strings.Repeat("a", 63) + ".default.localhost"},
		{strings.Repeat("a", 63), "default", 1, "localhost", ""},
		{strings.Repeat("a", 60), "default", 1, "localhost", "1--" + strings.Repeat("a", 60) + ".default.localhost"},
		{"12--" + strings.Repeat("a", 59), "default", 0, "localhost", ""},
		{"web", "xn--default", 0, "localhost", ""},
		{"Web", "default", 0, "localhost", ""},
		{"web", "de.fault", 0, "localhost", ""},
		{"web", "default", -1, "localhost", ""},
		{strings.Repeat("a", 63), strings.Repeat("b", 63), 0, strings.Repeat("c", 63) + "." + strings.Repeat("d", 63), ""},
	} {
		got, ok := hosting.Host(tc.app, tc.workspace, tc.number, tc.live)
		if ok != (tc.want != "") || ok && got != tc.want {
			t.Errorf("Host(%q, %q, %d) = %q, %t, want %q", tc.app, tc.workspace, tc.number, got, ok, tc.want)
		}
	}
}

func TestURL_takesSchemeAndPortFromTheBase(t *testing.T) {
	for base, want := range map[string]string{
		"http://localhost:8083":       "http://7--web.default.localhost:8083/",
		"https://live.example.com":    "https://7--web.default.live.example.com/",
		"https://live.example.com/x?": "https://7--web.default.live.example.com/",
	} {
		u, err := url.Parse(base)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := hosting.URL(u, "web", "default", 7); !ok || got != want {
			t.Errorf("URL(%q) = %q, %t, want %q", base, got, ok, want)
		}
		if _, ok := hosting.URL(u, "Not a slug", "default", 7); ok {
			t.Error("a URL was made for what is no slug")
		}
	}
}

func TestCheckHost(t *testing.T) {
	for _, tc := range []struct {
		host, console, want string // want empty: refused
	}{
		{"localhost", "127.0.0.1", "localhost"},
		{"localhost", "localhost", "localhost"},
		{"Live.Example.com.", "devpilot.example.com", "live.example.com"},
		{"example.com", "devpilot.example.com", "example.com"},
		{"example.com", "console.devpilot.example.com", ""}, // would be the app "console" of "devpilot"
		{"example.com", "Console.Devpilot.Example.com.", ""},
		{"localhost:8083", "", ""}, {"http://localhost", "", ""}, {"", "", ""}, {".", "", ""}, {"a..b", "", ""},
		{"127.0.0.1", "", ""}, {"::1", "", ""}, {"[::1]", "", ""}, {"*.example.com", "", ""}, {"-a.example.com", "", ""},
		{strings.Repeat("a", 64), "", ""}, {strings.Repeat("abc.", 70) + "com", "", ""},
	} {
		got, err := hosting.CheckHost(tc.host, tc.console)
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("CheckHost(%q, %q) = %q, %v, want %q", tc.host, tc.console, got, err, tc.want)
		}
	}
}

// FuzzHost: what Host makes ParseHost reads back, and ParseHost never answers with what is no slug.
func FuzzHost(f *testing.F) {
	for _, seed := range []struct {
		host, app string
		number    int32
	}{
		{"web.default.localhost", "web", 0}, {"12--web.default.localhost:80", "12--web", 3}, {"0--0--a.b.localhost.", "0--0--a", 0},
		{"[::1]:80", "xn--a", 2147483647}, {"a--b.c.LOCALHOST", "1---a", 1}, {"9999999999--a.b.localhost", "9999999999--a", 0}, {"\x00", "0--", 0},
	} {
		f.Add(seed.host, seed.app, seed.number)
	}
	f.Fuzz(func(t *testing.T, host, app string, number int32) {
		if name, err := hosting.ParseHost(host, "localhost"); err == nil {
			again, ok := hosting.Host(name.App, name.Workspace, name.Number, "localhost")
			if !ok {
				// A literal name may be too long or unfit for the form that Host makes; nothing else may.
				if !strings.HasPrefix(name.Workspace, "xn--") && len(name.App)+3 <= 63 && name.Number == 0 {
					t.Fatalf("%q gives %+v, which has no host", host, name)
				}
			} else if back, err := hosting.ParseHost(again, "localhost"); err != nil || back != name {
				t.Fatalf("%q gives %+v, whose host %q gives %+v, %v", host, name, again, back, err)
			}
		}
		if made, ok := hosting.Host(app, "default", number, "localhost"); ok {
			want := hosting.Name{Workspace: "default", App: app, Number: number}
			if back, err := hosting.ParseHost(made, "localhost"); err != nil || back != want {
				t.Fatalf("Host made %q of %+v, which reads %+v, %v", made, want, back, err)
			}
		}
	})
}
