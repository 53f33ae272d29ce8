package rest

import (
	"sync"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

// Marshal makes the API's JSON of a message (DESIGN.md#the-api): lowerCamelCase, enum words, lists
// always present, and what is absent absent. protojson inserts spaces at random, so that nobody
// relies on its bytes; entity tags do, hence the compaction.
func Marshal(m proto.Message) ([]byte, error) {
	raw, err := protojson.MarshalOptions{AllowPartial: true}.Marshal(shown{m.ProtoReflect()})
	if err != nil {
		return nil, err
	}
	return compact(raw), nil
}

// compact takes the spaces between its parts out of JSON that protojson made, in place.
func compact(raw []byte) []byte {
	out, quoted := raw[:0], false
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			out = append(out, c)
			i++
			c = raw[i]
		case !quoted && c == ' ':
			continue
		}
		out = append(out, c)
	}
	return out
}

// shown is a message that has, for protojson, the fields that the API shows: those that are set, and
// of the others those that are always there.
type shown struct{ protoreflect.Message }

// ProtoReflect implements proto.Message.
func (s shown) ProtoReflect() protoreflect.Message { return s }

// Range implements protoreflect.Message.
func (s shown) Range(each func(protoreflect.FieldDescriptor, protoreflect.Value) bool) {
	for _, f := range fieldsOf(s.Descriptor()) {
		if !f.always && !s.Has(f.FieldDescriptor) {
			continue
		}
		v := s.Get(f.FieldDescriptor)
		switch {
		case f.Message() == nil || f.IsMap():
		case f.IsList():
			v = protoreflect.ValueOfList(shownList{v.List()})
		default:
			v = protoreflect.ValueOfMessage(shown{v.Message()})
		}
		if !each(f.FieldDescriptor, v) {
			return
		}
	}
}

// shownField is a field, and whether it is shown where it is not set.
type shownField struct {
	protoreflect.FieldDescriptor
	always bool
}

var shownFields sync.Map // protoreflect.MessageDescriptor → []shownField: what a proto says does not change

func fieldsOf(d protoreflect.MessageDescriptor) []shownField {
	if have, ok := shownFields.Load(d); ok {
		return have.([]shownField) // nothing else is stored
	}
	fields := make([]shownField, d.Fields().Len())
	for i := range fields {
		f := d.Fields().Get(i)
		// A word for "not set" is never sent, nor is a message that a service left out.
		fields[i] = shownField{f, routes.Always(f) && !f.HasPresence() && (f.Kind() != protoreflect.EnumKind || f.IsList())}
	}
	shownFields.Store(d, fields)
	return fields
}

// shownList is a list of messages.
type shownList struct{ protoreflect.List }

// Get implements protoreflect.List.
func (l shownList) Get(i int) protoreflect.Value {
	return protoreflect.ValueOfMessage(shown{l.List.Get(i).Message()})
}

// marshaler is grpc-gateway's, writing as Marshal does.
type marshaler struct{ runtime.JSONPb }

// Marshal implements runtime.Marshaler.
func (m *marshaler) Marshal(v any) ([]byte, error) {
	if msg, ok := v.(proto.Message); ok {
		return Marshal(msg)
	}
	return m.JSONPb.Marshal(v)
}
