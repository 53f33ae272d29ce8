package codeconfig

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const full = `# How Devpilot deploys us
version: 1
hooks:
  - name: Install
    stage: POST_SOURCE_CONTROL
    command: npm ci
    timeout: 1m30s
  - name: "Build & check (prod)"
    stage: POST_SETUP
    command: |
      set -e
      npm run build
    priority: -5
    active: false
  - {name: Tell, stage: POST_RELEASE, command: "true", timeout: 1h}
sharedPaths: [uploads/, .env]
rules:
  paths:
    - site/**
    - "*.{js,ts}"
  pathsIgnore: ["**/*.md"]
  skipPhrases: []
serve:
  directory: dist
  fallback: index.html
`

func TestParse_everything(t *testing.T) {
	f, err := Parse(FileName, []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	want := Settings{
		Hooks: []Hook{
			{Name: "Install", Stage: StagePostSourceControl, Command: "npm ci", Active: true, Timeout: 90 * time.Second},
			{Name: "Build & check (prod)", Stage: StagePostSetup, Command: "set -e\nnpm run build\n", Priority: -5, Timeout: DefaultTimeout},
			{Name: "Tell", Stage: StagePostRelease, Command: "true", Active: true, Timeout: time.Hour},
		},
		SharedPaths: []string{"uploads/", ".env"},
		Paths:       []string{"site/**", "*.{js,ts}"},
		PathsIgnore: []string{"**/*.md"},
		SkipPhrases: []string{},
		Serve:       Serve{Directory: "dist", Fallback: "index.html"},
	}
	if !reflect.DeepEqual(f.Settings, want) {
		t.Errorf("got  %+v\nwant %+v", f.Settings, want)
	}
	if !slices.Equal(f.Fields(), Fields) {
		t.Errorf("sets %v", f.Fields())
	}
	for _, same := range []string{"\ufeff" + full, strings.ReplaceAll(full, "\n", "\r\n"), "---\n" + full} {
		g, err := Parse(FileName, []byte(same))
		if err != nil || !slices.Equal(g.Settings.SharedPaths, want.SharedPaths) || len(g.Settings.Hooks) != 3 {
			t.Errorf("%.20q: %v", same, err)
		}
	}
}

func TestParse_whatIsNotSaidIsNotSet(t *testing.T) {
	for text, want := range map[string][]Field{
		"version: 1":                                         nil,
		"version: 1\nhooks: []":                              {FieldHooks},
		"version: 1\nrules: {}":                              nil,
		"version: 1\nrules: {paths: []}":                     {FieldPaths},
		"version: 1\nrules: {skipPhrases: [nope]}":           {FieldSkipPhrases},
		"version: 1\nserve: {directory: .}":                  {FieldServe},
		"version: 1\nsharedPaths: []\nserve: {directory: .}": {FieldSharedPaths, FieldServe},
	} {
		f, err := Parse(FileName, []byte(text))
		if err != nil || !slices.Equal(f.Fields(), want) {
			t.Errorf("%q sets %v, want %v (%v)", text, f.Fields(), want, err)
		}
	}
	var none *File
	if none.Sets(FieldHooks) || none.Fields() != nil {
		t.Error("no file sets something")
	}
}

// wrong are files with the problems that they must give, in order, as line:column: and a part of
// the message. schema says that a JSON Schema can see the mistake as well.
var wrong = []struct {
	name, text string
	want       []string
	schema     bool
}{
	{"empty", "", []string{"1:1: the file is empty"}, true},
	{"only a comment", "# x\n", []string{"1:1: the file is empty"}, true},
	{"a list", "- a\n", []string{"1:1: the file must be a mapping with the keys version"}, true},
	{"a word", "hello\n", []string{`1:1: the file must be a mapping with the keys version, hooks, sharedPaths, rules, serve, not the text "hello"`}, true},
	{"no version", "hooks: []\n", []string{"1:1: version is missing"}, true},
	{"other version", "version: 2\n", []string{"1:10: version 2 is not known"}, true},
	{"version as text", "version: '1'\n", []string{`1:10: version must be a whole number, not the text "1"`}, true},
	{"version in octal", "version: 01\n", []string{"1:10: version must be a whole number"}, false},
	{"unknown key", "version: 1\nhoks: []\n", []string{`2:1: unknown key "hoks" in the file; did you mean "hooks"?`}, true},
	{"other spelling", "version: 1\nshared_paths: []\n", []string{`2:1: unknown key "shared_paths" in the file; did you mean "sharedPaths"?`}, true},
	{"what opens more than the repository", "version: 1\nsource:\n  submoduleWorkspaces: [\"*\"]\n", []string{`2:1: unknown key "source" in the file`}, true},
	{"nothing like it", "version: 1\nnotifications: []\n", []string{`2:1: unknown key "notifications" in the file; its keys are version, hooks`}, true},
	{"key twice", "version: 1\nhooks: []\nhooks: []\n", []string{`3:1: "hooks" is set twice, before at line 2`}, false},
	{"key twice in a hook", "version: 1\nhooks:\n  - name: a\n    name: b\n    stage: POST_SETUP\n    command: x\n", []string{`4:5: "name" is set twice, before at line 3`}, false},
	{"number as key", "version: 1\n5: x\n", []string{`2:1: "5" is not a key of the file`}, true},
	{"branch", "version: 1\nbranch: main\n", []string{"2:1: the branch cannot be set by the file"}, true},
	{"tags", "version: 1\nrules:\n  tags: [v*]\n", []string{"3:3: tags cannot be set by the file: which tags deploy must be known before"}, true},
	{"variables", "version: 1\nvariables: {A: b}\n", []string{"2:1: variables cannot be set by the file"}, true},
	{"hooks without a value", "version: 1\nhooks:\n", []string{"2:6: hooks has no value: write []"}, true},
	{"hooks as a mapping", "version: 1\nhooks:\n  name: a\n", []string{"3:3: hooks must be a list, not a mapping"}, true},
	{"hook as a word", "version: 1\nhooks: [npm ci]\n", []string{`2:9: a hook must be a mapping with the keys name, stage, command, priority, active, timeout, not the text "npm ci"`}, true},
	{"hook without anything", "version: 1\nhooks:\n  - active: true\n", []string{"3:5: the hook has no name", "3:5: the hook has no stage", "3:5: the hook has no command"}, true},
	{"command misspelt", "version: 1\nhooks:\n  - name: a\n    stage: POST_SETUP\n    comand: x\n",
		[]string{"3:5: the hook has no command", `5:5: unknown key "comand" in a hook; did you mean "command"?`}, true},
	{"early stage", hook("stage: PRE_EXECUTION"), []string{"5:12: hooks of PRE_EXECUTION cannot come from the file, which is known only once the source is there: set them in the app, or use POST_SOURCE_CONTROL"}, true},
	{"stage misspelt", hook("stage: POST_SETPU"), []string{`5:12: "POST_SETPU" is not a stage; did you mean POST_SETUP?`}, true},
	{"stage in lower case", hook("stage: post_release"), []string{"did you mean POST_RELEASE?"}, true},
	{"stage without hooks", hook("stage: RELEASE"), []string{"5:12: \"RELEASE\" is not a stage"}, true},
	{"command that is a boolean", hook("command: true"), []string{"command must be text, not true: put quotes around it"}, true},
	{"command that is a list", hook("command: [npm, ci]"), []string{"5:14: command must be text, not a list"}, true},
	{"command missing", hook("command:"), []string{"5:12: command has no value"}, true},
	{"command blank", hook("command: '  '"), []string{"5:14: the command is empty"}, true},
	{"command too long", hook("command: " + strings.Repeat("x", MaxCommand+1)), []string{"5:14: the command has 8193 characters"}, true},
	{"name blank", hook("name: ''"), []string{"5:11: a hook needs a name"}, true},
	{"name of two lines", hook(`name: "a\nb"`), []string{"5:11: the name must be one line"}, true},
	{"name too long", hook("name: " + strings.Repeat("ä", MaxName+1)), []string{"5:11: the name has 65 characters"}, true},
	{"name twice", "version: 1\nhooks:\n- {name: a, stage: POST_SETUP, command: x}\n- {name: a, stage: POST_RELEASE, command: x}\n", []string{`4:10: another hook is called "a"`}, false},
	{"priority", hook("priority: 2000"), []string{"the priority 2000 is not between -1000 and 1000"}, true},
	{"priority as text", hook("priority: high"), []string{`priority must be a whole number, not the text "high"`}, true},
	{"priority in hexadecimal", hook("priority: 0x10"), []string{"priority must be a whole number, not 0x10"}, false},
	{"active as yes", hook("active: yes"), []string{`5:13: active must be true or false, not the text "yes"`}, true},
	{"timeout without unit", hook("timeout: 600"), []string{"5:14: timeout must be text, not 600: put quotes around it"}, true},
	{"timeout of other units", hook("timeout: 1d"), []string{`the timeout "1d" is not a duration between 1s and 1h`}, true},
	{"timeout too long", hook("timeout: 61m"), []string{`the timeout "61m" is not a duration`}, true},
	{"timeout of nothing", hook("timeout: 0s"), []string{`the timeout "0s" is not a duration`}, true},
	{"shared path up", "version: 1\nsharedPaths: [a, ../b]\n", []string{"2:18: the path leads out of the release"}, true},
	{"shared path absolute", "version: 1\nsharedPaths: [/etc/passwd]\n", []string{"2:15: the path begins with a slash"}, true},
	{"shared path unclean", "version: 1\nsharedPaths: [./a]\n", []string{`2:15: write "a"`}, true},
	{"shared git", "version: 1\nsharedPaths: [a/.Git/hooks]\n", []string{"2:15: the path leads into .git"}, true},
	{"shared all", "version: 1\nsharedPaths: [.]\n", []string{"2:15: the whole release cannot be shared"}, true},
	{"shared twice", "version: 1\nsharedPaths: [a, b, a]\n", []string{`2:21: "a" is there twice`}, true},
	{"shared as file and directory", "version: 1\nsharedPaths: [a, a/]\n", []string{`2:18: "a/" is there twice`}, false},
	{"shared within", "version: 1\nsharedPaths: [a/b, a/]\n", []string{`2:20: "a/" and "a/b" overlap`}, false},
	{"shared number", "version: 1\nsharedPaths: [5]\n", []string{"2:15: an entry of sharedPaths must be text, not 5"}, true},
	{"path pattern", "version: 1\nrules:\n  paths: ['site/[a']\n", []string{"3:11: \"site/[a\" is not a valid pattern"}, false},
	{"negated pattern", "version: 1\nrules:\n  paths: ['!site']\n", []string{"3:11: \"!site\" begins with an exclamation mark"}, true},
	{"pattern twice", "version: 1\nrules:\n  pathsIgnore: [a, a]\n", []string{`3:20: "a" is there twice`}, true},
	{"phrase too short", "version: 1\nrules:\n  skipPhrases: [x]\n", []string{`3:17: the phrase "x" is too short`}, true},
	{"rules as a list", "version: 1\nrules: [a]\n", []string{"2:8: rules must be a mapping"}, true},
	{"serve without directory", "version: 1\nserve:\n  fallback: index.html\n", []string{"3:3: serve has no directory"}, true},
	{"serve nothing", "version: 1\nserve:\n", []string{"2:6: serve must be a mapping with the keys directory, fallback, not nothing"}, true},
	{"serve up", "version: 1\nserve: {directory: ../x, fallback: /x}\n", []string{"2:20: directory: the path leads out", "2:36: fallback: the path begins with a slash"}, true},
	{"fallback is a directory", "version: 1\nserve: {directory: x, fallback: y/}\n", []string{"2:33: fallback: name a file"}, true},
	{"several at once", "version: 3\nhooks:\n  - name: a\n    stage: X\n    command: 5\nfoo: 1\n",
		[]string{"1:10: version 3", `4:12: "X" is not a stage`, "5:14: command must be text, not 5", `6:1: unknown key "foo"`}, true},
	{"alias", "version: 1\nhooks: &a []\nsharedPaths: *a\n", []string{"2:8: anchors and aliases"}, false},
	{"alias bomb", "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n", []string{"1:4: anchors and aliases"}, false},
	{"merge key", "version: 1\n<<: {hooks: []}\n", []string{"2:1: merge keys"}, false},
	{"tag", "version: !!int 1\n", []string{"1:10: tags (!) are not supported"}, false},
	{"directive", "%YAML 1.2\n---\nversion: 1\n", []string{"1:1: directives"}, false},
	{"complex key", "? version\n: 1\n", []string{"1:1: keys that begin with a question mark"}, false},
	{"two documents", "version: 1\n---\nversion: 1\n", []string{"2:1: there is more than one document"}, false},
	{"two documents by dots", "version: 1\n...\nversion: 1\n", []string{"3:1: there is more than one document"}, false},
	{"tab", "version: 1\nhooks:\n\t- a\n", []string{"3:1: this is not valid YAML: found character"}, false},
	{"open bracket", "version: 1\nhooks: [\n", []string{"this is not valid YAML: sequence end token"}, false},
	{"open quote", "version: 1\nhooks: \"a\n", []string{"2:8: this is not valid YAML: could not find end character"}, false},
	{"wrong indentation", "version: 1\nserve:\n   directory: a\n  fallback: b\n", []string{"4:3: this is not valid YAML"}, false},
	{"not UTF-8", "version: 1\nhooks: \xff\n", []string{"2:8: the file is not valid UTF-8 here"}, false},
	{"zero byte", "version: 1\nhooks: \"é\x00\"\n", []string{"2:10: there is a control character (0x0) here"}, false},
	{"deep brackets", "version: 1\nhooks: " + strings.Repeat("[", 60_000), []string{"2:16: brackets are nested too deep"}, false},
	{"deep lists", "version: 1\nhooks:\n" + strings.Repeat("- ", 30_000) + "a\n", []string{"3:9: lists are nested too deep"}, false},
	{"many keys", numbered("k%d:\n", 2000), []string{"1001:6: the file has too many keys"}, false},
	{"many parts", "version: [" + strings.Repeat("a,", 20_000) + "]", []string{"the file has too many parts"}, false},
	{"too large", "version: 1\n#" + strings.Repeat("x", MaxSize), []string{"1:1: the file has 65548 bytes, and at most 65536 are allowed"}, false},
	{"too many hooks", "version: 1\nhooks:\n" + strings.Repeat("- {name: a, stage: POST_SETUP, command: x}\n", 51), []string{"53:3: hooks has 51 entries, and at most 50 are allowed"}, true},
	{"too many shared paths", "version: 1\nsharedPaths:\n" + numbered("- p%d\n", 51), []string{"53:3: sharedPaths has 51 entries"}, true},
}

// hook is a file with one hook, whose line 5 replaces the field of the same name.
func hook(line string) string {
	key, _, _ := strings.Cut(line, ":")
	out := "version: 1\nhooks:\n  -\n    # the line in question is the next one\n    " + line + "\n"
	for _, l := range []string{"name: a", "stage: POST_SETUP", "command: x"} {
		if !strings.HasPrefix(l, key+":") {
			out += "    " + l + "\n"
		}
	}
	return out
}

func numbered(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func TestParse_tellsEveryProblemWithItsPlace(t *testing.T) {
	for _, tc := range wrong {
		t.Run(tc.name, func(t *testing.T) {
			start := time.Now()
			f, err := Parse("web/"+FileName, []byte(tc.text))
			var problems Problems
			if f != nil || !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("got %+v, %v", f, err)
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tc.want) {
				t.Fatalf("got %q, want %d problems", lines, len(tc.want))
			}
			for i, l := range lines {
				if !strings.HasPrefix(l, "web/.devpilot.yaml:") || !strings.Contains(l, tc.want[i]) {
					t.Errorf("got %q, want something with %q", l, tc.want[i])
				}
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestParse_problemsAreBounded(t *testing.T) {
	_, err := Parse(FileName, []byte("version: 1\n"+numbered("key%d: 1\n", 900)))
	var problems Problems
	if !errors.As(err, &problems) || len(problems) != maxProblems || !strings.Contains(problems[maxProblems-1].Message, "851 more") {
		t.Fatalf("%d problems, the last %q", len(problems), problems[len(problems)-1])
	}
}

// Files that cost a naive reader much.
func TestParse_isQuick(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("a: ", 20_000), strings.Repeat("{a: ", 16_000), strings.Repeat("\"", 65_000), strings.Repeat("? ", 32_000),
		strings.Repeat("!a ", 20_000), numbered("%d: {\n", 6000), strings.Repeat("[]", 32_000), strings.Repeat("- - -\n", 10_000),
		strings.Repeat("a:\n", 20_000), strings.Repeat("|\n", 30_000), strings.Repeat("'", 65_000),
	} {
		start := time.Now()
		if _, err := Parse(FileName, []byte(text)); err == nil {
			t.Errorf("%.10q is fine", text)
		}
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("%.10q took %v", text, took)
		}
	}
	deep := "version: 1\n"
	for i := 0; len(deep) < MaxSize-400; i++ {
		deep += strings.Repeat(" ", i) + "a:\n"
	}
	start := time.Now()
	_, err := Parse(FileName, []byte(deep))
	if took := time.Since(start); err == nil || took > 30*time.Second {
		t.Errorf("deep mappings took %v: %v", took, err)
	}
}

func TestMerge(t *testing.T) {
	app := Settings{
		Hooks: []Hook{{Name: "app"}}, SharedPaths: []string{"app"}, Paths: []string{"app"}, PathsIgnore: []string{"app"}, Serve: Serve{Directory: "app"},
	}
	got, origins := Merge(app, nil)
	if !reflect.DeepEqual(got, app) || len(origins) != len(Fields) || origins[FieldHooks] != FromApp || got.SkipPhrases != nil {
		t.Errorf("without a file: %+v, %v", got, origins)
	}
	f, err := Parse(FileName, []byte("version: 1\nhooks: []\nrules: {paths: [file], skipPhrases: []}\n"))
	if err != nil {
		t.Fatal(err)
	}
	got, origins = Merge(app, f)
	want := app
	want.Hooks, want.Paths, want.SkipPhrases = []Hook{}, []string{"file"}, []string{}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if !reflect.DeepEqual(origins, map[Field]Origin{
		FieldHooks: FromFile, FieldSharedPaths: FromApp, FieldPaths: FromFile, FieldPathsIgnore: FromApp, FieldSkipPhrases: FromFile, FieldServe: FromApp,
	}) {
		t.Errorf("origins %v", origins)
	}
	f, err = Parse(FileName, []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	got, origins = Merge(app, f)
	if !reflect.DeepEqual(got, f.Settings) || origins[FieldServe] != FromFile || origins[FieldPathsIgnore] != FromFile {
		t.Errorf("a full file: %+v, %v", got, origins)
	}
	got.Hooks[0].Name, got.Paths[0] = "changed", "changed"
	if f.Settings.Hooks[0].Name != "Install" || f.Settings.Paths[0] != "site/**" {
		t.Error("the result shares memory with the file")
	}
}
