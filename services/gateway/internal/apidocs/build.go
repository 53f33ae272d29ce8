package apidocs

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"slices"
	"strings"

	"devpilot.io/bitbucket/services/gateway/internal/rest"
)

//go:embed templates
var files embed.FS

// build makes all pages.
func build(document []byte, address string) (*site, error) {
	var doc document31
	if err := json.Unmarshal(document, &doc); err != nil {
		return nil, fmt.Errorf("apidocs: %w", err)
	}
	style, err := files.ReadFile("templates/style.css")
	if err != nil {
		return nil, fmt.Errorf("apidocs: %w", err)
	}
	t, err := template.New("").Funcs(template.FuncMap{
		"style": func() template.CSS { return template.CSS(style) }, // our own file
		"words": words,
		"root":  func() string { return Path },
	}).ParseFS(files, "templates/*.html")
	if err != nil {
		return nil, fmt.Errorf("apidocs: %w", err)
	}
	out := &site{policy: policy(style), pages: map[string]page{}}
	add := func(name, template string, data any) error {
		var b bytes.Buffer
		if err := t.ExecuteTemplate(&b, template, data); err != nil {
			return fmt.Errorf("apidocs: page %q: %w", name, err)
		}
		out.pages[name] = page{etag: rest.ContentETag(b.Bytes()), body: b.Bytes()}
		return nil
	}
	table := doc.reasons()
	groups, err := doc.groups(table)
	if err != nil {
		return nil, err
	}
	if err := add("", "index.html", index{Title: doc.Info.Title, Text: paragraphs(doc.Info.Description), Groups: groups, Address: address, Credentials: doc.credentials()}); err != nil {
		return nil, err
	}
	if err := add(reasonsPage, "reasons.html", reasonsOf{Title: "Reasons", Common: table.of(doc.Components.Responses["Failure"].Reasons), All: table.all}); err != nil {
		return nil, err
	}
	for _, g := range groups {
		for _, op := range g.Operations {
			if err := add(op.ID, "operation.html", op); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// index is the first page.
type index struct {
	Title, Address string
	Text           []paragraph
	Groups         []group
	Credentials    []credential
}

// reasonsOf is the page of all reasons.
type reasonsOf struct {
	Title       string
	Common, All []reason
}

// group is the operations that are about one thing.
type group struct {
	Name, Text string
	Operations []operation
}

// operation is the page of one.
type operation struct {
	Title, ID, Group   string
	Method, Path       string
	Deprecated, Sunset string
	Text               []paragraph
	Role, Scope        string
	Credentials        string
	Parameters         []field
	Body               []shape
	Answers            []answer
	Reasons            []reason
	Examples           examples
}

// answer is what is answered with one status.
type answer struct {
	Status, Text string
	Shapes       []shape
}

// shape is the fields of a message, of a media type or of one of several that are possible.
type shape struct {
	Name   string
	Fields []field
}

// paragraph is a paragraph, or the items of a list.
type paragraph struct {
	Text  string
	Items []string
}

// paragraphs splits a text of the document, whose lists have a star before each item.
func paragraphs(text string) []paragraph {
	var out []paragraph
	for part := range strings.SplitSeq(text, "\n\n") {
		if part == "" || strings.HasPrefix(part, "Reasons beside those of every request:") {
			continue // they have a table of their own
		}
		if list, ok := strings.CutPrefix(part, "* "); ok {
			out = append(out, paragraph{Items: strings.Split(list, "\n* ")})
			continue
		}
		out = append(out, paragraph{Text: part})
	}
	return out
}

// words is a text of the document as HTML: what stands in backticks is code.
func words(text string) template.HTML {
	var b strings.Builder
	for i, part := range strings.Split(text, "`") {
		if i%2 == 1 {
			b.WriteString("<code>" + template.HTMLEscapeString(part) + "</code>")
			continue
		}
		b.WriteString(template.HTMLEscapeString(part))
	}
	return template.HTML(b.String()) //nolint:gosec // escaped above
}

var methods = []string{"get", "post", "patch", "put", "delete"}

// groups are the operations by tag, in the document's order of tags; in a tag by path and method.
func (d *document31) groups(table reasonTable) ([]group, error) {
	byTag := map[string][]operation{}
	for path, item := range d.Paths {
		for method, op := range item {
			made, err := d.operation(method, path, op, table)
			if err != nil {
				return nil, err
			}
			byTag[made.Group] = append(byTag[made.Group], made)
		}
	}
	var out []group
	for _, tag := range d.Tags {
		list := byTag[tag.Name]
		slices.SortFunc(list, func(a, b operation) int {
			return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(slices.Index(methods, strings.ToLower(a.Method)), slices.Index(methods, strings.ToLower(b.Method))))
		})
		out = append(out, group{Name: tag.Name, Text: tag.Description, Operations: list})
	}
	return out, nil
}

func (d *document31) operation(method, path string, op op31, table reasonTable) (operation, error) {
	out := operation{
		Title: op.Summary, ID: op.OperationID, Group: op.Tags[0], Method: strings.ToUpper(method), Path: path,
		Text: paragraphs(op.Description), Role: op.Role, Scope: op.Scope, Credentials: d.credentialsOf(op), Reasons: table.of(op.Reasons),
	}
	if op.Deprecated {
		out.Deprecated, out.Sunset = "deprecated", op.Sunset
	}
	for _, p := range op.Parameters {
		p = d.parameter(p)
		f := d.field(p.Name, p.Schema, p.Required)
		f.In, f.Text = p.In, cmp.Or(p.Description, f.Text)
		out.Parameters = append(out.Parameters, f)
	}
	if op.RequestBody != nil {
		for _, media := range sorted(op.RequestBody.Content) {
			out.Body = append(out.Body, d.shapes(media, op.RequestBody.Content[media].Schema)...)
		}
	}
	for _, status := range sorted(op.Responses) {
		r := op.Responses[status]
		if r.Ref != "" {
			continue // the problem, which the page of reasons tells of
		}
		a := answer{Status: status, Text: r.Description}
		for _, media := range sorted(r.Content) {
			a.Shapes = append(a.Shapes, d.shapes(media, r.Content[media].Schema)...)
		}
		out.Answers = append(out.Answers, a)
	}
	var err error
	out.Examples, err = exampleOf(method, path, op)
	return out, err
}
