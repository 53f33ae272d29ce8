package rest

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

// ParseQuery reads the query of a request. What is not Unicode text is a fault of its parameter.
func ParseQuery(query string, faults *apierr.Faults) (url.Values, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, apierr.New(apierr.ReasonInvalidArgument, "The query cannot be read: a percent sign must be followed by two hexadecimal digits, and ; is not a separator.", apierr.WithField("query", "cannot be read"))
	}
	for _, name := range sorted(values) {
		if !utf8.ValidString(name) {
			faults.Add(name, "the name is not Unicode text in UTF-8")
		}
		for _, v := range values[name] {
			if !utf8.ValidString(v) {
				faults.Add(name, notUnicode)
			}
		}
	}
	return values, nil
}

// UnknownParameter notes a parameter that a request does not take.
func UnknownParameter(name string, known []string, faults *apierr.Faults) {
	if len(known) == 0 {
		faults.Add(name, "unknown parameter; this request takes none")
		return
	}
	faults.Add(name, "unknown parameter; known are: "+strings.Join(known, ", "))
}

// CheckQuery holds the query against the request message: only fields that come neither from the
// path nor from the body, each once unless it is a list, each readable. grpc-gateway, which reads
// them afterwards, ignores what it does not know, and a misspelt filter would show everything.
func CheckQuery(values url.Values, route routes.Route, faults *apierr.Faults) {
	fields := queryFields(route)
	for _, name := range sorted(values) {
		f, ok := fields[name]
		if !ok {
			UnknownParameter(name, sorted(fields), faults)
			continue
		}
		if len(values[name]) > 1 && !f.IsList() {
			faults.Add(name, "must be given once")
		}
		for _, v := range values[name] {
			checkParameter(name, v, f, faults)
		}
	}
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for k := range m {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}

// queryFields are the parameters of a route by their public name.
func queryFields(route routes.Route) map[string]protoreflect.FieldDescriptor {
	fields := map[string]protoreflect.FieldDescriptor{}
	if route.Body == "*" || route.Input == nil {
		return fields
	}
	taken := append(route.PathFields(), route.Body)
	for i := range route.Input.Fields().Len() {
		if f := route.Input.Fields().Get(i); !slices.Contains(taken, string(f.Name())) {
			fields[f.JSONName()] = f
		}
	}
	return fields
}

// checkText refuses a path or a header that is not Unicode text: nothing can be done with it, and
// nothing of it may go on.
func checkText(params map[string]string, h http.Header, route routes.Route) error {
	var faults apierr.Faults
	for _, name := range route.PathFields() {
		if !utf8.ValidString(params[name]) {
			faults.Add(route.PathName(name), notUnicode)
		}
	}
	for _, name := range []string{"Accept", "Content-Type", headerIfMatch, headerIfNoneMatch, HeaderLastEventID} {
		for _, v := range h.Values(name) {
			if !utf8.ValidString(v) {
				faults.Add(name, notUnicode)
			}
		}
	}
	return faults.Err()
}

// checkPath reads the numbers in the path.
func checkPath(params map[string]string, route routes.Route, faults *apierr.Faults) {
	for _, name := range route.PathFields() {
		if f := route.Input.Fields().ByName(protoreflect.Name(name)); f != nil {
			checkParameter(route.PathName(name), params[name], f, faults)
		}
	}
}

// decimal is a whole number as paths and queries have it.
var decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

func checkParameter(name, text string, f protoreflect.FieldDescriptor, faults *apierr.Faults) {
	switch f.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind:
		if f.Name() == etagName && text == "" {
			faults.Add(name, emptyETag)
		}
	case protoreflect.BoolKind:
		if text != "true" && text != "false" {
			faults.Add(name, "must be true or false")
		}
	case protoreflect.EnumKind:
		checkEnum(name, text, f.Enum(), faults)
	case protoreflect.MessageKind:
		check, ok := wellKnown[f.Message().FullName()]
		if !ok {
			faults.Add(name, "cannot be given in the query")
			return
		}
		check(name, text, faults)
	default:
		// What reads it afterwards takes digits alone, in the base that they begin like.
		if checkWhole(name, text, f.Kind(), faults) && !decimal.MatchString(text) {
			_, says := wholeOf(f.Kind())
			refuse(name, says, faults)
		}
	}
}
