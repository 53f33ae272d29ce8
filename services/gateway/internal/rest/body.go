package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/gateway/internal/edge"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

// maxBody bounds the body of an API request. What people save is a few hundred bytes.
const maxBody = 1 << 20

// readBody takes the whole body and holds it against the request message, so that what is wrong with
// it is said in the API's own words: which field, and what belongs there. protojson, which decodes
// it afterwards, knows neither. object is the body decoded, without what is wrong in it; nil when
// there is none.
func readBody(w http.ResponseWriter, r *http.Request, route routes.Route, faults *apierr.Faults) (raw []byte, object map[string]any, err error) {
	raw, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, nil, apierr.Newf(apierr.ReasonPayloadTooLarge, "The body is larger than %d KiB, which is the most that is read.", maxBody>>10)
	case err != nil:
		return nil, nil, apierr.New(apierr.ReasonCanceled, "The body ended before all of it had arrived.", apierr.WithCause(err))
	}
	empty := len(bytes.TrimSpace(raw)) == 0
	switch {
	case route.Body == "" && empty:
		return nil, nil, nil
	case empty:
		raw = []byte("{}")
	case route.Body == "":
		return nil, nil, apierr.Newf(apierr.ReasonInvalidArgument, "%s %s takes no body.", route.Method, route.Public()).With(apierr.WithField(wholeBody, "must be empty"))
	}
	if !empty {
		if err := edge.JSONBody(r, raw); err != nil {
			return nil, nil, err
		}
	}
	v, err := parseBody(raw, faults)
	if err != nil {
		return nil, nil, err
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, nil, apierr.New(apierr.ReasonInvalidArgument, "The body must be a JSON object.", apierr.WithField(wholeBody, "must be a JSON object"))
	}
	checkMessage("", object, bodyMessage(route), faults)
	if route.Method != http.MethodPatch { // a change may leave everything out
		checkRequired("", object, bodyMessage(route), route.PathFields(), faults)
	}
	return raw, object, nil
}

// bodyMessage is the message that the body of a route is.
func bodyMessage(route routes.Route) protoreflect.MessageDescriptor {
	if route.Body == "*" {
		return route.Input
	}
	return route.Input.Fields().ByName(protoreflect.Name(route.Body)).Message()
}

// checkMessage holds an object against a message; false when it is no object. What is wrong in it is
// taken out, so that the rest can be checked further.
func checkMessage(path string, v any, want protoreflect.MessageDescriptor, faults *apierr.Faults) bool {
	if check, ok := wellKnown[want.FullName()]; ok {
		return check(path, v, faults)
	}
	object, ok := v.(map[string]any)
	if !ok {
		return refuse(path, "must be an object", faults)
	}
	seen := map[protoreflect.Name]string{}
	for _, name := range slices.Sorted(keysOf(object)) {
		at := join(path, name)
		f := fieldNamed(want, name)
		switch {
		case f == nil:
			faults.Add(at, "unknown field; the fields here are: "+strings.Join(fieldNames(want), ", "))
			delete(object, name)
			continue
		case seen[f.Name()] != "":
			faults.Add(at, "is there twice: as "+seen[f.Name()]+" too")
			delete(object, name)
			continue
		}
		seen[f.Name()] = name
		if v := object[name]; v != nil && !checkField(at, v, f, faults) { // nil: absent
			delete(object, name)
		}
	}
	return true
}

func refuse(path, msg string, faults *apierr.Faults) bool {
	faults.Add(path, msg)
	return false
}

// checkRequired notes what the proto marks as required and the object lacks. What the path names is
// not looked for. Fields below are checked where they are there: the elements of a list are always
// whole.
func checkRequired(path string, object map[string]any, want protoreflect.MessageDescriptor, inPath []string, faults *apierr.Faults) {
	for i := range want.Fields().Len() {
		f := want.Fields().Get(i)
		if !isRequired(f) || slices.Contains(inPath, string(f.Name())) {
			continue
		}
		v := object[f.JSONName()]
		if v == nil {
			v = object[string(f.Name())]
		}
		if v == nil || v == "" {
			faults.Add(join(path, f.JSONName()), requiredSays(f))
		}
		if inner, ok := v.(map[string]any); ok && f.Message() != nil {
			checkRequired(join(path, f.JSONName()), inner, f.Message(), nil, faults)
		}
	}
}

// requiredSays is what is said of a required field that is missing. That a list is to be empty has to be
// said: what it holds is often what is allowed, and none is then no limit.
func requiredSays(f protoreflect.FieldDescriptor) string {
	if f.IsList() {
		return "is required; give [] where you mean an empty list"
	}
	return "is required"
}

// isRequired tells what the proto says; a flag cannot be told from one that is not set.
func isRequired(f protoreflect.FieldDescriptor) bool {
	return f.Kind() != protoreflect.BoolKind && routes.Is(f, annotations.FieldBehavior_REQUIRED)
}

