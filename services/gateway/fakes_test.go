package gateway_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/testkit"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	doctorv1 "devpilot.io/bitbucket/proto/gen/devpilot/doctor/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/gateway"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

// handler serves one method of a fake.
type handler func(ctx context.Context, req proto.Message) (proto.Message, error)

// fake is a neighbour over the real interceptors. What a test does not teach it answers with every
// field filled in. It keeps what it was asked.
type fake struct {
	t    testing.TB
	name string

	mu      sync.Mutex
	methods map[string]handler
	streams map[string]func(req proto.Message, s grpc.ServerStream) error
	calls   []call
}

type call struct {
	method string // short
	req    proto.Message
	user   identity.Identity
	rid    string
}

// on teaches a method.
func (f *fake) on(method string, h handler) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.methods[method] = h
}

func (f *fake) onStream(method string, h func(req proto.Message, s grpc.ServerStream) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.streams[method] = h
}

// asked lists the calls of a method.
func (f *fake) asked(method string) []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []call
	for _, c := range f.calls {
		if c.method == method {
			out = append(out, c)
		}
	}
	return out
}

func (f *fake) note(ctx context.Context, method string, req proto.Message) {
	id, _ := identity.FromContext(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call{method, proto.Clone(req), id, rpc.RequestID(ctx)})
}

// serviceDesc serves all methods of a service from the fake.
func (f *fake) serviceDesc(sd protoreflect.ServiceDescriptor) *grpc.ServiceDesc {
	desc := &grpc.ServiceDesc{ServiceName: string(sd.FullName()), HandlerType: (*any)(nil), Metadata: sd.ParentFile().Path()}
	for i := range sd.Methods().Len() {
		m := sd.Methods().Get(i)
		if m.IsStreamingServer() {
			desc.Streams = append(desc.Streams, grpc.StreamDesc{StreamName: string(m.Name()), ServerStreams: true, Handler: f.stream(m)})
			continue
		}
		desc.Methods = append(desc.Methods, grpc.MethodDesc{MethodName: string(m.Name()), Handler: f.unary(m)})
	}
	return desc
}

func (f *fake) unary(m protoreflect.MethodDescriptor) func(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) {
	name := string(m.Name())
	return func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		in := newMessage(f.t, m.Input())
		if err := dec(in); err != nil {
			return nil, err
		}
		return interceptor(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: routes.FullMethod(m)}, func(ctx context.Context, req any) (any, error) {
			msg := req.(proto.Message)
			f.note(ctx, name, msg)
			f.mu.Lock()
			h := f.methods[name]
			f.mu.Unlock()
			if h != nil {
				return h(ctx, msg)
			}
			out := newMessage(f.t, m.Output())
			fill(out.ProtoReflect(), 4)
			return out, nil
		})
	}
}

func (f *fake) stream(m protoreflect.MethodDescriptor) grpc.StreamHandler {
	name := string(m.Name())
	return func(_ any, s grpc.ServerStream) error {
		in := newMessage(f.t, m.Input())
		if err := s.RecvMsg(in); err != nil {
			return err
		}
		f.note(s.Context(), name, in)
		f.mu.Lock()
		h := f.streams[name]
		f.mu.Unlock()
		if h == nil {
			return fmt.Errorf("the test did not teach %s", name)
		}
		return h(in, s)
	}
}

func newMessage(t testing.TB, d protoreflect.MessageDescriptor) proto.Message {
	mt, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		t.Errorf("no type of %s: %v", d.FullName(), err)
		panic(err)
	}
	return mt.New().Interface()
}

// fill sets every field: words, ones, times, one element per list.
func fill(m protoreflect.Message, depth int) {
	if ts, ok := m.Interface().(*timestamppb.Timestamp); ok {
		ts.Seconds = 1_795_356_916
		return
	}
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		if f.Kind() == protoreflect.MessageKind && depth == 0 {
			continue
		}
		switch {
		case f.IsMap():
		case f.IsList():
			l := m.Mutable(f).List()
			if f.Kind() == protoreflect.MessageKind {
				e := l.NewElement()
				fill(e.Message(), depth-1)
				l.Append(e)
			} else {
				l.Append(sample(f))
			}
		case f.Kind() == protoreflect.MessageKind:
			fill(m.Mutable(f).Message(), depth-1)
		default:
			m.Set(f, sample(f))
		}
	}
}

func sample(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(7)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(7)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("x"))
	default:
		if f.Name() == "etag" {
			return protoreflect.ValueOfString("revision1")
		}
		return protoreflect.ValueOfString("some " + f.JSONName())
	}
}

// policyOf is what the neighbours' policies say as far as the gateway is concerned: the published
// table for the API, and the gateway as the only caller of the rest.
func policyOf(sd protoreflect.ServiceDescriptor) rpc.Policy {
	internal := map[string]identity.Role{
		authv1.AuthService_BeginAuthorization_FullMethodName:    identity.RoleAdmin,
		authv1.AuthService_CompleteAuthorization_FullMethodName: identity.RoleAdmin,
		authv1.AuthService_RemoveIntegration_FullMethodName:     identity.RoleAdmin,
		webhookv1.WebhookService_LeaveWebhooks_FullMethodName:   identity.RoleAdmin,
	}
	p := rpc.Policy{}
	for i := range sd.Methods().Len() {
		full := routes.FullMethod(sd.Methods().Get(i))
		role, ok := gateway.Roles()[full]
		if !ok {
			role = internal[full]
		}
		p[full] = rpc.Rule{Callers: []string{"gateway"}, MinRole: role, Scope: gateway.Scopes()[full], OfApps: gateway.OfApps()[full]}
		if gateway.NeedsBrowser(full) {
			rule := p[full]
			rule.Browser = "It takes a browser."
			p[full] = rule
		}
	}
	return p
}

// serveFake serves a fake for the service called name.
func serveFake(t testing.TB, keys *identity.Keys, logger *slog.Logger, name string) (*fake, *grpc.ClientConn) {
	t.Helper()
	f := &fake{t: t, name: name, methods: map[string]handler{}, streams: map[string]func(proto.Message, grpc.ServerStream) error{}}
	for _, sd := range routes.Services() {
		if string(sd.ParentFile().Package()) != "devpilot."+name+".v1" {
			continue
		}
		s := testkit.ServeGRPC(t, testkit.GRPCConfig{
			Service: name, Keys: keys, Policy: checkup.WithPolicy(policyOf(sd)), Logger: logger,
			Register: func(r grpc.ServiceRegistrar) {
				r.RegisterService(f.serviceDesc(sd), f)
				r.RegisterService(f.serviceDesc(doctorv1.File_devpilot_doctor_v1_doctor_service_proto.Services().Get(0)), f)
			},
		})
		return f, s.Dial("gateway")
	}
	t.Fatalf("no service %s", name)
	return nil, nil
}
