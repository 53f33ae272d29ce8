package app

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

const (
	// whyApps is how many apps of a workspace one question reads.
	whyApps = 2_000
	// whyRuns is how many deployments of a commit are told of each app.
	whyRuns = 5
)

// question is a question about one push, and what was found about it.
type question struct {
	s          *Service
	req        *deployerv1.ExplainRequest
	r          *reading
	parts      []*parts // the apps that it may be about
	connection *storev1.Connection
	hooks      []*webhookv1.Webhook // of the same repositories
	limits     []string
	pages      int // that may still be read

	repository string // where it was pushed; empty while not known
	ref        lane.Ref
	hash       string
	number     int32 // the deployment that is asked about; 0 for none
	deliveries []*webhookv1.Delivery
	// silent is set where webhook's log did not answer: that there is no delivery is then not known.
	silent bool
	// refused and repaired are set of a push that polling found: a request of its time was refused, or the
	// webhook was put right after it.
	refused, repaired bool
	// unknown is set of a branch of which nobody can say whether its newest commit is known.
	unknown *deployerv1.Sync
}

// Explain answers why a push did or did not deploy.
func (s *Service) Explain(ctx context.Context, req *deployerv1.ExplainRequest) (*deployerv1.Explanation, error) {
	if err := checkQuestion(req); err != nil {
		return nil, err
	}
	q := &question{s: s, req: req, pages: whyPages}
	if err := q.read(ctx); err != nil {
		return nil, err
	}
	var err error
	switch {
	case req.GetDeployment() != 0:
		err = q.ofDeployment(ctx)
	case req.GetDelivery() != "":
		err = q.ofDelivery(ctx)
	case req.GetBranch() != "":
		err = q.ofBranch(ctx)
	default:
		err = q.ofCommit(ctx)
	}
	if err != nil {
		return nil, err
	}
	return q.answer(ctx)
}

var (
	prefixPattern   = regexp.MustCompile(`^[0-9a-fA-F]{4,40}$`)
	deliveryPattern = regexp.MustCompile(`^([A-Za-z0-9_-]{1,128}/)?[1-9][0-9]{0,8}$`)
	requestPattern  = regexp.MustCompile(`^\{?[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\}?$`)
)

// checkQuestion refuses what is not exactly one question.
func checkQuestion(req *deployerv1.ExplainRequest) error {
	var faults apierr.Faults
	asked := 0
	one := func(field string, is bool) {
		if !is {
			return
		}
		if asked++; asked > 1 {
			faults.Add(field, "ask about one of commit, delivery, deployment and branch")
		}
	}
	one("commit", req.GetCommit() != "")
	one("delivery", req.GetDelivery() != "")
	one("deployment", req.GetDeployment() != 0)
	one("branch", req.GetBranch() != "")
	if asked == 0 {
		faults.Add("commit", "ask about a commit, a delivery, a deployment or a branch")
	}
	if c := req.GetCommit(); c != "" && !prefixPattern.MatchString(c) {
		faults.Add("commit", "give the hash or how it begins: 4 to 40 digits and letters a to f")
	}
	if d := req.GetDelivery(); d != "" && !deliveryPattern.MatchString(d) && !requestPattern.MatchString(d) {
		faults.Add("delivery", "give a delivery's number, <webhook>/<number>, or the request id that Bitbucket shows")
	} else if deliveryPattern.MatchString(d) && !strings.Contains(d, "/") && req.GetApp() == "" && req.GetRepository() == "" {
		faults.Add("delivery", "deliveries are numbered by webhook: name the app or the repository, or give <webhook>/<number>")
	}
	if req.GetDeployment() < 0 {
		faults.Add("deployment", "deployments are numbered from 1")
	} else if req.GetDeployment() > 0 && req.GetApp() == "" {
		faults.Add("app", "deployments are numbered by app: name the app")
	}
	if b := req.GetBranch(); b != "" && (rules.IsGlob(b) || rules.CheckBranch(b) != nil) {
		faults.Add("branch", "give the name of one branch")
	}
	return faults.Err()
}

