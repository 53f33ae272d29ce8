package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

const refPrefix = "#/components/schemas/"

// shortName is the schema's name in the document: without the package, nested names joined.
func shortName(full string) string {
	parts := strings.Split(full, ".")
	for i, p := range parts {
		if p[0] >= 'A' && p[0] <= 'Z' {
			return result(strings.Join(parts[i:], ""))
		}
	}
	return full
}

// result names what an operation answers with. Generators of clients call the whole answer, with its
// status and header, by the operation and the word Response: ListAppsResponse is theirs. So are Client
// and Server.
func result(name string) string {
	if name == "Client" || name == "Server" {
		return "Deployment" + name
	}
	if of, ok := strings.CutSuffix(name, "Response"); ok {
		return of + "Result"
	}
	return name
}

// shorten renames all schemas and what refers to them.
func shorten(doc object) error {
	schemas := at(doc, "components", "schemas")
	short := object{}
	for full, schema := range schemas {
		name := shortName(full)
		if _, taken := short[name]; taken {
			return fmt.Errorf("two schemas would be called %s", name)
		}
		short[name] = schema
	}
	at(doc, "components")["schemas"] = short
	walk(doc, func(o object) {
		if ref, ok := o["$ref"].(string); ok {
			o["$ref"] = refPrefix + shortName(strings.TrimPrefix(ref, refPrefix))
		}
	})
	return nil
}

// walk visits every object.
func walk(v any, visit func(object)) {
	switch v := v.(type) {
	case object:
		visit(v)
		for _, name := range slices.Sorted(maps.Keys(v)) {
			walk(v[name], visit)
		}
	case []any:
		for _, e := range v {
			walk(e, visit)
		}
	}
}

// outputs says which fields an answer always has.
func outputs(schemas object) error {
	for full, s := range schemas {
		schema := s.(object)
		if schema["type"] != "object" {
			continue
		}
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(full))
		if err != nil {
			return fmt.Errorf("schema %s: %w", full, err)
		}
		m, ok := d.(protoreflect.MessageDescriptor)
		if !ok {
			return fmt.Errorf("schema %s is not of a message", full)
		}
		if required := always(m); len(required) > 0 {
			schema["required"] = required
		} else {
			delete(schema, "required")
		}
	}
	return nil
}

func always(m protoreflect.MessageDescriptor) []any {
	var names []string
	for i := range m.Fields().Len() {
		if f := m.Fields().Get(i); routes.Always(f) {
			names = append(names, f.JSONName())
		}
	}
	slices.Sort(names)
	var out []any
	for _, n := range names {
		out = append(out, n)
	}
	return out
}

// inputs gives what is sent schemas of its own: without what only answers have, and requiring what
// the proto requires. It must run before outputs.
func inputs(doc object) {
	schemas := at(doc, "components", "schemas")
	made := map[string]bool{}
	for _, item := range at(doc, "paths") {
		for method, o := range item.(object) {
			body := at(o.(object), "requestBody", "content", "application/json", "schema")
			if len(body) == 0 {
				continue
			}
			if ref, ok := body["$ref"].(string); ok {
				// The body is a resource: a change of it may leave everything out.
				name := strings.TrimPrefix(ref, refPrefix)
				patch := inputOf(schemas, name, made)
				if method == "patch" {
					delete(patch, "required")
				}
				schemas[name+"Patch"] = patch
				body["$ref"] = refPrefix + name + "Patch"
				continue
			}
			body["additionalProperties"] = false
			redirect(schemas, body, made)
		}
	}
}

// inputOf is a copy of a schema as it is sent.
func inputOf(schemas object, name string, made map[string]bool) object {
	in := clone(schemas[name].(object))
	for field, p := range at(in, "properties") {
		if p.(object)["readOnly"] == true {
			delete(at(in, "properties"), field)
		}
	}
	in["additionalProperties"] = false
	redirect(schemas, at(in, "properties"), made)
	return in
}

// redirect makes everything below refer to input schemas; words are the same both ways.
func redirect(schemas object, v object, made map[string]bool) {
	walk(v, func(o object) {
		ref, ok := o["$ref"].(string)
		if !ok {
			return
		}
		name := strings.TrimPrefix(ref, refPrefix)
		schema, ok := schemas[name].(object)
		if !ok || schema["type"] != "object" || strings.HasSuffix(name, "Input") {
			return
		}
		if !made[name] {
			made[name] = true
			schemas[name+"Input"] = inputOf(schemas, name, made)
		}
		o["$ref"] = refPrefix + name + "Input"
	})
}

var snakeWord = regexp.MustCompile(`\b[a-z]+(?:_[a-z]+)+\b`)

// spell writes the names of fields in the protos' comments as the API spells them.
func spell(doc object) {
	names := map[string]string{}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(string(f.Package()), "devpilot.") {
			fieldNames(f.Messages(), names)
		}
		return true
	})
	walk(doc, func(o object) {
		for _, key := range []string{"summary", "description"} {
			if text, ok := o[key].(string); ok {
				o[key] = snakeWord.ReplaceAllStringFunc(text, func(w string) string {
					if camel, ok := names[w]; ok {
						return camel
					}
					return w
				})
			}
		}
	})
}

func fieldNames(messages protoreflect.MessageDescriptors, names map[string]string) {
	for i := range messages.Len() {
		m := messages.Get(i)
		for j := range m.Fields().Len() {
			names[string(m.Fields().Get(j).Name())] = m.Fields().Get(j).JSONName()
		}
		fieldNames(m.Messages(), names)
	}
}

func clone(o object) object {
	raw, err := json.Marshal(o)
	if err != nil {
		panic(err) // it came from JSON
	}
	var c object
	if err := json.Unmarshal(raw, &c); err != nil {
		panic(err)
	}
	return c
}

// schemaOf makes the schema of a message that no RPC of the document answers with: what a stream
// carries.
func schemaOf(m protoreflect.MessageDescriptor) object {
	properties := object{}
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		var s object
		switch {
		case f.Kind() == protoreflect.EnumKind:
			s = object{"$ref": refPrefix + shortName(string(f.Enum().FullName()))}
		case f.Kind() == protoreflect.MessageKind && f.Message().FullName() == "google.protobuf.Timestamp":
			s = object{"type": "string", "format": "date-time"}
		case f.Kind() == protoreflect.Int32Kind:
			s = object{"type": "integer", "format": "int32"}
		case f.Kind() == protoreflect.BoolKind:
			s = object{"type": "boolean"}
		case f.Kind() == protoreflect.StringKind:
			s = object{"type": "string"}
		default:
			panic(fmt.Sprintf("openapi: no schema for %s", f.FullName())) // seen when the document is made
		}
		properties[f.JSONName()] = s
	}
	return object{"type": "object", "properties": properties, "required": always(m)}
}

// enumOf makes the schema of an enum.
func enumOf(e protoreflect.EnumDescriptor) object {
	var words []any
	for i := range e.Values().Len() {
		words = append(words, string(e.Values().Get(i).Name()))
	}
	return object{"type": "string", "enum": words}
}

// unset takes the words for "not set" out of the enums: they are neither sent nor taken.
func unset(doc object) {
	walk(doc, func(o object) {
		if words := list(o, "enum"); words != nil {
			o["enum"] = slices.DeleteFunc(words, func(w any) bool {
				word, ok := w.(string)
				return ok && strings.HasSuffix(word, "_UNSPECIFIED")
			})
		}
	})
}
