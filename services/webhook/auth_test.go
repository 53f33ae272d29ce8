package webhook_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/stream"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
)

// fakeAuth is the auth service as webhook sees it. Its tokens are the emulator's.
type fakeAuth struct {
	authv1.AuthServiceClient
	stack *stack

	mu         sync.Mutex
	connection string // "" while not connected
	token      string
	scopes     []string
	issued     []string // every token ever handed out
	failure    error
	narrowedTo []string // by UUID
}

// connect connects the workspace as jane-dev and tells so.
func (a *fakeAuth) connect(id string) {
	a.stack.t.Helper()
	a.mu.Lock()
	a.connection, a.token = id, ""
	a.mu.Unlock()
	a.announce()
}

// disconnect removes the integration and tells so.
func (a *fakeAuth) disconnect() {
	a.mu.Lock()
	a.connection, a.token = "", ""
	a.mu.Unlock()
	a.announce()
}

func (a *fakeAuth) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failure = err
}

// narrow says which Bitbucket workspaces count, and tells so.
func (a *fakeAuth) narrow(to ...string) {
	a.mu.Lock()
	a.narrowedTo = to
	a.mu.Unlock()
	a.announce()
}

// announce publishes the change event of the integration.
func (a *fakeAuth) announce() {
	t := a.stack.t
	t.Helper()
	if _, err := stream.Ensure(a.stack.background(), a.stack.js, stream.Events, stream.Options{}); err != nil {
		t.Fatalf("ensure the events: %v", err)
	}
	subject, err := stream.EventSubject("auth", workspace, "integration")
	if err != nil {
		t.Fatal(err)
	}
	data, err := proto.Marshal(&eventsv1.ChangeEvent{Service: "auth", Workspace: workspace, Kind: "integration", Id: "bitbucket"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.stack.js.PublishMsg(a.stack.background(), &nats.Msg{Subject: subject, Data: data}); err != nil {
		t.Fatalf("announce: %v", err)
	}
}

func (a *fakeAuth) GetIntegration(_ context.Context, _ *authv1.GetIntegrationRequest, _ ...grpc.CallOption) (*authv1.GetIntegrationResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	in := &authv1.Integration{Workspace: workspace, State: authv1.Integration_NOT_CONNECTED}
	if a.connection != "" {
		in.State, in.ConnectionId = authv1.Integration_CONNECTED, a.connection
	}
	for _, id := range a.narrowedTo {
		in.NarrowedTo = append(in.NarrowedTo, &authv1.NarrowedTo{Id: id})
	}
	return &authv1.GetIntegrationResponse{Integration: in}, nil
}

func (a *fakeAuth) IssueToken(ctx context.Context, req *authv1.IssueTokenRequest, _ ...grpc.CallOption) (*authv1.IssueTokenResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.failure != nil:
		return nil, a.failure
	case a.connection == "" || req.GetWorkspace() != workspace:
		return nil, apierr.New(apierr.ReasonNotConnected, "Bitbucket is not connected. Connect it under Integrations.")
	case len(a.narrowedTo) > 0 && !slices.Contains(a.narrowedTo, req.GetBitbucketWorkspaceId()):
		return nil, apierr.New(apierr.ReasonWorkspaceExcluded, "An admin narrowed this workspace.")
	}
	sum := sha256.Sum256([]byte(a.token))
	if a.token == "" || bytes.Equal(sum[:], req.GetRejectedTokenSha256()) {
		pair, err := a.stack.control.IssueTokens(ctx, "jane-dev", a.scopes...)
		if err != nil {
			return nil, err
		}
		a.token = pair.AccessToken
		a.issued = append(a.issued, a.token)
	}
	return &authv1.IssueTokenResponse{
		AccessToken: a.token, ExpireTime: timestamppb.New(time.Now().Add(time.Hour)), ConnectionId: a.connection,
		SiteUrl: a.stack.bitbucket.SiteURL(), ApiUrl: a.stack.bitbucket.APIURL(),
	}, nil
}
