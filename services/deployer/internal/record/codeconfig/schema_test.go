package codeconfig

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// validator is somebody else's reading of our schema.
func validator(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("devpilot.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("devpilot.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// judge runs a file through the schema, as an editor does.
func judge(t testing.TB, s *jsonschema.Schema, text string) error {
	t.Helper()
	asJSON, err := yaml.YAMLToJSON([]byte(strings.TrimPrefix(text, "\ufeff")))
	if err != nil {
		t.Fatalf("%.200q: %v", text, err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		t.Fatalf("%.200q: %s: %v", text, asJSON, err)
	}
	return s.Validate(value)
}

func TestSchema_agreesWithTheParser(t *testing.T) {
	s := validator(t)
	valid := []string{full, "version: 1", "version: 1\nhooks: []\nrules: {}\n", hook("timeout: 3600s"), hook("timeout: 60m"), hook("timeout: 59m59s"), hook("timeout: 1h"),
		hook("priority: -1000"), hook("active: false"), hook("name: 'Ä b/c: d'"), hook("command: |\n      a\n\n      b"), hook("command: " + strings.Repeat("ä", MaxCommand)),
		"version: 1\nsharedPaths: [a/, .env, .gitignore, '...', 'x y']\n", "version: 1\nserve: {directory: ./}\n", "version: 1\nserve: {directory: a/b/, fallback: c/d.html}\n",
		"version: 1\nrules: {paths: ['**', docs/, 'a/[!b]?', '{a,b}/*'], pathsIgnore: [], skipPhrases: ['[x]', 'no deploy']}\n",
		"version: 1\nrules: {paths: [" + numbered("p%d, ", 64) + "]}\n",
	}
	for _, text := range valid {
		if _, err := Parse(FileName, []byte(text)); err != nil {
			t.Errorf("the parser refuses %.80q: %v", text, err)
		}
		if err := judge(t, s, text); err != nil {
			t.Errorf("the schema refuses %.80q: %v", text, err)
		}
	}
	seen := 0
	for _, tc := range wrong {
		if tc.schema {
			seen++
			if err := judge(t, s, tc.text); err == nil {
				t.Errorf("%s: the schema takes what the parser refuses: %.80q", tc.name, tc.text)
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d mistakes were tried", seen)
	}
}

// The numbers and words of the schema are those of the code.
func TestSchema_hasTheLimitsOfTheCode(t *testing.T) {
	var doc struct {
		Schema     string `json:"$schema"`
		Properties map[string]struct {
			MaxItems   int            `json:"maxItems"`
			Properties map[string]any `json:"properties"`
		} `json:"properties"`
		Defs map[string]struct {
			Properties map[string]struct {
				Enum             []string `json:"enum"`
				MaxLength        int      `json:"maxLength"`
				Minimum, Maximum int
				Default          any
				Pattern          string
			} `json:"properties"`
		} `json:"$defs"`
	}
	if err := json.Unmarshal(schema, &doc); err != nil {
		t.Fatal(err)
	}
	h := doc.Defs["hook"].Properties
	switch {
	case doc.Schema != "https://json-schema.org/draft/2020-12/schema",
		doc.Properties["hooks"].MaxItems != MaxHooks, doc.Properties["sharedPaths"].MaxItems != MaxSharedPaths,
		h["name"].MaxLength != MaxName, h["command"].MaxLength != MaxCommand, h["priority"].Minimum != -MaxPriority, h["priority"].Maximum != MaxPriority,
		h["timeout"].Default != "10m", DefaultTimeout.String() != "10m0s",
		!slices.Equal(h["stage"].Enum, FileStages),
		h["timeout"].Pattern != timeoutPattern.String(), h["name"].Pattern != namePattern.String(), h["command"].Pattern != commandPattern.String():
		t.Errorf("the schema differs: %+v", doc)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	for _, tc := range wrong {
		if len(tc.text) < 2000 {
			f.Add([]byte(tc.text))
		}
	}
	s := validator(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Parse(FileName, b)
		if err != nil {
			checkProblems(t, b, err)
			return
		}
		if err := judge(t, s, string(b)); err != nil {
			t.Errorf("the parser takes what the schema refuses: %v", err)
		}
		if len(file.Settings.Hooks) > MaxHooks || len(file.Settings.SharedPaths) > MaxSharedPaths {
			t.Errorf("%d hooks, %d shared paths", len(file.Settings.Hooks), len(file.Settings.SharedPaths))
		}
		names := map[string]bool{}
		for _, h := range file.Settings.Hooks {
			if err := faultIn(HookFaults(h)); err != nil || names[h.Name] || !slices.Contains(FileStages, h.Stage) {
				t.Errorf("hook %+v: %v", h, err)
			}
			names[h.Name] = true
		}
		for i, p := range file.Settings.SharedPaths {
			if err := CheckSharedPathAmong(p, file.Settings.SharedPaths[:i]); err != nil {
				t.Error(err)
			}
		}
		if err := faultIn(ServeFaults(file.Settings.Serve)); err != nil {
			t.Error(err)
		}
	})
}

func checkProblems(t *testing.T, b []byte, err error) {
	problems, ok := err.(Problems) //nolint:errorlint // exactly this type is promised
	if !ok || len(problems) == 0 || len(problems) > maxProblems {
		t.Fatalf("%T: %v", err, err)
	}
	lines := bytes.Count(b, []byte("\n")) + bytes.Count(b, []byte("\r")) + 2
	for _, p := range problems {
		if p.File != FileName || p.Line < 1 || p.Line > lines || p.Column < 1 || p.Message == "" || strings.ContainsAny(p.Message, "\n\r") {
			t.Errorf("problem %+v", p)
		}
	}
}
