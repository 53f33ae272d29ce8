package rest

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

const (
	maskField = "update_mask"
	maskParam = "updateMask"
)

type maskKey struct{}

// withMask notes which fields a change is about: those that updateMask names or else those that the
// body names. A mask that names nothing is as good as none; it never means all.
func withMask(ctx context.Context, query url.Values, body map[string]any, route routes.Route, faults *apierr.Faults) context.Context {
	if route.Input == nil || route.Input.Fields().ByName(maskField) == nil {
		return ctx
	}
	want := bodyMessage(route)
	paths := maskOf(query.Get(maskParam), want, faults)
	if len(paths) == 0 {
		paths = namesOf("", "", body, want, faults)
	}
	return context.WithValue(ctx, maskKey{}, paths)
}

// applyMask puts the noted mask into the request.
func applyMask(ctx context.Context, msg proto.Message) {
	paths, ok := ctx.Value(maskKey{}).([]string)
	if !ok {
		return
	}
	m := msg.ProtoReflect()
	if f := m.Descriptor().Fields().ByName(maskField); f != nil {
		m.Set(f, protoreflect.ValueOfMessage((&fieldmaskpb.FieldMask{Paths: paths}).ProtoReflect()))
	}
}

// maskOf reads the parameter: names of fields with commas between, a part of a field after a dot.
func maskOf(text string, want protoreflect.MessageDescriptor, faults *apierr.Faults) []string {
	var paths []string
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		path, ok := pathOf(strings.Split(name, "."), want)
		if !ok {
			faults.Add(maskParam, fmt.Sprintf("%q is no field that can be named here; the fields are: %s", name, strings.Join(fieldNames(want), ", ")))
			continue
		}
		paths = append(paths, path)
	}
	return paths
}

func pathOf(names []string, want protoreflect.MessageDescriptor) (string, bool) {
	f := fieldNamed(want, names[0])
	switch {
	case f == nil:
		return "", false
	case len(names) == 1:
		return string(f.Name()), true
	case f.Message() == nil || f.IsList() || f.IsMap(): // of a list a part cannot be meant (AIP-161)
		return "", false
	}
	rest, ok := pathOf(names[1:], f.Message())
	return string(f.Name()) + "." + rest, ok
}

// namesOf lists what a body names, as far down as it names something; an empty object names nothing.
func namesOf(at, path string, object map[string]any, want protoreflect.MessageDescriptor, faults *apierr.Faults) []string {
	var paths []string
	for _, name := range slices.Sorted(keysOf(object)) {
		f := fieldNamed(want, name)
		if f == nil {
			continue // a fault that was noted already
		}
		here := join(path, string(f.Name()))
		if object[name] == nil {
			faults.Add(join(at, name), "must not be null: leave the field out to keep what it has, or send what it should be")
			continue
		}
		inner, nested := object[name].(map[string]any)
		if nested && f.Message() != nil && !f.IsMap() && wellKnown[f.Message().FullName()] == nil {
			paths = append(paths, namesOf(join(at, name), here, inner, f.Message(), faults)...)
			continue
		}
		paths = append(paths, here)
	}
	return paths
}