// checkField holds a value against a field; false when it cannot be one.
func checkField(path string, v any, f protoreflect.FieldDescriptor, faults *apierr.Faults) bool {
	switch {
	case f.IsMap():
		object, ok := v.(map[string]any)
		if !ok {
			return refuse(path, "must be an object", faults)
		}
		for _, key := range slices.Sorted(keysOf(object)) {
			if !checkSingle(join(path, key), object[key], f.MapValue(), faults) {
				delete(object, key)
			}
		}
	case f.IsList():
		list, ok := v.([]any)
		if !ok {
			return refuse(path, "must be a list", faults)
		}
		for i, e := range list {
			if !checkSingle(element(path, i), e, f, faults) {
				return false
			}
			if object, ok := e.(map[string]any); ok && f.Message() != nil {
				checkRequired(element(path, i), object, f.Message(), nil, faults)
			}
		}
	default:
		return checkSingle(path, v, f, faults)
	}
	return true
}

func checkSingle(path string, v any, f protoreflect.FieldDescriptor, faults *apierr.Faults) bool {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return checkMessage(path, v, f.Message(), faults)
	case protoreflect.BoolKind:
		if _, ok := v.(bool); !ok {
			return refuse(path, "must be true or false", faults)
		}
	case protoreflect.StringKind, protoreflect.BytesKind:
		if _, ok := v.(string); !ok {
			return refuse(path, "must be text in double quotes", faults)
		}
		if f.Name() == etagName && v == "" {
			return refuse(path, emptyETag, faults)
		}
	case protoreflect.EnumKind:
		return checkEnum(path, v, f.Enum(), faults)
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		if _, ok := v.(json.Number); !ok {
			return refuse(path, "must be a number", faults)
		}
	default:
		return checkWhole(path, v, f.Kind(), faults)
	}
	return true
}

// checkWhole takes what protojson takes: a number or its digits as text.
func checkWhole(path string, v any, kind protoreflect.Kind, faults *apierr.Faults) bool {
	m, says := wholeOf(kind)
	return readable(v, m) || refuse(path, says, faults)
}

// wholeOf is the message of a whole number of that kind, and what to say when a value is none.
func wholeOf(kind protoreflect.Kind) (m proto.Message, says string) {
	switch kind {
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return &wrapperspb.Int64Value{}, "must be a whole number"
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return &wrapperspb.UInt64Value{}, "must be a whole number, 0 or more"
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return &wrapperspb.UInt32Value{}, "must be a whole number from 0 to 4294967295"
	default:
		return &wrapperspb.Int32Value{}, "must be a whole number up to 2147483647"
	}
}

func checkEnum(path string, v any, enum protoreflect.EnumDescriptor, faults *apierr.Faults) bool {
	word, ok := v.(string)
	if ok {
		value := enum.Values().ByName(protoreflect.Name(word))
		ok = value != nil && value.Number() != 0 // the word for "not set" says nothing: leave the field out
	}
	return ok || refuse(path, "must be one of "+strings.Join(enumWords(enum), ", "), faults)
}

// enumWords lists the words that can be sent: all but the one for "not set".
func enumWords(enum protoreflect.EnumDescriptor) []string {
	var words []string
	for i := range enum.Values().Len() {
		if v := enum.Values().Get(i); v.Number() != 0 {
			words = append(words, string(v.Name()))
		}
	}
	return words
}

// wellKnown checks the messages that have a JSON form of their own.
var wellKnown = map[protoreflect.FullName]func(path string, v any, faults *apierr.Faults) bool{
	"google.protobuf.Timestamp": func(path string, v any, faults *apierr.Faults) bool {
		return isText(v) && readable(v, &timestamppb.Timestamp{}) || refuse(path, "must be a time like 2026-11-22T14:15:16Z", faults)
	},
	"google.protobuf.Duration": func(path string, v any, faults *apierr.Faults) bool {
		return isText(v) && readable(v, &durationpb.Duration{}) || refuse(path, `must be seconds like "90s"`, faults)
	},
	"google.protobuf.FieldMask": func(path string, v any, faults *apierr.Faults) bool {
		return isText(v) || refuse(path, `must be field names like "branch,autoDeploy"`, faults)
	},
}

func isText(v any) bool {
	_, ok := v.(string)
	return ok
}

// readable asks protojson itself, which decodes the body afterwards.
func readable(v any, m proto.Message) bool {
	raw, err := json.Marshal(v)
	return err == nil && protojson.Unmarshal(raw, m) == nil
}

func fieldNamed(m protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if f := m.Fields().ByJSONName(name); f != nil {
		return f
	}
	return m.Fields().ByTextName(name)
}

func fieldNames(m protoreflect.MessageDescriptor) []string {
	var names []string
	for i := range m.Fields().Len() {
		names = append(names, m.Fields().Get(i).JSONName())
	}
	slices.Sort(names)
	return names
}

func keysOf(m map[string]any) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
