package codeconfig

import (
	"iter"
	"strings"
	"testing"
	"time"
)

func TestCheckHook(t *testing.T) {
	good := Hook{Name: "Install", Stage: StagePreExecution, Command: "true", Active: true, Timeout: DefaultTimeout}
	for _, tc := range []struct {
		name   string
		change func(*Hook)
		want   string
	}{
		{"good", func(*Hook) {}, ""},
		{"last stage", func(h *Hook) { h.Stage = StagePostRelease }, ""},
		{"least", func(h *Hook) { h.Timeout, h.Priority = MinTimeout, -MaxPriority }, ""},
		{"most", func(h *Hook) { h.Timeout, h.Priority = MaxTimeout, MaxPriority }, ""},
		{"lines", func(h *Hook) { h.Command = "a\nb\n" }, ""},
		{"no name", func(h *Hook) { h.Name = "" }, "needs a name"},
		{"name with space", func(h *Hook) { h.Name = "a " }, "one line of text"},
		{"name not UTF-8", func(h *Hook) { h.Name = "a\xff" }, "one line of text"},
		{"no stage", func(h *Hook) { h.Stage = "" }, "not a stage at which hooks run"},
		{"stage without hooks", func(h *Hook) { h.Stage = "SOURCE_CONTROL" }, "no hooks run at the stage SOURCE_CONTROL"},
		{"no command", func(h *Hook) { h.Command = " \n" }, "command is empty"},
		{"zero byte", func(h *Hook) { h.Command = "a\x00b" }, "zero bytes"},
		{"priority", func(h *Hook) { h.Priority = MaxPriority + 1 }, "priority 1001"},
		{"no timeout", func(h *Hook) { h.Timeout = 0 }, "timeout must be"},
		{"half seconds", func(h *Hook) { h.Timeout = 1500 * time.Millisecond }, "timeout must be"},
		{"hours", func(h *Hook) { h.Timeout = 2 * time.Hour }, "timeout must be"},
	} {
		h := good
		tc.change(&h)
		expect(t, tc.name, faultIn(HookFaults(h)), tc.want)
	}
}

// faultIn is the first of them.
func faultIn(faults iter.Seq2[string, error]) error {
	for _, err := range faults {
		return err
	}
	return nil
}

func TestCheckPaths(t *testing.T) {
	for path, want := range map[string]string{
		"uploads/": "", "uploads": "", ".env": "", "a/b.c/d": "", ".gitignore": "", "a b": "", "ä": "", "...": "",
		"": "empty", "/": "empty", ".": "whole release", "./": "whole release", "/etc": "begins with a slash", "../x": "leads out", "a/../../x": "leads out", "..": "leads out",
		"a/..": "leads out", "./a": `write "a"`, "a//b": `write "a/b"`, "a/./b": `write "a/b"`, "a//": `write "a"`, ".git": "into .git", ".GIT/config": "into .git", "a/.git/": "into .git",
		"a\nb": "control character", "a\x00": "control character", "a\xff": "UTF-8", `a\b`: "backslash", strings.Repeat("a", 256): "at most 255",
	} {
		expect(t, path, CheckSharedPath(path), want)
	}
	expect(t, "beside others", CheckSharedPathAmong("b/d/", []string{"a", "ab", "b/c"}), "")
	expect(t, "within", CheckSharedPathAmong("a", []string{"x", "a/b"}), `"a" and "a/b" overlap`)
	expect(t, "twice", CheckSharedPathAmong("a/", []string{"a"}), "there twice")
}

func TestCheckServe(t *testing.T) {
	for _, tc := range []struct {
		serve Serve
		want  string
	}{
		{Serve{}, ""},
		{Serve{Directory: "."}, ""},
		{Serve{Directory: "dist/"}, ""},
		{Serve{Directory: "dist", Fallback: "app/index.html"}, ""},
		{Serve{Fallback: "index.html"}, "directory is missing"},
		{Serve{Directory: "../x"}, "directory: the path leads out"},
		{Serve{Directory: "x/.git"}, "directory: the path leads into .git"},
		{Serve{Directory: "x", Fallback: "y/"}, "name a file"},
		{Serve{Directory: "x", Fallback: "."}, "name a file"},
		{Serve{Directory: "x", Fallback: "../y"}, "fallback: the path leads out"},
	} {
		expect(t, tc.serve.Directory+" "+tc.serve.Fallback, faultIn(ServeFaults(tc.serve)), tc.want)
	}
}

func expect(t *testing.T, name string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%q: %v", name, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%q: got %v, want something with %q", name, err, want)
	}
}
