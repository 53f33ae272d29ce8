package rest

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

// checkQuery holds the query against the request message: only fields that come neither from the
// path nor from the body, each once unless it is a list, each readable. grpc-gateway, which reads
// them afterwards, ignores what it does not know, and a misspelt filter would show everything.
func checkQuery(query string, route routes.Route) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return apierr.New(apierr.ReasonInvalidArgument, "The query cannot be read: a percent sign must be followed by two hexadecimal digits, and ; is not a separator.")
	}
	fields := queryFields(route)
	for _, name := range sorted(values) {
		f, ok := fields[name]
		if !ok {
			known := "this request takes none"
			if len(fields) > 0 {
				known = "known are: " + strings.Join(sorted(fields), ", ")
			}
			return apierr.New(apierr.ReasonInvalidArgument, fmt.Sprintf("There is no parameter %q; %s.", name, known), apierr.WithField(name, "unknown parameter"))
		}
		if len(values[name]) > 1 && !f.IsList() {
			return wrong(name, "must be given once")
		}
		for _, v := range values[name] {
			if err := checkText(name, v, f); err != nil {
				return err
			}
		}
	}
	return nil
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

// checkPath reads the numbers in the path.
func checkPath(params map[string]string, route routes.Route) error {
	if route.Input == nil {
		return nil
	}
	for _, name := range route.PathFields() {
		f := route.Input.Fields().ByName(protoreflect.Name(name))
		if f == nil {
			continue
		}
		if err := checkText(f.JSONName(), params[name], f); err != nil {
			return err
		}
	}
	return nil
}

func checkText(name, text string, f protoreflect.FieldDescriptor) error {
	switch f.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind:
		return nil
	case protoreflect.BoolKind:
		if text != "true" && text != "false" {
			return wrong(name, "must be true or false")
		}
		return nil
	case protoreflect.EnumKind:
		return checkEnum(name, text, f.Enum())
	case protoreflect.MessageKind:
		if check, ok := wellKnown[f.Message().FullName()]; ok {
			return check(name, text)
		}
		return wrong(name, "cannot be given in the query")
	default:
		if !whole(text, f.Kind()) {
			return wrong(name, "must be a whole number")
		}
		return nil
	}
}
