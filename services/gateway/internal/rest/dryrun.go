package rest

import (
	"context"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

const validateField = "validate_only"

type dryRunKey struct{}

// dryRun is a request that is wrong already, whose service says what else is wrong with it.
type dryRun struct {
	faults *apierr.Faults
	route  routes.Route
}

// canDryRun tells whether a service can check a request of the route without doing anything.
func canDryRun(route routes.Route) bool {
	return route.Body != "" && (route.ReadOnly || route.Input.Fields().ByName(validateField) != nil)
}

// run makes the RPC one that only checks the request, and adds what it finds to what is wrong
// already. Whoever may not do it, or does it to something that is not there, is told that instead.
func (a dryRun) run(msg proto.Message, call func() error) error {
	m := msg.ProtoReflect()
	if f := m.Descriptor().Fields().ByName(validateField); f != nil {
		m.Set(f, protoreflect.ValueOfBool(true))
	}
	err := call()
	switch apierr.KindOf(err) {
	case apierr.PermissionDenied, apierr.NotFound:
		return err
	case apierr.Invalid:
		for _, f := range apierr.From(inBody(err, a.route)).Fields() {
			if !a.covers(f.Name) {
				a.faults.Add(f.Name, f.Message)
			}
		}
	default: // nothing more is known
	}
	return a.faults.Err()
}

// covers tells whether something at, in or around a place is wrong already: what is there was taken
// out, and the service would say that it is missing.
func (a dryRun) covers(name string) bool {
	within := func(inner, outer string) bool {
		rest, ok := strings.CutPrefix(inner, outer)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	}
	for _, f := range apierr.From(a.faults.Err()).Fields() {
		if within(name, f.Name) || within(f.Name, name) {
			return true
		}
	}
	return false
}

func withDryRun(ctx context.Context, a dryRun) context.Context {
	return context.WithValue(ctx, dryRunKey{}, a)
}
