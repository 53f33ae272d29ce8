package routes

import (
	"slices"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Always tells whether an answer always has a field. The others are absent while they have nothing to
// say: what the proto marks optional, and messages but those that it marks NON_EMPTY_DEFAULT, which the
// services always fill in. That they do is tested with the answers of the whole product.
func Always(f protoreflect.FieldDescriptor) bool {
	if f.HasPresence() {
		return Is(f, annotations.FieldBehavior_NON_EMPTY_DEFAULT)
	}
	return !Is(f, annotations.FieldBehavior_OPTIONAL)
}

// Is tells whether the proto says that of a field.
func Is(f protoreflect.FieldDescriptor, behavior annotations.FieldBehavior) bool {
	have, ok := proto.GetExtension(f.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	return ok && slices.Contains(have, behavior)
}
