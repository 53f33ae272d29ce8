package rpc

import (
	"context"
	"regexp"
	"sync"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"devpilot.io/bitbucket/pkg/apierr"
)

// workspaceID is the form of a workspace id, DESIGN.md#words. It is checked for every request
// before any handler builds a subject or key from it.
var workspaceID = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// ValidWorkspace reports whether id has the form of a workspace id.
func ValidWorkspace(id string) bool { return workspaceID.MatchString(id) }

// validation checks what can be checked of any request: fields that the proto marks REQUIRED are
// set, and a workspace has the form of one. Everything else is the handler's.
func validation(ctx context.Context, c *call, next func(context.Context) error) error {
	err := c.check(ctx, func(_ context.Context, msg any) error {
		if m, ok := msg.(proto.Message); ok {
			return validate(m)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return next(ctx)
}

func validate(m proto.Message) error {
	r := m.ProtoReflect()
	var faults apierr.Faults
	for _, f := range requiredFields(r.Descriptor()) {
		if !r.Has(f) {
			faults.Add(f.JSONName(), "is required")
		}
	}
	// Who only asks what is wrong wishes to hear all of it: the handler says what is missing too.
	if asks, ok := m.(interface{ GetValidateOnly() bool }); ok && asks.GetValidateOnly() {
		faults = apierr.Faults{}
	}
	if w, ok := m.(hasWorkspace); ok && w.GetWorkspace() != "" && !ValidWorkspace(w.GetWorkspace()) {
		faults.Add("workspace", "a workspace id has 1 to 63 lower-case letters, digits and hyphens, and does not begin with a hyphen")
	}
	return faults.Err()
}

var required sync.Map // protoreflect.MessageDescriptor → []protoreflect.FieldDescriptor, computed once

// requiredFields lists the top-level fields marked REQUIRED. A bool cannot be told from its zero
// value and is never missing, nor a list from an empty one, which the gateway wants said; a number can be told: our
// required numbers count from 1.
func requiredFields(d protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	if v, ok := required.Load(d); ok {
		return v.([]protoreflect.FieldDescriptor)
	}
	var fields []protoreflect.FieldDescriptor
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if f.Kind() == protoreflect.BoolKind && !f.HasPresence() || f.IsList() {
			continue
		}
		behaviors, _ := proto.GetExtension(f.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
		for _, b := range behaviors {
			if b == annotations.FieldBehavior_REQUIRED {
				fields = append(fields, f)
			}
		}
	}
	required.Store(d, fields)
	return fields
}
