package deployer_test

import (
	"context"
	"crypto/sha256"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// world is what the faked services know. They keep state and are served with the real
// interceptors, so that errors cross the wire as they do in life.
type world struct {
	t   testing.TB
	git *gittest.Server

	mu           sync.Mutex
	token        string
	connection   string
	state        authv1.Integration_State
	repositories map[string]string // id -> full name
	unreachable  map[string]bool   // by id
	restDown     bool              // nothing of the REST API answers
	hooks        map[string]*webhookv1.Webhook
	watches      map[string]*webhookv1.SetWatchesRequest
	hookReason   string
	webhookDown  bool
	outcomes     []*webhookv1.RecordedOutcome
	lookups      int      // of repositories
	batches      int      // of webhooks that were asked for in somebody's request
	told         []int    // how many watches each hand-over had
	telling      func()   // is called in each hand-over, where set
	narrowedTo   []string // what auth says of the integration
	lent         []string // what auth says beside a token
}

// home is the Bitbucket workspace of all repositories.
const home = "8e7b5c1e-0000-4000-8000-000000000001"

func (w *world) do(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
}

// said are the messages of a delivery's outcomes, for an app or for none.
func (w *world) said(delivery int32) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, o := range w.outcomes {
		if m := o.GetOutcome().GetMessage(); o.GetDelivery() == delivery && !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	return out
}

// questions is how often a repository was looked up.
func (w *world) questions() (n int) {
	w.do(func() { n = w.lookups })
	return n
}

type fakeAuth struct {
	authv1.UnimplementedAuthServiceServer
	w *world
}

func (a fakeAuth) GetIntegration(context.Context, *authv1.GetIntegrationRequest) (*authv1.GetIntegrationResponse, error) {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	var narrowed []*authv1.NarrowedTo
	for _, id := range a.w.narrowedTo {
		narrowed = append(narrowed, &authv1.NarrowedTo{Id: id})
	}
	return &authv1.GetIntegrationResponse{Integration: &authv1.Integration{
		NarrowedTo: narrowed,
		Workspace:  "acme-inc", State: a.w.state, ConnectionId: a.w.connection, Account: &authv1.Account{Label: "jane-dev"},
	}}, nil
}

func (a fakeAuth) IssueToken(_ context.Context, req *authv1.IssueTokenRequest) (*authv1.IssueTokenResponse, error) {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	if a.w.state == authv1.Integration_REFRESH_FAILING {
		return nil, apierr.New(apierr.ReasonBitbucketUnavailable, "The refresh was refused.", apierr.WithRetryAfter(10*time.Minute))
	}
	if a.w.state != authv1.Integration_CONNECTED {
		return nil, apierr.New(apierr.ReasonReconnectRequired, "Connect again.")
	}
	sum := sha256.Sum256([]byte(a.w.token))
	if slices.Equal(req.GetRejectedTokenSha256(), sum[:]) {
		a.w.token += "-renewed"
	}
	return &authv1.IssueTokenResponse{NarrowedTo: a.w.lent, AccessToken: a.w.token, SiteUrl: a.w.git.URL.String(), ExpireTime: timestamppb.New(time.Now().Add(time.Hour))}, nil
}

type fakeRepo struct {
	repov1.UnimplementedRepoServiceServer
	w *world
}

func (r fakeRepo) GetRepository(_ context.Context, req *repov1.GetRepositoryRequest) (*repov1.GetRepositoryResponse, error) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.lookups++
	name, ok := r.w.repositories[req.GetRepository()]
	if r.w.restDown {
		return nil, errRESTDown
	}
	if !ok || r.w.unreachable[req.GetRepository()] {
		return nil, apierr.New(apierr.ReasonRepositoryNotFound, "No such repository.")
	}
	return &repov1.GetRepositoryResponse{Repository: &repov1.Repository{Id: req.GetRepository(), FullName: name, BitbucketWorkspaceId: home, MainBranch: r.w.git.Repo(name).MainBranch()}}, nil
}

