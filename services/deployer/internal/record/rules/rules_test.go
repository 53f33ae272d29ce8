package rules

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"devpilot.io/bitbucket/pkg/apierr"
)

func TestMatchBranch(t *testing.T) {
	for _, tc := range []struct {
		pattern, branch string
		want            bool
	}{
		{"main", "main", true},
		{"main", "Main", false}, // case matters
		{"main", "main2", false},
		{"feature/{a}", "feature/{a}", true}, // no pattern: braces alone do not make one
		{"feature/{a}", "feature/a", false},
		{"feature/*", "feature/a", true},
		{"feature/*", "feature/a/b", false}, // * stays within a segment
		{"feature/*", "feature", false},
		{"feature/**", "feature/a/b", true},
		{"feature/**", "feature/a", true},
		{"feature/**", "feature", true},
		{"**", "a/b/c", true},
		{"*", "main", true},
		{"*", "a/b", false},
		{"release/v[0-9]*", "release/v1.2", true},
		{"release/v[0-9]*", "release/vx", false},
		{"release/v[!0-9]", "release/vx", true},
		{"rel?ase", "release", true},
		{"{main,develop}*", "develop", true},
		{"{main,develop}*", "feature", false},
		{"Feature/*", "feature/a", false},
		{"feature/[", "feature/[", false}, // not valid: matches nothing
		{"a**", "ab", false},
		{"", "", false},
	} {
		if got := MatchBranch(tc.pattern, tc.branch); got != tc.want {
			t.Errorf("%q on %q: %v", tc.pattern, tc.branch, got)
		}
	}
	if !MatchTag([]string{"v1.0", "v2.*"}, "v2.7") || MatchTag([]string{"v1.0", "v2.*"}, "v3") || MatchTag(nil, "v1") {
		t.Error("tags")
	}
}

// matchPath tells whether a path, as git prints it, matches one of the patterns.
func matchPath(patterns []string, path string) bool { return compile(patterns).match(path) }

func TestMatchPath(t *testing.T) {
	for _, tc := range []struct {
		pattern, path string
		want          bool
	}{
		{"site/**", "site/a/b.html", true},
		{"site/**", "sites/a", false},
		{"site/*", "site/a", true},
		{"site/*", "site/a/b", false},
		{"*", "README.md", true},
		{"*", "site/a", false},
		{"**/*.md", "README.md", true},
		{"**/*.md", "a/b/c.md", true},
		{"*.{js,ts}", "a.ts", true},
		{"*.{js,ts}", "a.tsx", false},
		{"docs", "docs", true},
		{"docs", "docs/a/b", true},
		{"docs", "docs2", false},
		{"docs/", "docs/a", true},
		{"docs/", "docs", false}, // a file of that name is not the directory
		{"**/docs/", "a/docs/b", true},
		{"**/docs/", "docs/docs", true},
		{"**/docs/", "a/docs", false},
		{"app/[id]/page.tsx", "app/[id]/page.tsx", true},
		{"app/[id]/page.tsx", "app/i/page.tsx", true},
		{`app/\[id\]/**`, "app/[id]/x", true},
		{"Docs/**", "docs/a", false},
		{"src/*/x", "src/\xff\n/x", true},
		{"[", "a", false},
	} {
		if got := matchPath([]string{"nothing", tc.pattern}, tc.path); got != tc.want {
			t.Errorf("%q on %q: %v", tc.pattern, tc.path, got)
		}
	}
}

