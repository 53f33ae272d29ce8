package stream_test

import (
	"errors"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/stream"
)

func TestSubjects_roundTrip(t *testing.T) {
	s, err := stream.PushSubject("acme-inc", "85d08b4e-571d-44e9-a507-fa476535aa98")
	if err != nil || s != "devpilot.push.v1.acme-inc.85d08b4e-571d-44e9-a507-fa476535aa98" {
		t.Fatalf("%q, %v", s, err)
	}
	ws, repo, err := stream.ParsePushSubject(s)
	if err != nil || ws != "acme-inc" || repo != "85d08b4e-571d-44e9-a507-fa476535aa98" {
		t.Fatalf("%q %q %v", ws, repo, err)
	}

	s, err = stream.EventSubject("deployer", "acme-inc", "app")
	if err != nil || s != "devpilot.event.v1.deployer.acme-inc.app" {
		t.Fatalf("%q, %v", s, err)
	}
	service, ws, kind, err := stream.ParseEventSubject(s)
	if err != nil || service != "deployer" || ws != "acme-inc" || kind != "app" {
		t.Fatalf("%q %q %q %v", service, ws, kind, err)
	}

	s, err = stream.DeadLetterSubject(stream.PushesStream, "default", 7)
	if err != nil || s != "devpilot.dead.v1.DEVPILOT_PUSHES.default.7" {
		t.Fatalf("%q, %v", s, err)
	}
	st, consumer, seq, err := stream.ParseDeadLetterSubject(s)
	if err != nil || st != stream.PushesStream || consumer != "default" || seq != 7 {
		t.Fatalf("%q %q %d %v", st, consumer, seq, err)
	}
}

func TestSubjects_refuseTokensWithAMeaning(t *testing.T) {
	for _, bad := range []string{"", ".", "a.b", "*", "a*", ">", "a b", "a\tb", "a\nb", "a\x00b", "a\x7f", strings.Repeat("a", 600)} {
		for name, build := range map[string]func() (string, error){
			"push":  func() (string, error) { return stream.PushSubject("ws", bad) },
			"push2": func() (string, error) { return stream.PushSubject(bad, "repo") },
			"event": func() (string, error) { return stream.EventSubject("auth", bad, "kind") },
			"dead":  func() (string, error) { return stream.DeadLetterSubject("S", bad, 1) },
			"f2":    func() (string, error) { return stream.EventsOfWorkspace(bad) },
			"f3":    func() (string, error) { return stream.EventsOfService(bad, "") },
			"f4":    func() (string, error) { return stream.EventsOfService(bad, "app") },
		} {
			if s, err := build(); !errors.Is(err, stream.ErrBadToken) {
				t.Errorf("%s with %q: %q, %v", name, bad, s, err)
			}
		}
	}
}

func TestSubjects_parseRefusesOthers(t *testing.T) {
	for _, s := range []string{"", "devpilot.push.v1", "devpilot.push.v1.ws", "devpilot.push.v1.ws.repo.more", "devpilot.push.v1.ws.", "devpilot.work.v1.a.b", "other.push.v1.a.b"} {
		if _, _, err := stream.ParsePushSubject(s); !errors.Is(err, stream.ErrBadSubject) {
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
		{filter(stream.EventsOfService("auth", "")), "devpilot.event.v1.auth.>"},
		{filter(stream.EventsOfService("auth", "integration")), "devpilot.event.v1.auth.*.integration"},
		{filter(stream.EventsOfWorkspace("acme-inc")), "devpilot.event.v1.*.acme-inc.*"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}
