package apidocs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// document31 is what is read of the OpenAPI document.
type document31 struct {
	Info struct {
		Title       string `json:"title"`
		Description string `json:"description"`
	} `json:"info"`
	Tags []struct {
		Name        string `json:"name"`
		Description string `json:"description"`
	} `json:"tags"`
	Paths      map[string]map[string]op31 `json:"paths"`
	Security   []map[string]any           `json:"security"`
	Components struct {
		Schemas         map[string]*schema      `json:"schemas"`
		Parameters      map[string]parameter31  `json:"parameters"`
		Responses       map[string]response31   `json:"responses"`
		SecuritySchemes map[string]credential31 `json:"securitySchemes"`
	} `json:"components"`
}

type credential31 struct {
	Description string `json:"description"`
}

type op31 struct {
	OperationID string                `json:"operationId"`
	Summary     string                `json:"summary"`
	Description string                `json:"description"`
	Tags        []string              `json:"tags"`
	Deprecated  bool                  `json:"deprecated"`
	Sunset      string                `json:"x-sunset"`
	Role        string                `json:"x-role"`
	Scope       string                `json:"x-scope"`
	Reasons     []string              `json:"x-reasons"`
	Security    *[]map[string]any     `json:"security"`
	Parameters  []parameter31         `json:"parameters"`
	RequestBody *response31           `json:"requestBody"`
	Responses   map[string]response31 `json:"responses"`
}

type parameter31 struct {
	Ref         string          `json:"$ref"`
	Name        string          `json:"name"`
	In          string          `json:"in"`
	Description string          `json:"description"`
	Required    bool            `json:"required"`
	Schema      *schema         `json:"schema"`
	Example     json.RawMessage `json:"example"`
}

type response31 struct {
	Ref         string             `json:"$ref"`
	Description string             `json:"description"`
	Reasons     []string           `json:"x-reasons"`
	Content     map[string]media31 `json:"content"`
}

type media31 struct {
	Schema  *schema         `json:"schema"`
	Example json.RawMessage `json:"example"`
}

// schema is a JSON Schema, as far as the document has any.
type schema struct {
	Ref           string             `json:"$ref"`
	AllOf         []*schema          `json:"allOf"`
	OneOf         []*schema          `json:"oneOf"`
	Type          string             `json:"type"`
	Format        string             `json:"format"`
	Description   string             `json:"description"`
	Properties    map[string]*schema `json:"properties"`
	Required      []string           `json:"required"`
	Items         *schema            `json:"items"`
	ContentSchema *schema            `json:"contentSchema"`
	// Others is what an object has beside its properties: false, or a schema.
	Others    json.RawMessage `json:"additionalProperties"`
	Enum      []string        `json:"enum"`
	Pattern   string          `json:"pattern"`
	ReadOnly  bool            `json:"readOnly"`
	Default   json.RawMessage `json:"default"`
	Minimum   *int            `json:"minimum"`
	Maximum   *int            `json:"maximum"`
	MinLength *int            `json:"minLength"`
	MaxLength *int            `json:"maxLength"`
	MinItems  *int            `json:"minItems"`
	MaxItems  *int            `json:"maxItems"`
	// Table is that of reasons.
	Table []reason `json:"x-reasons"`
}

// reason is a row of the table of reasons.
type reason struct {
	Reason string `json:"reason"`
	Status int    `json:"status"`
	Retry  string `json:"retry"`
	Title  string `json:"title"`
	Remedy string `json:"remedy"`
}

type reasonTable struct {
	all    []reason
	byName map[string]reason
}

func (d *document31) reasons() reasonTable {
	t := reasonTable{all: d.Components.Schemas["Reason"].Table, byName: map[string]reason{}}
	for _, r := range t.all {
		t.byName[r.Reason] = r
	}
	return t
}

func (t reasonTable) of(names []string) []reason {
	out := make([]reason, 0, len(names))
	for _, n := range names {
		out = append(out, t.byName[n])
	}
	return out
}

// credential is a way to say who calls.
type credential struct{ Name, Text string }

func (d *document31) credentials() []credential {
	var out []credential
	for _, name := range sorted(d.Components.SecuritySchemes) {
		out = append(out, credential{name, d.Components.SecuritySchemes[name].Description})
	}
	return out
}

// credentialsOf says in words what an operation takes of who calls.
func (d *document31) credentialsOf(op op31) string {
	list := d.Security
	if op.Security != nil {
		list = *op.Security
	}
	if len(list) == 0 {
		return "none: anybody may"
	}
	var names []string
	optional := false
	for _, one := range list {
		optional = optional || len(one) == 0
		names = append(names, sorted(one)...)
	}
	text := strings.Join(names, " or ")
	if optional {
		text += ", if there are any"
	}
	return text
}

func (d *document31) parameter(p parameter31) parameter31 {
	if p.Ref != "" {
		return d.Components.Parameters[last(p.Ref)]
	}
	return p
}

// resolve follows a reference: the name that it had, and the schema.
func (d *document31) resolve(s *schema) (name string, to *schema) {
	for s != nil {
		switch {
		case s.Ref != "":
			name = last(s.Ref)
			s = d.Components.Schemas[name]
		case len(s.AllOf) == 1: // a reference that says something of its own
			s = s.AllOf[0]
		default:
			return name, s
		}
	}
	return name, &schema{}
}

// others is the schema of what an object has beside its properties; nil where it has nothing.
func (s *schema) others() *schema {
	if len(s.Others) == 0 || !bytes.HasPrefix(s.Others, []byte("{")) {
		return nil
	}
	var of schema
	if err := json.Unmarshal(s.Others, &of); err != nil {
		panic(fmt.Sprintf("apidocs: additionalProperties of the document: %v", err)) // it was read once already
	}
	return &of
}

func last(ref string) string { return ref[strings.LastIndex(ref, "/")+1:] }

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
