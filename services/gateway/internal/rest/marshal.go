package rest

import (
	"bytes"
	"encoding/json"

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
	var out bytes.Buffer
	if err := json.Compact(&out, raw); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// shown is a message that has, for protojson, the fields that the API shows: those that are set, and
// of the others those that are always there.
type shown struct{ protoreflect.Message }

// ProtoReflect implements proto.Message.
func (s shown) ProtoReflect() protoreflect.Message { return s }

// Range implements protoreflect.Message.
func (s shown) Range(each func(protoreflect.FieldDescriptor, protoreflect.Value) bool) {
	fields := s.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !s.Has(f) && (!routes.Always(f) || f.Kind() == protoreflect.EnumKind && !f.IsList()) {
			continue // a word for "not set" is never sent
		}
		v := s.Get(f)
		switch {
		case f.Message() == nil || f.IsMap():
		case f.IsList():
			v = protoreflect.ValueOfList(shownList{v.List()})
		default:
			v = protoreflect.ValueOfMessage(shown{v.Message()})
		}
		if !each(f, v) {
			return
		}
	}
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