func TestChecks_messagesNameWhatIsWrong(t *testing.T) {
	many := make([]string, MaxPatterns+1)
	for i := range many {
		many[i] = fmt.Sprintf("p%d", i)
	}
	for _, tc := range []struct {
		name string
		err  error
		want string // empty: fine
	}{
		{"branch", CheckBranch("main"), ""},
		{"nested", CheckBranch("feature/JIRA-12_x.y"), ""},
		{"glob", CheckBranch("feature/**"), ""},
		{"glob class", CheckBranch("release/v[^a-c]?"), ""},
		{"empty", CheckBranch(""), "empty"},
		{"spaces", CheckBranch("  "), "empty"},
		{"ref", CheckBranch("refs/heads/main"), `write only "main"`},
		{"blank inside", CheckBranch("a b"), "character ' '"},
		{"colon in glob", CheckBranch("a:*"), "character ':'"},
		{"caret", CheckBranch("a^"), "character '^'"},
		{"option", CheckBranch("--upload-pack=x"), "not a name that git allows"},
		{"dots", CheckBranch("a..b"), "not a name that git allows"},
		{"dot part", CheckBranch("a/.b"), "begins with a dot"},
		{"lock", CheckBranch("a.lock"), ".lock"},
		{"slash", CheckBranch("/a"), "slash"},
		{"slashes", CheckBranch("a//*"), "slash"},
		{"long", CheckBranch(strings.Repeat("a", MaxPattern+1)), "at most 244"},
		{"open class", CheckBranch("a[b"), "bracket"},
		{"open brace", CheckBranch("a{b*"), "brace"},
		{"stuck stars", CheckBranch("feature**"), "must stand alone"},
		{"nested braces", CheckBranch("{a,{b,c}}*"), "braces within braces"},
		{"many braces", CheckBranch("{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}*"), "more than 64"},
		{"control", CheckBranch("a\x01"), "control character"},
		{"utf8", CheckBranch("a\xff"), "UTF-8"},
		{"tags", first(TagFaults([]string{"v*", "release-[0-9]"})), ""},
		{"tags second", first(TagFaults([]string{"v*", "v["})), "entry 2"},
		{"tag ref", first(TagFaults([]string{"refs/tags/v1"})), `write only "v1"`},
		{"paths", first(PathFaults([]string{"site/**", "docs", "docs/", "**/*.md", "*.{js,ts}"})), ""},
		{"twice", first(PathFaults([]string{"a", "a"})), "there twice"},
		{"too many", first(PathFaults(many)), "at most 64"},
		{"negated", CheckPath("!docs/**"), "ignored paths"},
		{"absolute", CheckPath("/docs"), "begins with a slash"},
		{"dot", CheckPath("./docs"), `segment "."`},
		{"up", CheckPath("docs/../x"), `segment ".."`},
		{"double", CheckPath("docs//x"), "two slashes"},
		{"padded", CheckPath(" docs"), "begins or ends with a space"},
		{"backslash", CheckPath(`docs\`), "backslash"},
		{"phrases", first(PhraseFaults(DefaultSkipPhrases)), ""},
		{"no phrases", first(PhraseFaults([]string{})), ""},
		{"short phrase", first(PhraseFaults([]string{"x"})), "too short"},
		{"line", first(PhraseFaults([]string{"a\nbc"})), "control character"},
	} {
		switch {
		case tc.want == "" && tc.err != nil:
			t.Errorf("%s: %v", tc.name, tc.err)
		case tc.want != "" && (tc.err == nil || !strings.Contains(tc.err.Error(), tc.want)):
			t.Errorf("%s: got %v, want something with %q", tc.name, tc.err, tc.want)
		}
	}
}

func changes(c Changes) func(context.Context) (Changes, error) {
	return func(context.Context) (Changes, error) { return c, nil }
}

func TestEvaluate(t *testing.T) {
	trouble := apierr.New(apierr.ReasonBitbucketUnavailable, "Bitbucket has trouble at the moment.")
	failing := func(err error) func(context.Context) (Changes, error) {
		return func(context.Context) (Changes, error) { return Changes{}, err }
	}
	site := Rules{Branch: "main", Paths: []string{"site/**"}}
	known := func(message string, c func(context.Context) (Changes, error)) Push {
		return Push{Branch: "main", Old: "a", New: "b", Message: message, MessageKnown: true, Changes: c}
	}
	created := known("x", nil)
	created.Created = true
	for _, tc := range []struct {
		name    string
		rules   Rules
		push    Push
		reason  string // empty: deploys
		message string
		note    string
	}{
		{"branch", Rules{Branch: "main"}, known("x", nil), "", "Branch main is watched", ""},
		{"glob", Rules{Branch: "m*"}, known("x", nil), "", "Branch main matches m*", ""},
		{"other branch", Rules{Branch: "develop"}, known("x", nil), ReasonBranchNotWatched, "Branch main is not watched; watching develop", ""},
		{"tag", Rules{Branch: "main", Tags: []string{"v*"}}, Push{Tag: "v1"}, "", "Tag v1 matches v*", ""},
		{"exact tag", Rules{Branch: "main", Tags: []string{"v1"}}, Push{Tag: "v1"}, "", "Tag v1 is watched", ""},
		{"no tags", Rules{Branch: "main"}, Push{Tag: "v1"}, ReasonTagNotWatched, "Tag v1: tags do not deploy", ""},
		{"other tag", Rules{Branch: "main", Tags: []string{"v*", "a", "b", "c"}}, Push{Tag: "x"}, ReasonTagNotWatched, "Tag x matches none of v*, a, b and 1 more", ""},
		{"neither phrases nor paths hold for a tag", Rules{Tags: []string{"v*"}, Paths: []string{"site/**"}},
			Push{Tag: "v1", Message: "release [skip ci]", MessageKnown: true, Changes: changes(Changes{Paths: []string{"docs/a"}})}, "", "Tag v1 matches v*", ""},
		{"skip phrase", Rules{Branch: "main"}, known("Fix\n\nlater [Skip CI]\n", nil), ReasonSkipPhrase, "The commit's message has [skip ci]", ""},
		{"own phrase", Rules{Branch: "main", SkipPhrases: []string{"NoDeploy"}}, known("nodeploy: x", nil), ReasonSkipPhrase, "NoDeploy", ""},
		{"own phrases replace the defaults", Rules{Branch: "main", SkipPhrases: []string{"NoDeploy"}}, known("[skip ci]", nil), "", "is watched", ""},
		{"phrases off", Rules{Branch: "main", SkipPhrases: []string{}}, known("[skip ci]", nil), "", "is watched", ""},
		{"message asked for", Rules{Branch: "main"}, Push{Branch: "main", Changes: changes(Changes{Message: "[ci skip]"})}, ReasonSkipPhrase, "[ci skip]", ""},
		{"message not to be had", Rules{Branch: "main"}, Push{Branch: "main", Changes: failing(trouble)}, "", "is watched", "Bitbucket has trouble at the moment), so it deploys"},
		{"path", site, known("x", changes(Changes{Paths: []string{"docs/a", "site/i.html"}})), "", "Branch main is watched; site/i.html changed", ""},
		{"no path", site, known("x", changes(Changes{Paths: []string{"docs/a.md", "b", "c"}})), ReasonPathsUnchanged, "No file under site/** changed (3 files changed, such as c)", ""},
		{"one other path", site, known("x", changes(Changes{Paths: []string{"docs/a.md"}})), ReasonPathsUnchanged, "No file under site/** changed (only docs/a.md changed)", ""},
		{"same tree", site, known("x", changes(Changes{})), ReasonPathsUnchanged, "the same before and after", ""},
		{"same tree without a filter", Rules{Branch: "main"}, known("x", changes(Changes{})), "", "is watched", ""},
		{"same tree, only ignoring", Rules{Branch: "main", PathsIgnore: []string{"docs"}}, known("x", changes(Changes{})), ReasonPathsUnchanged, "No file that counts changed", ""},
		{"all ignored", Rules{Branch: "main", PathsIgnore: []string{"docs/**", "**/*.md"}}, known("x", changes(Changes{Paths: []string{"docs/a", "README.md"}})),
			ReasonPathsUnchanged, "No file that counts changed (2 files changed, such as docs/a; changes to docs/**, **/*.md do not count)", ""},
		{"one not ignored", Rules{Branch: "main", PathsIgnore: []string{"docs/**"}}, known("x", changes(Changes{Paths: []string{"docs/a", "main.go"}})), "", "main.go changed", ""},
		{"ignored ones are no hit", Rules{Branch: "main", Paths: []string{"site/**"}, PathsIgnore: []string{"**/*.md"}},
			known("x", changes(Changes{Paths: []string{"site/README.md", "main.go"}})), ReasonPathsUnchanged, "such as main.go", ""},
		{"new branch", site, created, "", "The branch is new", "The branch is new: all files count as changed."},
		{"first push", site, known("x", changes(Changes{First: true})), "", "The branch is new", "all files count"},
		{"old commit gone", site, known("x", changes(Changes{BaseUnknown: true})), "", "no longer available", "all files count"},
		{"too many", site, known("x", changes(Changes{Truncated: true, Paths: []string{"docs/a"}})), "", "Too many files", "all files count"},
		{"a filter fails open", site, known("x", failing(trouble)), "", "all count as changed", "Bitbucket has trouble at the moment), so it deploys"},
		{"causes are not for people", site, known("x", failing(errors.New("exec: git: /secret/path"))), "", "all count as changed", "could not be found out"},
		{"nobody to ask", site, known("x", nil), "", "all count as changed", "could not be found out"},
		{"hostile names", site, known("x", changes(Changes{Paths: []string{"a\nb" + strings.Repeat("x", 300)}})), ReasonPathsUnchanged, `only "a\nbxx`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v, err := Evaluate(t.Context(), tc.rules, tc.push)
			if err != nil {
				t.Fatal(err)
			}
			if v.Deploys != (tc.reason == "") || v.Reason != tc.reason || (v.Rule == "") != v.Deploys {
				t.Errorf("got %+v", v)
			}
			if !strings.Contains(v.Message, tc.message) {
				t.Errorf("message %q, want something with %q", v.Message, tc.message)
			}
			if notes := strings.Join(v.Notes, " "); (notes == "") != (tc.note == "") || !strings.Contains(notes, tc.note) {
				t.Errorf("notes %q, want something with %q", notes, tc.note)
			}
			if len(v.Checks) == 0 || v.Checks[len(v.Checks)-1].Passed != v.Deploys || slices.ContainsFunc(v.Checks[:len(v.Checks)-1], func(c Check) bool { return !c.Passed }) {
				t.Errorf("checks %+v", v.Checks)
			}
			if strings.ContainsAny(v.Message, "\n\r") || len([]rune(v.Message)) > 600 {
				t.Errorf("message not fit for a line: %q", v.Message)
			}
		})
	}
}

