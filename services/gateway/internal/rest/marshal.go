package rest

import (
	"bytes"
	"encoding/json"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// marshalOptions are the API's (design.md section 6): lowerCamelCase, enum words, default values
// shown, lists always present, absent messages absent.
var marshalOptions = protojson.MarshalOptions{EmitDefaultValues: true}

// Marshal makes the API's JSON of a message. protojson inserts spaces at random, so that nobody
// relies on its bytes; entity tags do, hence the compaction.
func Marshal(m proto.Message) ([]byte, error) {
	raw, err := marshalOptions.Marshal(m)
	if err != nil {
		return nil, err
	}
	return compact(raw)
}

func compact(raw []byte) ([]byte, error) {
	var out bytes.Buffer
	if err := json.Compact(&out, raw); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// marshaler is grpc-gateway's, compacting.
type marshaler struct{ runtime.JSONPb }

func newMarshaler() *marshaler {
	return &marshaler{runtime.JSONPb{MarshalOptions: marshalOptions}}
}

// Marshal implements runtime.Marshaler.
func (m *marshaler) Marshal(v any) ([]byte, error) {
	raw, err := m.JSONPb.Marshal(v)
	if err != nil {
		return nil, err
	}
	return compact(raw)
}