// read reads the apps that the question may be about, and their webhooks.
func (q *question) read(ctx context.Context) error {
	workspace := q.req.GetWorkspace()
	r, err := q.s.history(ctx)
	if err != nil {
		return err
	}
	q.r = r
	prefix := workspace + "."
	keys, err := r.apps.Keys(ctx, prefix, prefix, whyApps+1)
	if err != nil && !isAbsent(err) {
		return fmt.Errorf("app: list workspace %s: %w", workspace, err)
	}
	if len(keys) > whyApps {
		keys = keys[:whyApps]
		q.limits = append(q.limits, "Only the first 2,000 apps of the workspace were looked at. Name the app or the repository.")
	}
	if named := prefix + q.req.GetApp(); q.req.GetApp() != "" && !slices.Contains(keys, named) {
		keys = append(keys, named)
	}
	all := make([]*parts, len(keys))
	err = each(len(keys), r.apps.FromCopy() && r.lanes.FromCopy(), func(i int) (err error) {
		all[i], err = q.s.parts(ctx, r, lane.Key{Workspace: workspace, App: strings.TrimPrefix(keys[i], prefix)})
		return err
	})
	if err != nil {
		return err
	}
	q.parts = slices.DeleteFunc(all, func(p *parts) bool { return p == nil })
	if q.connection, err = q.s.cfg.Connections.Shown(ctx, workspace); err != nil {
		return err
	}
	q.readHooks(ctx)
	return q.narrow()
}

// readHooks reads the workspace's webhooks, those that are left too: their deliveries outlive apps.
func (q *question) readHooks(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	hooks, more, err := q.s.cfg.Deliveries.All(ctx, q.req.GetWorkspace())
	if err != nil {
		q.unanswered(ctx, err)
	}
	q.hooks = hooks
	if more {
		q.limits = append(q.limits, fmt.Sprintf("Only the first %d webhooks of the workspace were looked at. Name the app or the repository.", pagetoken.MaxPage))
	}
}

// unanswered notes that webhook's log did not answer: the rest is told all the same.
func (q *question) unanswered(ctx context.Context, err error) {
	q.s.cfg.Logger.InfoContext(ctx, "why: told without the log of deliveries", logs.Err(err))
	q.silent = true
	q.limit("The log of deliveries does not answer now, so that what came from Bitbucket is not told. Ask again in a moment.")
}

// narrow leaves only what belongs to the named repository, or the named app's.
func (q *question) narrow() error {
	repository := q.req.GetRepository()
	if p := q.part(q.req.GetApp()); p != nil {
		if repository != "" && repository != p.app.GetRepository() {
			var faults apierr.Faults
			faults.Add("repository", "the app deploys another repository")
			return faults.Err()
		}
		repository = p.app.GetRepository()
	}
	if repository == "" {
		return nil
	}
	q.of(repository)
	if len(q.parts) == 0 && len(q.hooks) == 0 && !q.silent {
		return apierr.New(apierr.ReasonRepositoryNotFound, "No app of the workspace deploys this repository, and none did as far as is known.")
	}
	return nil
}

// of leaves only what belongs to a repository.
func (q *question) of(repository string) {
	q.repository = repository
	q.parts = slices.DeleteFunc(q.parts, func(p *parts) bool { return p.app.GetRepository() != repository })
	q.hooks = slices.DeleteFunc(q.hooks, func(h *webhookv1.Webhook) bool { return h.GetRepository() != repository })
}

func (q *question) part(app string) *parts {
	for _, p := range q.parts {
		if p.app.GetId() == app {
			return p
		}
	}
	return nil
}

// name is the repository's name for people.
func (q *question) name() string {
	for _, p := range q.parts {
		if n := p.index.GetFullName(); n != "" && p.app.GetRepository() == q.repository {
			return n
		}
	}
	for _, h := range q.hooks {
		if h.GetRepository() == q.repository && h.GetRepositoryFullName() != "" {
			return h.GetRepositoryFullName()
		}
	}
	return q.repository
}

// hook is the repository's webhook; nil when it has none.
func (q *question) hook() *webhookv1.Webhook {
	for _, h := range q.hooks {
		if h.GetRepository() == q.repository {
			return h
		}
	}
	return nil
}
