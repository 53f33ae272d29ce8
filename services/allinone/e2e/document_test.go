package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// document is the description of the API that the product serves, strict about fields: one that it
// does not name is a mistake of the document.
type document struct {
	doc      object
	paths    []*regexp.Regexp
	template map[*regexp.Regexp]string
	mu       sync.Mutex // of the compiler
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema
}

const documentFile = "../../gateway/internal/openapi/openapi.json"

var described = sync.OnceValues(func() (*document, error) {
	raw, err := os.ReadFile(documentFile)
	if err != nil {
		return nil, err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	d := &document{doc: v.(object), template: map[*regexp.Regexp]string{}, compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	onlyNamed(d.doc["components"])
	d.compiler.DefaultDraft(jsonschema.Draft2020)
	d.compiler.AssertFormat()
	// Longer ones first: a path without variables before one with.
	paths := slices.SortedFunc(maps.Keys(d.doc["paths"].(object)), func(a, b string) int {
		return strings.Count(a, "{") - strings.Count(b, "{")
	})
	for _, path := range paths {
		re := regexp.MustCompile("^" + regexp.MustCompile(`\\\{[^}]*\\\}`).ReplaceAllString(regexp.QuoteMeta(path), "[^/:]+") + "$")
		d.paths, d.template[re] = append(d.paths, re), path
	}
	return d, d.compiler.AddResource("openapi.json", d.doc)
})

func onlyNamed(v any) {
	switch v := v.(type) {
	case object:
		if _, ok := v["properties"]; ok && v["additionalProperties"] == nil {
			v["additionalProperties"] = false
		}
		for _, e := range v {
			onlyNamed(e)
		}
	case []any:
		for _, e := range v {
			onlyNamed(e)
		}
	}
}

// answer holds a good answer, as JSON, against the document.
func (d *document) answer(method, address string, raw []byte) error {
	path, _, _ := strings.Cut(address, "?")
	i := slices.IndexFunc(d.paths, func(re *regexp.Regexp) bool { return re.MatchString(path) })
	if i < 0 {
		return nil // no part of the API
	}
	place := []string{"paths", d.template[d.paths[i]], strings.ToLower(method), "responses", "200", "content", "application/json", "schema"}
	if dig(d.doc, place...) == nil {
		return fmt.Errorf("the document knows no JSON that %s %s answers", method, place[1])
	}
	location := "openapi.json#"
	for _, p := range place {
		location += "/" + strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(p)
	}
	schema, err := d.schema(location)
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	return schema.Validate(v)
}

func (d *document) schema(location string) (*jsonschema.Schema, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, ok := d.schemas[location]; ok {
		return s, nil
	}
	s, err := d.compiler.Compile(location)
	d.schemas[location] = s
	return s, err
}

// asDescribed holds each answer that a story gets against the document: what it says is always there
// is, whatever the product is in the middle of. Programs that were built earlier know an earlier document.
func asDescribed(t testing.TB, method, address string, raw []byte) {
	if _, measures := t.(*testing.B); measures || *clusterFrom != "" {
		return
	}
	d, err := described()
	if err == nil {
		err = d.answer(method, address, raw)
	}
	if err != nil {
		t.Errorf("%s %s answered what the document does not say: %v\n%s", method, address, err, raw)
	}
}
