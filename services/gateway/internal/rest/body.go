package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

// maxBody bounds the body of an API request. What people save is a few hundred bytes.
const maxBody = 1 << 20

// readBody takes the whole body and holds it against the request message, so that what is wrong with
// it is said in the API's own words: which field, and what belongs there. protojson, which decodes
// it afterwards, knows neither.
func readBody(w http.ResponseWriter, r *http.Request, route routes.Route) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, apierr.Newf(apierr.ReasonPayloadTooLarge, "The body is larger than %d KiB, which is the most that is read.", maxBody>>10)
	case err != nil:
		return nil, apierr.New(apierr.ReasonCanceled, "The body ended before all of it had arrived.", apierr.WithCause(err))
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil, nil
	}
	if route.Body == "" {
		return nil, apierr.Newf(apierr.ReasonInvalidArgument, "%s %s takes no body.", route.Method, route.Template)
	}
	return raw, checkBody(raw, bodyMessage(route))
}

// bodyMessage is the message that the body of a route is.
func bodyMessage(route routes.Route) protoreflect.MessageDescriptor {
	if route.Body == "*" {
		return route.Input
	}
	return route.Input.Fields().ByName(protoreflect.Name(route.Body)).Message()
}

func checkBody(raw []byte, want protoreflect.MessageDescriptor) error {
	var v any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return malformed(raw, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return apierr.New(apierr.ReasonInvalidArgument, "The body holds more than one JSON value. Send one object.")
	}
	return checkMessage("", v, want)
}

// malformed says where the JSON breaks, as editors count.
func malformed(raw []byte, err error) error {
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return apierr.New(apierr.ReasonInvalidArgument, "The body is not complete JSON: it ends too early.", apierr.WithCause(err))
	}
	before := raw[:min(int(syntax.Offset), len(raw))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - bytes.LastIndexByte(before, '\n') - 1
	return apierr.Newf(apierr.ReasonInvalidArgument, "The body is not JSON: line %d, column %d: %s.", line, max(column, 1), strings.TrimPrefix(syntax.Error(), "json: "))
}

func checkMessage(path string, v any, want protoreflect.MessageDescriptor) error {
	if check, ok := wellKnown[want.FullName()]; ok {
		return check(path, v)
	}
	object, ok := v.(map[string]any)
	if !ok {
		if path == "" {
			return apierr.New(apierr.ReasonInvalidArgument, "The body must be a JSON object.")
		}
		return wrong(path, "must be an object")
	}
	for _, name := range slices.Sorted(keysOf(object)) {
		at := join(path, name)
		f := fieldNamed(want, name)
		if f == nil {
			return apierr.New(apierr.ReasonInvalidArgument, fmt.Sprintf("There is no field %q here. The fields are: %s.", at, strings.Join(fieldNames(want), ", ")),
				apierr.WithField(at, "unknown field"))
		}
		if object[name] == nil {
			continue // absent
		}
		if err := checkField(at, object[name], f); err != nil {
			return err
		}
	}
	return nil
}

func checkField(path string, v any, f protoreflect.FieldDescriptor) error {
	switch {
	case f.IsMap():
		object, ok := v.(map[string]any)
		if !ok {
			return wrong(path, "must be an object")
		}
		for _, key := range slices.Sorted(keysOf(object)) {
			if err := checkSingle(join(path, key), object[key], f.MapValue()); err != nil {
				return err
			}
		}
		return nil
	case f.IsList():
		list, ok := v.([]any)
		if !ok {
			return wrong(path, "must be a list")
		}
		for i, e := range list {
			if err := checkSingle(fmt.Sprintf("%s[%d]", path, i), e, f); err != nil {
				return err
			}
		}
		return nil
	default:
		return checkSingle(path, v, f)
	}
}

func checkSingle(path string, v any, f protoreflect.FieldDescriptor) error {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return checkMessage(path, v, f.Message())
	case protoreflect.BoolKind:
		if _, ok := v.(bool); !ok {
			return wrong(path, "must be true or false")
		}
	case protoreflect.StringKind, protoreflect.BytesKind:
		if _, ok := v.(string); !ok {
			return wrong(path, "must be text in double quotes")
		}
	case protoreflect.EnumKind:
		return checkEnum(path, v, f.Enum())
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		if _, ok := v.(json.Number); !ok {
			return wrong(path, "must be a number")
		}
	default:
		return checkWhole(path, v, f.Kind())
	}
	return nil
}

// checkWhole takes what protojson takes: a number or its digits as text.
func checkWhole(path string, v any, kind protoreflect.Kind) error {
	var text string
	switch n := v.(type) {
	case json.Number:
		text = n.String()
	case string:
		text = n
	}
	if !whole(text, kind) {
		return wrong(path, "must be a whole number")
	}
	return nil
}

func whole(text string, kind protoreflect.Kind) bool {
	var err error
	switch kind {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		_, err = strconv.ParseInt(text, 10, 32)
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		_, err = strconv.ParseInt(text, 10, 64)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		_, err = strconv.ParseUint(text, 10, 32)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		_, err = strconv.ParseUint(text, 10, 64)
	default:
	}
	return err == nil
}

func checkEnum(path string, v any, enum protoreflect.EnumDescriptor) error {
	word, ok := v.(string)
	if ok && enum.Values().ByName(protoreflect.Name(word)) != nil {
		return nil
	}
	return wrong(path, "must be one of "+strings.Join(enumWords(enum), ", "))
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
var wellKnown = map[protoreflect.FullName]func(path string, v any) error{
	"google.protobuf.Timestamp": func(path string, v any) error {
		if s, ok := v.(string); !ok || !isTime(s) {
			return wrong(path, "must be a time like 2026-11-22T14:15:16Z")
		}
		return nil
	},
	"google.protobuf.Duration": func(path string, v any) error {
		s, ok := v.(string)
		if ok {
			_, err := time.ParseDuration(s)
			ok = err == nil && strings.HasSuffix(s, "s")
		}
		if !ok {
			return wrong(path, `must be seconds like "90s"`)
		}
		return nil
	},
	"google.protobuf.FieldMask": func(path string, v any) error {
		if _, ok := v.(string); !ok {
			return wrong(path, `must be field names like "branch,autoDeploy"`)
		}
		return nil
	},
}

func isTime(s string) bool {
	_, err := time.Parse(time.RFC3339Nano, s)
	return err == nil
}

func wrong(path, msg string) error { return apierr.InvalidArgument(path, msg) }

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
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