func TestEvaluate_asksOnceAndOnlyWhenNeeded(t *testing.T) {
	for _, tc := range []struct {
		name  string
		rules Rules
		push  Push
		calls int
	}{
		{"cheap rules suffice", Rules{Branch: "main"}, Push{Branch: "main", MessageKnown: true}, 0},
		{"refused before", Rules{Branch: "x", Paths: []string{"a"}}, Push{Branch: "main"}, 0},
		{"skipped before", Rules{Branch: "main", Paths: []string{"a"}}, Push{Branch: "main", Message: "[skip ci]", MessageKnown: true}, 0},
		{"new branch", Rules{Branch: "main", Paths: []string{"a"}}, Push{Branch: "main", Created: true, MessageKnown: true}, 0},
		{"message and paths", Rules{Branch: "main", Paths: []string{"a"}}, Push{Branch: "main"}, 1},
		{"tag", Rules{Tags: []string{"*"}, Paths: []string{"a"}}, Push{Tag: "v1"}, 0},
	} {
		for _, result := range []error{nil, errors.New("no")} {
			calls := 0
			tc.push.Changes = func(context.Context) (Changes, error) {
				calls++
				return Changes{Paths: []string{"a"}}, result
			}
			v, err := Evaluate(t.Context(), tc.rules, tc.push)
			if err != nil || calls != tc.calls {
				t.Errorf("%s: %d calls, %v", tc.name, calls, err)
			}
			if want := tc.calls > 0 && result != nil; (v.Unknown != nil) != want || want && !errors.Is(v.Unknown, result) {
				t.Errorf("%s: unknown %v", tc.name, v.Unknown)
			}
		}
	}
}

