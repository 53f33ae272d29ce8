package codeconfig

import (
	_ "embed" // the schema
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"devpilot.io/bitbucket/services/deployer/internal/record/rules"
)

// FileName is where the file stands, in the app's directory of the repository.
const FileName = ".devpilot.yaml"

// LookAlikes are names that people give the file by mistake. A file of such a name does not count.
func LookAlikes() []string {
	return []string{".devpilot.yml", "devpilot.yaml", "devpilot.yml", ".devpilot.YAML", ".devpilot.json"}
}

// schema is the JSON Schema (draft 2020-12) of the file.
//
//go:embed devpilot.schema.json
var schema []byte

// File is what a file says.
type File struct {
	// Settings are what it sets; what it does not is zero (see Sets).
	Settings Settings
	set      map[Field]bool
}

// Sets tells whether the file makes a setting, be it an empty one. A nil file sets nothing.
func (f *File) Sets(field Field) bool { return f != nil && f.set[field] }

// Fields are the fields that the file sets, in the order of Fields.
func (f *File) Fields() []Field {
	var out []Field
	for _, field := range Fields {
		if f.Sets(field) {
			out = append(out, field)
		}
	}
	return out
}

// Parse reads a file. name is what messages call it, such as FileName. The error is Problems, all
// that were found; nothing of a file that has any counts.
func Parse(name string, b []byte) (*File, error) {
	r := &reader{name: name}
	f := &File{set: map[Field]bool{}}
	if root := r.document(b); root != nil {
		r.file(root, f)
	}
	if len(r.problems) > 0 {
		return nil, r.problems.sorted()
	}
	return f, nil
}

// elsewhere are settings that one may look for in the file, and why they are not there.
var elsewhere = map[string]string{
	"branch":     "the branch cannot be set by the file: which branches are watched must be known before one is looked into. Set it in the app",
	"tags":       "tags cannot be set by the file: which tags deploy must be known before one is looked into. Set them in the app",
	"variables":  "variables cannot be set by the file: they may be secrets, which do not belong into a repository. Set them in the app",
	"repository": "the repository cannot be set by the file that stands in it",
	"server":     "the server cannot be set by the file. Set it in the app",
	"autoDeploy": "auto-deploy cannot be set by the file. Set it in the app",
}

func (r *reader) file(root ast.Node, f *File) {
	top, ok := r.mapping(root, "the file", []string{"version", "hooks", "sharedPaths", "rules", "serve"})
	if !ok {
		return
	}
	if n, there := top["version"]; !there {
		r.at(root, "version is missing: write version: 1")
	} else if v, ok := r.integer(n, "version"); ok && v != 1 {
		r.at(n, "version %d is not known: write version: 1", v)
	}
	if n, there := top["hooks"]; there {
		f.set[FieldHooks] = true
		f.Settings.Hooks = r.hooks(n)
	}
	if n, there := top["sharedPaths"]; there {
		f.set[FieldSharedPaths] = true
		f.Settings.SharedPaths = r.texts(n, "sharedPaths", MaxSharedPaths, func(p string, before []string) error {
			if err := CheckSharedPath(p); err != nil {
				return err
			}
			return overlap(p, before)
		})
	}
	if n, there := top["rules"]; there {
		r.rules(n, f)
	}
	if n, there := top["serve"]; there {
		f.set[FieldServe] = true
		f.Settings.Serve = r.serve(n)
	}
}

func (r *reader) hooks(n ast.Node) []Hook {
	list, ok := r.list(n, "hooks", MaxHooks)
	if !ok {
		return nil
	}
	hooks := make([]Hook, 0, len(list))
	names := map[string]bool{}
	for _, entry := range list {
		fields, ok := r.mapping(entry, "a hook", []string{"name", "stage", "command", "priority", "active", "timeout"})
		if !ok {
			continue
		}
		for _, required := range []string{"name", "stage", "command"} {
			if _, there := fields[required]; !there {
				r.at(entry, "the hook has no %s", required)
			}
		}
		h := r.hook(fields)
		if n, there := fields["name"]; there && h.Name != "" && names[h.Name] {
			r.at(n, "%s", HookNameTaken(h.Name))
		}
		names[h.Name] = true
		hooks = append(hooks, h)
	}
	return hooks
}