func (r fakeRepo) GetBranch(_ context.Context, req *repov1.GetBranchRequest) (*repov1.GetBranchResponse, error) {
	r.w.mu.Lock()
	name, down, gone := r.w.repositories[req.GetRepository()], r.w.restDown, r.w.unreachable[req.GetRepository()]
	r.w.mu.Unlock()
	if down {
		return nil, errRESTDown
	}
	if name == "" || gone {
		return nil, apierr.New(apierr.ReasonRepositoryNotFound, "No such repository.")
	}
	hash := r.w.git.Repo(name).Head(req.GetBranch())
	if hash == "" {
		return nil, apierr.New(apierr.ReasonBranchNotFound, "No such branch.")
	}
	return &repov1.GetBranchResponse{Branch: &repov1.Branch{Name: req.GetBranch(), Commit: &repov1.BranchCommit{Hash: hash}}}, nil
}

func (r fakeRepo) GetHead(ctx context.Context, req *repov1.GetHeadRequest) (*repov1.GetHeadResponse, error) {
	found, err := r.GetRepository(ctx, &repov1.GetRepositoryRequest{Workspace: req.GetWorkspace(), Repository: req.GetRepository()})
	if err != nil || req.GetBranch() == "" {
		return &repov1.GetHeadResponse{Repository: found.GetRepository()}, err
	}
	hash := r.w.git.Repo(found.GetRepository().GetFullName()).Head(req.GetBranch())
	return &repov1.GetHeadResponse{Repository: found.GetRepository(), Hash: &hash}, nil
}

func (r fakeRepo) ResolveCommit(_ context.Context, req *repov1.ResolveCommitRequest) (*repov1.ResolveCommitResponse, error) {
	r.w.mu.Lock()
	name, down := r.w.repositories[req.GetRepository()], r.w.restDown
	r.w.mu.Unlock()
	if down {
		return nil, errRESTDown
	}
	repo := r.w.git.Repo(name)
	found, missing := "", apierr.ReasonCommitNotInBranch
	if req.GetTag() != "" {
		missing = apierr.ReasonTagNotFound
		found = repo.Git("for-each-ref", "--format=%(objectname)", "refs/tags/"+req.GetTag())
	} else {
		for hash := range strings.Lines(repo.Git("rev-list", req.GetBranch())) {
			if strings.HasPrefix(hash, req.GetCommit()) {
				found = strings.TrimSpace(hash)
			}
		}
	}
	if found == "" {
		return nil, apierr.New(missing, "Bitbucket has it not.")
	}
	return &repov1.ResolveCommitResponse{Commit: &repov1.BranchCommit{Hash: found, Message: "As Bitbucket tells it", AuthorName: "Jane"}}, nil
}

type fakeWebhook struct {
	webhookv1.UnimplementedWebhookServiceServer
	w *world
}

var errRESTDown = apierr.New(apierr.ReasonBitbucketUnavailable, "Bitbucket does not answer.")

var errDown = apierr.New(apierr.ReasonServiceUnavailable, "webhook is away")

func (h fakeWebhook) SetWatches(_ context.Context, req *webhookv1.SetWatchesRequest) (*webhookv1.SetWatchesResponse, error) {
	var telling func()
	h.w.do(func() { telling, h.w.told = h.w.telling, append(h.w.told, len(req.GetWatches())) })
	if telling != nil {
		telling()
	}
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if h.w.webhookDown {
		return nil, errDown
	}
	if old := h.w.watches[req.GetRepository()]; old != nil && old.GetVersion() >= req.GetVersion() {
		return &webhookv1.SetWatchesResponse{Webhook: h.w.hooks[req.GetRepository()]}, nil
	}
	h.w.watches[req.GetRepository()] = req
	hook := &webhookv1.Webhook{Id: "hook-1", Workspace: req.GetWorkspace(), Repository: req.GetRepository(), State: webhookv1.Webhook_ACTIVE, Url: "https://devpilot.test/webhooks/bitbucket/hook-1"}
	if h.w.hookReason != "" {
		hook.State, hook.Reason, hook.Message = webhookv1.Webhook_NOT_REGISTERED, h.w.hookReason, "Ask an admin."
	}
	h.w.hooks[req.GetRepository()] = hook
	return &webhookv1.SetWatchesResponse{Webhook: hook}, nil
}