func TestEvaluate_endsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	push := Push{Branch: "main", Changes: func(context.Context) (Changes, error) {
		cancel()
		return Changes{}, context.Canceled
	}}
	if _, err := Evaluate(ctx, Rules{Branch: "main", Paths: []string{"a"}}, push); !errors.Is(err, context.Canceled) {
		t.Errorf("a decision without an answer: %v", err)
	}
	many := make([]string, 100_000)
	for i := range many {
		many[i] = fmt.Sprintf("docs/%d", i)
	}
	push = Push{Branch: "main", MessageKnown: true, Changes: changes(Changes{Paths: many})}
	if _, err := Evaluate(ctx, Rules{Branch: "main", Paths: []string{"a"}}, push); !errors.Is(err, context.Canceled) {
		t.Errorf("a long list: %v", err)
	}
}

// What is allowed must not be slow: the worst pattern on a long path, many times.
func TestMatchPath_worstCaseIsBounded(t *testing.T) {
	var patterns []string
	for i := range MaxPatterns {
		patterns = append(patterns, fmt.Sprintf("{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}%s/%d", strings.Repeat("/**/*a*a*a*", 8), i))
	}
	if err := first(PathFaults(patterns)); err != nil {
		t.Fatal(err)
	}
	path := strings.TrimSuffix(strings.Repeat(strings.Repeat("a", 100)+"/", 40), "/")
	start := time.Now()
	ps := compile(patterns)
	for range 20 {
		if ps.match(path) {
			t.Fatal("matched")
		}
	}
	if per := time.Since(start) / 20; per > 10*time.Second {
		t.Errorf("%v for one path", per)
	} else {
		t.Logf("%v for one path of %d bytes against %d patterns", per, len(path), len(patterns))
	}
}