// hook reads the fields that are there.
func (r *reader) hook(fields map[string]ast.Node) Hook {
	h := Hook{Active: true, Timeout: DefaultTimeout}
	text := func(field string, check func(string) error) (value string) {
		n, there := fields[field]
		if !there {
			return ""
		}
		value, ok := r.text(n, field)
		if ok {
			if err := check(value); err != nil {
				r.at(n, "%v", err)
			}
		}
		return value
	}
	h.Name = text("name", checkName)
	h.Command = text("command", checkCommand)
	h.Stage = text("stage", func(string) error { return nil })
	if n, there := fields["stage"]; there && h.Stage != "" {
		r.stage(n, h.Stage)
	}
	if n, there := fields["priority"]; there {
		if v, ok := r.integer(n, "priority"); ok {
			if err := checkPriority(v); err != nil {
				r.at(n, "%v", err)
			}
			h.Priority = int32(max(min(v, MaxPriority), -MaxPriority))
		}
	}
	if n, there := fields["active"]; there {
		if b, ok := n.(*ast.BoolNode); ok {
			h.Active = b.Value
		} else {
			r.at(n, "active must be true or false, not %s", kind(n))
		}
	}
	if n, there := fields["timeout"]; there {
		if s, ok := r.text(n, "timeout"); ok {
			d, err := time.ParseDuration(s)
			if err != nil || !timeoutPattern.MatchString(s) {
				r.at(n, "the timeout %s is not a duration between 1s and 1h, such as 90s, 10m or 1m30s", quote(s))
			} else {
				h.Timeout = d
			}
		}
	}
	return h
}

func (r *reader) stage(n ast.Node, stage string) {
	switch {
	case slices.Contains(FileStages, stage):
	case slices.Contains(Stages, stage):
		r.at(n, "hooks of %s cannot come from the file, which is known only once the source is there: set them in the app, or use %s", stage, StagePostSourceControl)
	case suggest(stage, FileStages) != "":
		r.at(n, "%s is not a stage; did you mean %s?", quote(stage), suggest(stage, FileStages))
	default:
		r.at(n, "%s is not a stage at which hooks of the file run: use one of %s", quote(stage), strings.Join(FileStages, ", "))
	}
}

func (r *reader) rules(n ast.Node, f *File) {
	fields, ok := r.mapping(n, "rules", []string{"paths", "pathsIgnore", "skipPhrases"})
	if !ok {
		return
	}
	for _, c := range []struct {
		key   string
		field Field
		most  int
		check func(string) error
		to    *[]string
	}{
		{"paths", FieldPaths, rules.MaxPatterns, rules.CheckPath, &f.Settings.Paths},
		{"pathsIgnore", FieldPathsIgnore, rules.MaxPatterns, rules.CheckPath, &f.Settings.PathsIgnore},
		{"skipPhrases", FieldSkipPhrases, rules.MaxPhrases, rules.CheckSkipPhrase, &f.Settings.SkipPhrases},
	} {
		n, there := fields[c.key]
		if !there {
			continue
		}
		f.set[c.field] = true
		*c.to = r.texts(n, "rules."+c.key, c.most, func(s string, _ []string) error { return c.check(s) })
	}
}

func (r *reader) serve(n ast.Node) (s Serve) {
	fields, ok := r.mapping(n, "serve", []string{"directory", "fallback"})
	if !ok {
		return s
	}
	if dir, there := fields["directory"]; !there {
		r.at(n, "serve has no directory: name the one to serve, such as dist, or . for the whole release")
	} else if s.Directory, ok = r.text(dir, "directory"); ok {
		if err := checkServeDirectory(s.Directory); err != nil {
			r.at(dir, "%v", err)
		}
	}
	if n, there := fields["fallback"]; there {
		if s.Fallback, ok = r.text(n, "fallback"); ok {
			if s.Fallback == "" {
				r.at(n, "fallback is empty: name a file, such as index.html, or leave it out")
			} else if err := checkFallback(s.Fallback); err != nil {
				r.at(n, "%v", err)
			}
		}
	}
	return s
}

