package rpc

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"devpilot.io/bitbucket/pkg/identity"
)

// Policy says who may call what. The key is the full method,
// "/devpilot.auth.v1.AuthService/IssueToken".
type Policy map[string]Rule

// Rule is the policy of one method.
type Rule struct {
	// Callers are the services that may call. A call from "gateway" is made for a user; calls
	// from others are the product's own work.
	Callers []string
	// MinRole is what the user of a call from the gateway must at least be, in the workspace that
	// the request names. RoleNone: the gateway may call without a user.
	MinRole identity.Role
	// OfApps says that the method answers a user who is limited to some apps with what these apps have, and
	// leaves out the others. Without it such a user is refused whatever names none of its apps.
	OfApps bool
	// Scope is what a program's credential must have, where it does not follow from MinRole and from whether the
	// method changes anything (identity.ScopeOf); ScopeNone where it does.
	Scope identity.Scope
	// Operator says that it is about the whole installation: the user must be an operator of it, whatever the roles are.
	Operator bool
	// Browser says why nobody but a person in a browser can do it; empty where programs can. Programs are told
	// so before anything else, so that nobody makes a key with a wider scope in vain.
	Browser string
}

// exempt methods are open to probes: they say nothing but whether the process serves.
const healthPrefix = "/grpc.health.v1.Health/"

func isHealth(method string) bool { return strings.HasPrefix(method, healthPrefix) }

// CheckPolicy compares what is registered on the server with the policy: every method has a rule,
// every rule a method and a caller, and where a role is asked for, the request names a workspace
// to hold it against. Call it after all services are registered and before serving.
func CheckPolicy(server *grpc.Server, policy Policy) error {
	var errs []error
	registered := map[string]bool{}
	for service, info := range server.GetServiceInfo() {
		for _, m := range info.Methods {
			full := "/" + service + "/" + m.Name
			if isHealth(full) {
				continue
			}
			registered[full] = true
			rule, ok := policy[full]
			if !ok {
				errs = append(errs, fmt.Errorf("%s has no rule", full))
				continue
			}
			if err := rule.check(full); err != nil {
				errs = append(errs, err)
			}
		}
	}
	for _, full := range slices.Sorted(maps.Keys(policy)) {
		if !registered[full] {
			errs = append(errs, fmt.Errorf("%s has a rule but is not registered", full))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("rpc: policy: %w", errors.Join(errs...))
	}
	return nil
}

func (r Rule) check(full string) error {
	if len(r.Callers) == 0 {
		return fmt.Errorf("%s: nobody may call it", full)
	}
	if r.MinRole == identity.RoleNone || !slices.Contains(r.Callers, identity.Gateway) {
		return nil
	}
	m, err := methodDescriptor(full)
	if err != nil {
		return err
	}
	if r.OfApps && !readOnly(m) {
		return fmt.Errorf("%s: changes something, so it cannot leave out what belongs to other apps", full)
	}
	if f := m.Input().Fields().ByName("workspace"); f == nil || f.Kind() != protoreflect.StringKind || f.IsList() {
		return fmt.Errorf("%s: asks for role %s, but %s has no workspace to hold it against", full, r.MinRole, m.Input().FullName())
	}
	return nil
}

// checkCallers refuses rules that name a service nobody has a key of: most likely misspelt.
func (p Policy) checkCallers(known []string) error {
	var errs []error
	for _, full := range slices.Sorted(maps.Keys(p)) {
		for _, c := range p[full].Callers {
			if !slices.Contains(known, c) {
				errs = append(errs, fmt.Errorf("%s: caller %q is not a service with a key", full, c))
			}
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("rpc: policy: %w", errors.Join(errs...))
	}
	return nil
}

// callers are the services that may call anything.
func (p Policy) callers() []string {
	var all []string
	for _, rule := range p {
		all = append(all, rule.Callers...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// readOnly tells what the proto says: that a call changes nothing.
func readOnly(m protoreflect.MethodDescriptor) bool {
	o, ok := m.Options().(*descriptorpb.MethodOptions)
	return ok && o.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

// methodDescriptor finds the proto descriptor of "/package.Service/Method" among the generated
// files that are linked in.
func methodDescriptor(full string) (protoreflect.MethodDescriptor, error) {
	service, method, ok := strings.Cut(strings.TrimPrefix(full, "/"), "/")
	if !ok {
		return nil, fmt.Errorf("%q is not a full method", full)
	}
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", full, err)
	}
	sd, ok := d.(protoreflect.ServiceDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s: %s is not a service", full, service)
	}
	md := sd.Methods().ByName(protoreflect.Name(method))
	if md == nil {
		return nil, fmt.Errorf("%s: no such method", full)
	}
	return md, nil
}