func FuzzMatch(f *testing.F) {
	for _, p := range []string{"main", "feature/*", "a/**", "[", "{a,b}", "{a,{b}}", `\`, "**/**", "a**", "[!a-]", "docs/"} {
		f.Add(p, "main")
		f.Add(p, "feature/a/b")
		f.Add(p, p)
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		glob := IsGlob(pattern)
		branch, path := MatchBranch(pattern, name), matchPath([]string{pattern}, name)
		if glob && !doublestar.ValidatePattern(pattern) && (branch || path && pattern != name) {
			t.Errorf("%q is not valid and matches %q", pattern, name)
		}
		if !glob && branch != (pattern == name && pattern != "") {
			t.Errorf("%q is no pattern and matches %q: %v", pattern, name, branch)
		}
		if glob && branch {
			if ok, err := doublestar.Match(pattern, name); err != nil || !ok {
				t.Errorf("%q matches %q here only", pattern, name)
			}
		}
		if CheckBranch(pattern) == nil && !glob && !MatchBranch(pattern, pattern) {
			t.Errorf("the branch %q does not match itself", pattern)
		}
		_, _ = CheckPath(pattern), CheckSkipPhrase(pattern)
		v, err := Evaluate(t.Context(), Rules{Branch: pattern, Paths: []string{pattern}, Tags: []string{name}},
			Push{Branch: name, Message: name, MessageKnown: true, Changes: changes(Changes{Paths: []string{name}})})
		if err != nil || v.Deploys && !branch {
			t.Errorf("%+v, %v", v, err)
		}
	})
}

// first is the first fault of a list, with its place counted from 1.
func first(faults iter.Seq2[int, error]) error {
	for i, err := range faults {
		return fmt.Errorf("entry %d: %w", i+1, err)
	}
	return nil
}
