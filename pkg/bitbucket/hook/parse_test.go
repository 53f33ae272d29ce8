package hook

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// The hashes in testdata are the SHA-1 of the commit's letter.
const (
	hashA = "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"
	hashB = "e9d71f5ee7c92d6dc9e92ffdad17b8bd49418f98"
	hashC = "84a516841ba77a5b4648de2cd0dfcb30ea46dbb4"
)

func payload(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t *testing.T, name string) Push {
	t.Helper()
	p, err := Parse(payload(t, name))
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return p
}

func TestParse_repositoryAndActor(t *testing.T) {
	p := parse(t, "1_update")
	wantRepository := Repository{
		UUID: "85d08b4e-571d-44e9-a507-fa476535aa98", FullName: "acme/web", Name: "Web", Private: true,
		WorkspaceUUID: "6f1c2d3e-0000-4000-8000-00000000acce", WorkspaceSlug: "acme",
	}
	if diff := cmp.Diff(wantRepository, p.Repository); diff != "" {
		t.Errorf("repository (-want +got):\n%s", diff)
	}
	wantActor := Actor{
		Kind: "user", UUID: "0b7c0e0a-1111-4222-8333-444455556666", AccountID: "557058:9a1b2c3d-aaaa-bbbb-cccc-1234567890ab",
		DisplayName: "Jane Developer", Nickname: "Jane",
	}
	if diff := cmp.Diff(wantActor, p.Actor); diff != "" {
		t.Errorf("actor (-want +got):\n%s", diff)
	}
	if p.Actor.Label() != "Jane" {
		t.Errorf("label = %q", p.Actor.Label())
	}
}

func TestParse_updateCarriesCommits(t *testing.T) {
	c := parse(t, "1_update").Changes[0]
	want := Commit{
		Hash: hashB, Message: "Change\n", AuthorName: "Jane Developer", AuthorEmail: "jane@example.test",
		Time: time.Date(2026, 9, 7, 20, 19, 25, 0, time.UTC),
	}
	if diff := cmp.Diff(want, c.New.Target); diff != "" {
		t.Errorf("new target (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Commit{want}, c.Commits); diff != "" {
		t.Errorf("commits (-want +got):\n%s", diff)
	}
	if c.Old.Target.Hash != hashA {
		t.Errorf("old hash = %q, want %q", c.Old.Target.Hash, hashA)
	}
}

// change is what one change of a payload comes down to.
type change struct {
	index                              int
	kind                               RefKind
	name                               string
	old, new                           bool
	created, closed, forced, truncated bool
	commits                            int
	head                               string
}

func summary(p Push) []change {
	var all []change
	for _, c := range p.Changes {
		_, head, _ := c.Head()
		all = append(all, change{
			index: c.Index, kind: c.Ref().Kind, name: c.Ref().Name, old: c.Old != nil, new: c.New != nil,
			created: c.Created, closed: c.Closed, forced: c.Forced, truncated: c.Truncated, commits: len(c.Commits), head: head,
		})
	}
	return all
}

func TestParse_everyCase(t *testing.T) {
	tests := map[string][]change{
		"1_update":               {{kind: Branch, name: "main", old: true, new: true, commits: 1, head: hashB}},
		"2_create_branch":        {{kind: Branch, name: "feature/login", new: true, created: true, truncated: true, commits: 5, head: "d8273e2f4a7c0a59554544c6605cdd8b117848aa"}},
		"3_delete_branch":        {{kind: Branch, name: "feature/login", old: true, closed: true}},
		"4_create_tag":           {{kind: Tag, name: "v1.3", new: true, created: true}},
		"4_create_annotated_tag": {{kind: Tag, name: "v1.4", new: true, created: true}},
		"5_delete_tag":           {{kind: Tag, name: "v1.3", old: true, closed: true}},
		"6_force_push":           {{kind: Branch, name: "main", old: true, new: true, forced: true, truncated: true, commits: 1, head: hashC}},
		"7_several_refs": {
			{index: 0, kind: Branch, name: "main", old: true, new: true, commits: 1, head: hashB},
			{index: 1, kind: Branch, name: "release", old: true, new: true, commits: 1, head: "4dc7c9ec434ed06502767136789763ec11d2c4b7"},
			{index: 2, kind: Branch, name: "hotfix/1", new: true, created: true, commits: 1, head: "11f6ad8ec52a2984abaafd7c3b516503785c2072"},
			{index: 3, kind: Branch, name: "old", old: true, closed: true},
			{index: 4, kind: Tag, name: "v2", new: true, created: true},
		},
		"8_empty_changes": nil,
		"9_tag_moved":     {{kind: Tag, name: "latest", old: true, new: true, forced: true}},
		"missing_fields":  {{kind: Branch, name: "main", new: true, head: hashB}},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			p := parse(t, name)
			if diff := cmp.Diff(want, summary(p), cmp.AllowUnexported(change{})); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			if p.Unreadable != 0 {
				t.Errorf("unreadable = %d", p.Unreadable)
			}
			if p.Repository.UUID != "85d08b4e-571d-44e9-a507-fa476535aa98" {
				t.Errorf("repository UUID = %q: not normalised", p.Repository.UUID)
			}
		})
	}
}