// mapping returns the values by key, with a problem for each key that is not known or there twice.
func (r *reader) mapping(n ast.Node, what string, known []string) (map[string]ast.Node, bool) {
	m, ok := n.(ast.MapNode)
	if !ok {
		r.at(n, "%s must be a mapping with the keys %s, not %s", what, strings.Join(known, ", "), kind(n))
		return nil, false
	}
	out := make(map[string]ast.Node, len(known))
	for it := m.MapRange(); it.Next(); {
		if null, ok := it.Value().(*ast.NullNode); ok && null.Token.Type == token.ImplicitNullType {
			null.Token = it.KeyValue().Start // what is not there is told of at the colon
		}
		key, ok := it.Key().(*ast.StringNode)
		switch {
		case !ok:
			r.at(it.Key(), "%s is not a key of %s; its keys are %s", quote(it.Key().GetToken().Value), what, strings.Join(known, ", "))
		case out[key.Value] != nil:
			line, _ := position(out[key.Value])
			r.at(key, "%s is set twice, before at line %d", quote(key.Value), line)
		case slices.Contains(known, key.Value):
			out[key.Value] = it.Value()
		case elsewhere[key.Value] != "":
			r.at(key, "%s", elsewhere[key.Value])
		case suggest(key.Value, known) != "":
			r.at(key, "unknown key %s in %s; did you mean %q?", quote(key.Value), what, suggest(key.Value, known))
		default:
			r.at(key, "unknown key %s in %s; its keys are %s", quote(key.Value), what, strings.Join(known, ", "))
		}
	}
	return out, true
}

func (r *reader) list(n ast.Node, what string, most int) ([]ast.Node, bool) {
	list, ok := n.(*ast.SequenceNode)
	switch {
	case !ok && n.Type() == ast.NullType:
		r.at(n, "%s has no value: write [] for an empty list, or leave it out", what)
		return nil, false
	case !ok:
		r.at(n, "%s must be a list, not %s", what, kind(n))
		return nil, false
	case len(list.Values) > most:
		r.at(list.Values[most], "%s has %d entries, and at most %d are allowed", what, len(list.Values), most)
		return nil, false
	}
	return list.Values, true
}

// texts reads a list of texts, each checked beside those before it. It is not nil unless the list
// could not be read.
func (r *reader) texts(n ast.Node, what string, most int, check func(s string, before []string) error) []string {
	list, ok := r.list(n, what, most)
	if !ok {
		return nil
	}
	out := make([]string, 0, len(list))
	for _, entry := range list {
		s, ok := r.text(entry, "an entry of "+what)
		if !ok {
			continue
		}
		switch err := check(s, out); {
		case slices.Contains(out, s):
			r.at(entry, "%s is there twice", quote(s))
		case err != nil:
			r.at(entry, "%v", err)
		}
		out = append(out, s)
	}
	return out
}

func (r *reader) text(n ast.Node, what string) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case *ast.NullNode:
		r.at(n, "%s has no value", what)
	case *ast.MappingNode, *ast.MappingValueNode, *ast.SequenceNode:
		r.at(n, "%s must be text, not %s", what, kind(n))
	default:
		r.at(n, "%s must be text, not %s: put quotes around it", what, kind(n))
	}
	return "", false
}

var integerPattern = regexp.MustCompile(`^-?(?:0|[1-9][0-9]{0,8})$`)

// integer reads a whole number as JSON writes it: no other base, no separators.
func (r *reader) integer(n ast.Node, what string) (int64, bool) {
	if v, ok := n.(*ast.IntegerNode); ok && integerPattern.MatchString(v.Token.Value) {
		if i, err := strconv.ParseInt(v.Token.Value, 10, 64); err == nil {
			return i, true
		}
	}
	r.at(n, "%s must be a whole number, not %s", what, kind(n))
	return 0, false
}

// kind says what a node is, for people.
func kind(n ast.Node) string {
	switch v := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "nothing"
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return v.GetToken().Value
	case *ast.LiteralNode:
		return "a text"
	case *ast.StringNode:
		return "the text " + quote(v.Value)
	default:
		return "this"
	}
}
