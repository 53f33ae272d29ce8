package pasted_test

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"devpilot.io/bitbucket/pkg/pasted"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

func TestReadings(t *testing.T) {
	for _, c := range []struct{ given, text, line, value string }{
		{"", "", "", ""},
		{"npm ci", "npm ci", "npm ci", "npm ci"},
		{"\ufeffset -e\r\necho ok\r\n", "set -e\necho ok\n", "set -e\r\necho ok", "set -e\necho ok\n"},
		{"a\r\r\nb\rc", "a\nb\nc", "a\r\r\nb\rc", "a\nb\rc"},
		{" token\r\n", " token\n", "token", " token"},
		{"\u00a0\u200btoken\u2060\ufeff", "\u00a0\u200btoken\u2060\ufeff", "token", "\u00a0\u200btoken\u2060\ufeff"},
		{"\ufefftoken\n\n", "token\n\n", "token", "token"},
		{"-----BEGIN KEY-----\r\nAAAA\r\n-----END KEY-----\r\n", "-----BEGIN KEY-----\nAAAA\n-----END KEY-----\n", "-----BEGIN KEY-----\r\nAAAA\r\n-----END KEY-----", "-----BEGIN KEY-----\nAAAA\n-----END KEY-----\n"},
		{"  two  ", "  two  ", "two", "  two  "},
	} {
		if text, line, value := pasted.Text(c.given), pasted.Line(c.given), pasted.Value(c.given); text != c.text || line != c.line || value != c.value {
			t.Errorf("%q: text %q, line %q, value %q", c.given, text, line, value)
		}
	}
}

func TestFields(t *testing.T) {
	app := &deployerv1.App{
		Branch: " main\n", SharedPaths: []string{"uploads/\r\n", "\ufeff.env"}, Retention: 5,
		Rules: &deployerv1.AppRules{Paths: []string{" src/** "}},
		Hooks: []*deployerv1.DeploymentHook{{Name: " build ", Command: "\ufeffmake \r\n", Active: proto.Bool(true)}},
	}
	pasted.Fields(app, map[protoreflect.FullName]func(string) string{"devpilot.deployer.v1.DeploymentHook.command": pasted.Text})
	want := &deployerv1.App{
		Branch: "main", SharedPaths: []string{"uploads/", ".env"}, Retention: 5,
		Rules: &deployerv1.AppRules{Paths: []string{"src/**"}},
		Hooks: []*deployerv1.DeploymentHook{{Name: "build", Command: "make \n", Active: proto.Bool(true)}},
	}
	if !proto.Equal(app, want) {
		t.Errorf("%v", app)
	}
}