func (h fakeWebhook) BatchGetWebhooks(ctx context.Context, req *webhookv1.BatchGetWebhooksRequest) (*webhookv1.BatchGetWebhooksResponse, error) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if id, ok := identity.FromContext(ctx); ok && id.Subject != "" { // else the reconciler asks
		h.w.batches++
	}
	if h.w.webhookDown {
		return nil, errDown
	}
	resp := &webhookv1.BatchGetWebhooksResponse{}
	for _, id := range req.GetRepositories() {
		if hook := h.w.hooks[id]; hook != nil {
			resp.Webhooks = append(resp.Webhooks, hook)
		}
	}
	return resp, nil
}

func (h fakeWebhook) RecordOutcomes(_ context.Context, req *webhookv1.RecordOutcomesRequest) (*webhookv1.RecordOutcomesResponse, error) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if h.w.webhookDown {
		return nil, errDown
	}
	h.w.outcomes = append(h.w.outcomes, req.GetOutcomes()...)
	return &webhookv1.RecordOutcomesResponse{}, nil
}

func (h fakeWebhook) ListDeliveries(_ context.Context, req *webhookv1.ListDeliveriesRequest) (*webhookv1.ListDeliveriesResponse, error) {
	return &webhookv1.ListDeliveriesResponse{Deliveries: []*webhookv1.Delivery{{
		Webhook: req.GetWebhook(), Number: 3, Outcomes: []*webhookv1.DeliveryOutcome{{App: "web"}, {App: "other"}, {Message: "for nobody"}},
	}}, NextPageToken: "more"}, nil
}

// serve serves a fake to the deployer.
func serve(t testing.TB, keys *identity.Keys, service string, register func(grpc.ServiceRegistrar), methods ...string) *grpc.ClientConn {
	policy := rpc.Policy{}
	for _, m := range methods {
		policy[m] = rpc.Rule{Callers: []string{"deployer"}}
	}
	return testkit.ServeGRPC(t, testkit.GRPCConfig{Service: service, Keys: keys, Policy: policy, Register: register}).Dial("deployer")
}

// everyMethod names all methods of a service.
func everyMethod(d grpc.ServiceDesc) []string {
	var out []string
	for _, m := range d.Methods {
		out = append(out, "/"+d.ServiceName+"/"+m.MethodName)
	}
	for _, s := range d.Streams {
		out = append(out, "/"+d.ServiceName+"/"+s.StreamName)
	}
	return out
}

func fakeClients(t testing.TB, keys *identity.Keys, w *world) (authv1.AuthServiceClient, repov1.RepoServiceClient, webhookv1.WebhookServiceClient) {
	auth := serve(t, keys, "auth", func(r grpc.ServiceRegistrar) { authv1.RegisterAuthServiceServer(r, fakeAuth{w: w}) }, everyMethod(authv1.AuthService_ServiceDesc)...)
	repo := serve(t, keys, "repo", func(r grpc.ServiceRegistrar) { repov1.RegisterRepoServiceServer(r, fakeRepo{w: w}) }, everyMethod(repov1.RepoService_ServiceDesc)...)
	hook := serve(t, keys, "webhook", func(r grpc.ServiceRegistrar) { webhookv1.RegisterWebhookServiceServer(r, fakeWebhook{w: w}) }, everyMethod(webhookv1.WebhookService_ServiceDesc)...)
	return authv1.NewAuthServiceClient(auth), repov1.NewRepoServiceClient(repo), webhookv1.NewWebhookServiceClient(hook)
}

func contains(list []string, part string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.Contains(s, part) })
}
