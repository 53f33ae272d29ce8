package rest

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"devpilot.io/bitbucket/services/gateway/internal/activity"
)

// maxChange bounds a value that the activity list keeps, in characters.
const maxChange = 500

// changesOf says which of the fields that a request names have another value after it. Secrets are in
// neither: the API never gives them out.
func changesOf(in, before, after proto.Message) []activity.Change {
	if after == nil {
		return nil
	}
	m := in.ProtoReflect()
	f := m.Descriptor().Fields().ByName(maskField)
	if f == nil {
		return nil
	}
	mask, ok := m.Get(f).Message().Interface().(*fieldmaskpb.FieldMask)
	if !ok {
		return nil
	}
	var changes []activity.Change
	for _, path := range slices.Sorted(slices.Values(mask.GetPaths())) {
		name, old := valueAt(before.ProtoReflect(), path)
		_, new := valueAt(after.ProtoReflect(), path)
		if old != new {
			changes = append(changes, activity.Change{Field: name, Before: old, After: new})
		}
	}
	return changes
}

// valueAt is the JSON of the field at a path, and the path in the names of the API; empty for a field
// that is not set.
func valueAt(m protoreflect.Message, path string) (name, value string) {
	var names []string
	parts := strings.Split(path, ".")
	for i, part := range parts {
		f := m.Descriptor().Fields().ByName(protoreflect.Name(part))
		if f == nil {
			return strings.Join(names, "."), ""
		}
		names = append(names, f.JSONName())
		if !m.Has(f) && (i < len(parts)-1 || f.HasPresence() || f.IsList() || f.IsMap()) {
			return strings.Join(append(names, parts[i+1:]...), "."), ""
		}
		if i < len(parts)-1 && f.Message() != nil && !f.IsList() && !f.IsMap() {
			m = m.Get(f).Message()
			continue
		}
		return strings.Join(names, "."), jsonOf(m, f)
	}
	return strings.Join(names, "."), ""
}

// jsonOf is one field of a message as the API writes it.
func jsonOf(m protoreflect.Message, f protoreflect.FieldDescriptor) string {
	one := m.New()
	one.Set(f, m.Get(f))
	raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(one.Interface())
	if err != nil {
		return "" // of our own services' answer
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(raw, &all); err != nil {
		return ""
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, all[f.JSONName()]); err != nil {
		return ""
	}
	return compact.String()
}

func cutTo(most int, s string) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}