func TestParse_oddChangesCostNoOther(t *testing.T) {
	p := parse(t, "odd_fields")
	want := []change{
		{index: 4, kind: Branch, name: "main", new: true},
		{index: 5, kind: Branch, name: "main", old: true, new: true, commits: 1, head: hashB},
	}
	if diff := cmp.Diff(want, summary(p), cmp.AllowUnexported(change{})); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if p.Unreadable != 4 {
		t.Errorf("unreadable = %d, want 4", p.Unreadable)
	}
	if diff := cmp.Diff(Repository{}, p.Repository); diff != "" {
		t.Errorf("repository (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Actor{}, p.Actor); diff != "" {
		t.Errorf("actor (-want +got):\n%s", diff)
	}
}

func TestParse_absentParts(t *testing.T) {
	for _, body := range []string{`{}`, `{"push":null,"repository":null,"actor":null}`, `{"push":{}}`, ` {"push":{"changes":null}}`} {
		p, err := Parse([]byte(body))
		if err != nil || len(p.Changes) != 0 || p.Unreadable != 0 {
			t.Errorf("Parse(%s) = %+v, %v", body, p, err)
		}
	}
}

func TestParse_refusesWhatIsNoDelivery(t *testing.T) {
	for _, body := range []string{"", " ", "null", "[]", `"text"`, "{", `{"push":`, `{}{}`, "\xff", `{"a":1} trailing`} {
		if _, err := Parse([]byte(body)); !errors.Is(err, ErrNotJSON) {
			t.Errorf("Parse(%q): err = %v, want ErrNotJSON", body, err)
		}
	}
	for _, body := range []string{`{"push":[]}`, `{"push":{"changes":{}}}`, `{"repository":"secret-name"}`} {
		_, err := Parse([]byte(body))
		if err == nil || strings.Contains(err.Error(), "secret-name") {
			t.Errorf("Parse(%q): err = %v, want an error that does not quote the payload", body, err)
		}
	}
}

// oddBodies are bodies on which two readers of JSON may differ.
func oddBodies(t testing.TB) []string {
	deep := func(n int) string {
		return `{"push":{"changes":[]},"x":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `}`
	}
	deepChange := func(n int) string {
		return `{"push":{"changes":[` + strings.Repeat(`{"old":`, n-3) + "7" + strings.Repeat("}", n-3) + `]}}`
	}
	ref := `{"type":"branch","name":"main","target":{"hash":"` + hashA + `"}}`
	bodies := []string{
		"", " ", "null", "[]", `"text"`, "7", "{", `{"push":`, `{}{}`, "{} \r\n\t", "{}\x00", "{}\v", "\xff", "\ufeff{}", "{}\ufeff", "\v{}", `{"a":1} trailing`, `{"a":1,}`, `{,}`, `{"a" 1}`, `{a:1}`, `{'a':1}`,
		`{"a":01}`, `{"a":-}`, `{"a":1.}`, `{"a":.5}`, `{"a":1e}`, `{"a":1e999}`, `{"a":+1}`, `{"a":-0.0E+00}`, `{"a":NaN}`, `{"a":tru}`, `{"a":nul}`, `{"a":"\x01"}`, "{\"a\":\"\t\"}", `{"a":"\u12"}`, `{"a":"\q"}`, `{"a":"\/"}`, `{"a":"`,
		`[{"push":{}}]`, `{"push":[]}`, `{"push":7}`, `{"push":"x"}`, `{"push":true}`, `{"push":{"changes":{}}}`, `{"push":{"changes":7}}`, `{"push":{"changes":"x"}}`, `{"push":{"changes":null}}`, `{"push":{"changes":[[],{},null,7,"x",true]}}`,
		`{"repository":7}`, `{"repository":[]}`, `{"repository":null}`, `{"repository":"x","push":7}`, `{"repository":{"uuid":{},"full_name":7,"name":null,"is_private":"true","workspace":7}}`, `{"actor":7}`, `{"actor":[]}`, `{"actor":{"type":{},"nickname":[1]}}`,
		// The last of equal names counts, and its value replaces the whole of the one before.
		`{"push":7,"push":{}}`, `{"push":{},"push":7}`, `{"push":{"changes":[{"new":` + ref + `}]},"push":null}`, `{"push":{"changes":7},"push":{}}`, `{"push":{"changes":7,"changes":[]}}`,
		`{"push":{"changes":[{"new":` + ref + `}],"changes":[7]}}`, `{"push":{"changes":[{"new":` + ref + `},7],"changes":null}}`, `{"push":{"changes":[1,2,3],"changes":[{"new":` + ref + `}]}}`, `{"repository":{"uuid":"a"},"repository":{"name":"b"}}`, `{"repository":7,"repository":{"uuid":"a","uuid":7}}`, `{"repository":{"uuid":"a","uuid":null}}`,
		`{"actor":{"nickname":"a"},"actor":7}`, `{"repository":{"workspace":{"uuid":"a","slug":"b"},"workspace":{"slug":"c"}}}`, `{"repository":{"workspace":{"uuid":"a"},"workspace":7}}`, `{"repository":{"is_private":true,"is_private":7}}`,
		`{"push":{"changes":[{"new":7,"new":` + ref + `,"old":null}]}}`, `{"push":{"changes":[{"new":` + ref + `,"new":7}]}}`, `{"push":{"changes":[{"new":` + ref + `,"new":null}]}}`, `{"push":{"changes":[{"new":` + ref + `,"commits":[{"hash":"` + hashA + `"},null,7],"commits":{}}]}}`,
		`{"push":{"changes":[{"new":{"name":"a","name":7,"target":{"hash":"` + hashA + `"},"target":{"message":"m","author":{"raw":"x <y>","user":{"display_name":"z"},"user":7},"author":{"user":{"display_name":"w"}}}}}]}}`,
		`{"push":{"changes":[{"new":{"name":"a","target":{"author":{"raw":7,"user":{"display_name":"n"}},"date":7,"hash":"ABC"}}}]}}`, `{"push":{"changes":[{"new":{"name":"a","target":7}}]}}`, `{"push":{"changes":[{"new":{"name":"a","target":null,"type":"annotated_tag"},"created":null,"forced":true,"truncated":{}}]}}`,
		// The case of letters does not matter, in any alphabet.
		`{"PUSH":{"Changes":[{"NEW":` + strings.ToUpper(ref) + `}]}}`, `{"pu\u017Fh":{"changes":[7]},"push":{}}`, `{"puſh":{"changes":[7]}}`, `{"\u0070ush":{"changes":[7]}}`, `{"push\u0000":{"changes":[7]}}`, `{"pusÿh":{"changes":[7]}}`,
		// What is no UTF-8, and halves of surrogate pairs.
		"{\"actor\":{\"nickname\":\"a\xff\xfeb\xc3\"}}", `{"actor":{"nickname":"\ud800x\udc00\ud83d\ude00\uD83D"}}`, `{"actor":{"nickname":"\u0000\n\\\""}}`, "{\"\xff\":1,\"push\":{}}", "{\"actor\":{\"nickname\":\"\xed\xa0\x80\"}}",
		deep(9999), deep(10000), deep(10001), deepChange(9999), deepChange(10000), deepChange(10001),
		`{"push":{"changes":[` + strings.Repeat(`{"new":`+ref+`},`, 2000) + `null]}}`, `{"push":{"changes":[` + strings.Repeat(`[],`, 50000) + `{}]}}`,
	}
	whole := string(payload(t, "7_several_refs"))
	for cut := 1; cut < len(whole); cut += 97 {
		bodies = append(bodies, whole[:cut], whole[cut:], whole[:cut]+"\x00"+whole[cut:], whole[:cut]+"\""+whole[cut:])
	}
	return bodies
}

// sameAsSlowly compares Parse with encoding/json.
func sameAsSlowly(t *testing.T, body []byte) {
	t.Helper()
	before := bytes.Clone(body)
	got, err := Parse(body)
	want, wantErr := parseSlowly(before)
	if !bytes.Equal(body, before) {
		t.Fatal("the body was changed")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Parse(%.300q) (-want +got):\n%s", body, diff)
	}
	if (err == nil) != (wantErr == nil) || errors.Is(err, ErrNotJSON) != errors.Is(wantErr, ErrNotJSON) || (err != nil && err.Error() != wantErr.Error()) {
		t.Errorf("Parse(%.300q): error %v, want %v", body, err, wantErr)
	}
}

func TestParse_readsAsEncodingJSONDoes(t *testing.T) {
	for _, body := range oddBodies(t) {
		sameAsSlowly(t, []byte(body))
	}
}

// TestParse_takesMemoryForWhatItKeeps: what is passed over costs nothing, however much it is.
func TestParse_takesMemoryForWhatItKeeps(t *testing.T) {
	small := []byte(`{"push":{"changes":[]},"x":[]}`)
	large := []byte(`{"push":{"changes":[]},"x":[` + strings.Repeat(`{"a":["b",{"c":1}]},`, 20000) + `7]}`)
	count := func(body []byte) float64 {
		return testing.AllocsPerRun(20, func() {
			if _, err := Parse(body); err != nil {
				t.Error(err)
			}
		})
	}
	if one, other := count(small), count(large); other > one+5 {
		t.Errorf("%v allocations for what is not read, %v without it", other, one)
	}
}

func BenchmarkParse(b *testing.B) {
	body := payload(b, "7_several_refs")
	for name, parse := range map[string]func([]byte) (Push, error){"one_pass": Parse, "encoding_json": parseSlowly} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := parse(body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// FuzzParse reads anything as encoding/json does, and never makes a change that means nothing.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("no payloads: %v", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, body := range oddBodies(f) {
		if len(body) < 4<<10 {
			f.Add([]byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		sameAsSlowly(t, body)
		p, err := Parse(body)
		if err != nil {
			return
		}
		last := -1
		for _, c := range p.Changes {
			if c.Index <= last {
				t.Fatalf("index %d after %d", c.Index, last)
			}
			last = c.Index
			if c.Old == nil && c.New == nil {
				t.Fatal("a change without a ref")
			}
			for _, r := range []*Ref{c.Old, c.New} {
				if r == nil {
					continue
				}
				if r.Name == "" || !utf8.ValidString(r.Name) {
					t.Fatalf("bad name %q", r.Name)
				}
				if h := r.Target.Hash; h != "" && !isHash(h) {
					t.Fatalf("bad hash %q", h)
				}
			}
			if branch, _, ok := c.Head(); ok && (c.New == nil || branch != c.New.Name) {
				t.Fatal("a head without a new branch")
			}
		}
	})
}
