package streams_test

import (
	"errors"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/deployer/internal/record/streams"
)

func TestSubjects_roundTrip(t *testing.T) {
	s, err := streams.WorkSubject("default", "acme-inc", "web")
	if err != nil || s != "devpilot.work.v1.default.acme-inc.web" {
		t.Fatalf("%q, %v", s, err)
	}
	server, ws, app, err := streams.ParseWorkSubject(s)
	if err != nil || server != "default" || ws != "acme-inc" || app != "web" {
		t.Fatalf("%q %q %q %v", server, ws, app, err)
	}

	s, err = streams.DecideSubject("default", "acme-inc", "web")
	if err != nil || s != "devpilot.decide.v1.default.acme-inc.web" {
		t.Fatalf("%q, %v", s, err)
	}
	server, ws, app, err = streams.ParseDecideSubject(s)
	if err != nil || server != "default" || ws != "acme-inc" || app != "web" {
		t.Fatalf("%q %q %q %v", server, ws, app, err)
	}

	s, err = streams.LogSubject("acme-inc", "web", 12)
	if err != nil || s != "devpilot.log.v1.acme-inc.web.12" {
		t.Fatalf("%q, %v", s, err)
	}
	ws, app, n, err := streams.ParseLogSubject(s)
	if err != nil || ws != "acme-inc" || app != "web" || n != 12 {
		t.Fatalf("%q %q %d %v", ws, app, n, err)
	}

	if s, err = streams.CheckSubject("default"); err != nil || s != "devpilot.check.v1.default" {
		t.Fatalf("%q, %v", s, err)
	}
}

func TestSubjects_refuseTokensWithAMeaning(t *testing.T) {
	for _, bad := range []string{"", ".", "a.b", "*", "a*", ">", "a b", "a\tb", "a\nb", "a\x00b", "a\x7f", strings.Repeat("a", 600)} {
		for name, build := range map[string]func() (string, error){
			"work":   func() (string, error) { return streams.WorkSubject("default", "ws", bad) },
			"log":    func() (string, error) { return streams.LogSubject(bad, "web", 1) },
			"f1":     func() (string, error) { return streams.WorkFilter(bad) },
			"f5":     func() (string, error) { return streams.LogsOfApp("ws", bad) },
			"decide": func() (string, error) { return streams.DecideSubject(bad, "ws", "web") },
			"check":  func() (string, error) { return streams.CheckSubject(bad) },
			"f6":     func() (string, error) { return streams.DecideFilter(bad) },
		} {
			if s, err := build(); !errors.Is(err, stream.ErrBadToken) {
				t.Errorf("%s with %q: %q, %v", name, bad, s, err)
			}
		}
	}
	for _, n := range []int32{0, -1} {
		if _, err := streams.LogSubject("ws", "web", n); !errors.Is(err, stream.ErrBadToken) {
			t.Errorf("deployment number %d: %v", n, err)
		}
	}
}

func TestSubjects_parseRefusesOthers(t *testing.T) {
	for _, s := range []string{"devpilot.log.v1.ws.web.0", "devpilot.log.v1.ws.web.x", "devpilot.log.v1.ws.web.99999999999"} {
		if _, _, _, err := streams.ParseLogSubject(s); !errors.Is(err, stream.ErrBadSubject) {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", "devpilot.work.v1.a.b", "devpilot.work.v1.a.b.c.d", "devpilot.decide.v1.a.b.c"} {
		if _, _, _, err := streams.ParseWorkSubject(s); !errors.Is(err, stream.ErrBadSubject) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestSubjects_filtersMatchTheirSubjects(t *testing.T) {
	filter := func(s string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct{ got, want string }{
		{filter(streams.WorkFilter("default")), "devpilot.work.v1.default.>"},
		{filter(streams.DecideFilter("default")), "devpilot.decide.v1.default.>"},
		{filter(streams.LogsOfApp("acme-inc", "web")), "devpilot.log.v1.acme-inc.web.*"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}
