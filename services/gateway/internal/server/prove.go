package server

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	"devpilot.io/bitbucket/pkg/when"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

const (
	// proveEvery is the least time between two proofs of a workspace: each costs calls of Bitbucket's REST API.
	proveEvery = 30 * time.Second
	// proveTime bounds a proof; what has not answered by then has failed.
	proveTime = 25 * time.Second
	// provedRepositories bounds how many repositories are asked about: three calls of the REST API each.
	provedRepositories = 10
	// proveParallel bounds how many are asked about at a time.
	proveParallel = 4
	// defaultServer is the server of apps that name none.
	defaultServer = "default"
	statusName    = "commit status" // the check that writes one
)

// proofLimit lets one proof of a workspace through at a time.
type proofLimit struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// take returns how long to wait; 0 lets the caller through.
func (l *proofLimit) take(workspace string, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w, at := range l.last {
		if now.Sub(at) >= proveEvery {
			delete(l.last, w)
		}
	}
	if at, found := l.last[workspace]; found {
		return proveEvery - now.Sub(at)
	}
	if l.last == nil {
		l.last = map[string]time.Time{}
	}
	l.last[workspace] = now
	return 0
}

func took(began time.Time, c *gatewayv1.ProofCheck) *gatewayv1.ProofCheck {
	c.DurationMillis = int32(time.Since(began).Milliseconds())
	return c
}

func passed(name, message string) *gatewayv1.ProofCheck {
	return &gatewayv1.ProofCheck{Name: name, State: gatewayv1.ProofCheck_PASSED, Message: message}
}

func failed(name, message, remedy string) *gatewayv1.ProofCheck {
	return &gatewayv1.ProofCheck{Name: name, State: gatewayv1.ProofCheck_FAILED, Message: message, Remedy: remedy}
}

func skipped(name, why string) *gatewayv1.ProofCheck {
	return &gatewayv1.ProofCheck{Name: name, State: gatewayv1.ProofCheck_SKIPPED, Message: why}
}

// failedWith is a check that an error answered: in its own words, with its reason's remedy.
func failedWith(name string, err error) *gatewayv1.ProofCheck {
	e := apierr.From(err)
	row, _ := apierr.Lookup(e.Reason())
	return failed(name, e.Message(), row.Remedy)
}

// connection checks the account, the callback URL, the scopes, and that Bitbucket takes the token.
func (p *proof) connection(ctx context.Context) checks {
	began := time.Now()
	i, err := p.integration(ctx)
	if err != nil {
		return checks{took(began, failedWith("connection", err))}
	}
	switch i.GetState() {
	case authv1.Integration_NOT_CONNECTED, authv1.Integration_STATE_UNSPECIFIED:
		return checks{
			took(began, failed("connection", "Bitbucket is not connected.", "An owner or admin connects Bitbucket under Integrations.")),
			skipped("callback", "Nobody has come back from Bitbucket yet. The OAuth consumer needs this callback URL: "+i.GetSetup().GetCallbackUrl()),
			skipped("scopes", "Bitbucket is not connected."), skipped("token", "Bitbucket is not connected."),
		}
	case authv1.Integration_RECONNECT_REQUIRED, authv1.Integration_REFRESH_FAILING, authv1.Integration_CONNECTED:
	}
	token := p.token(ctx)
	// Only the use of a token shows that it was revoked: the connection is judged by what it is after that.
	began = time.Now()
	if i, err = p.integration(ctx); err != nil {
		return checks{took(began, failedWith("connection", err))}
	}
	connection := passed("connection", fmt.Sprintf("Connected as %s.", i.GetAccount().GetLabel()))
	if i.GetState() != authv1.Integration_CONNECTED {
		connection = broken(i)
	}
	return checks{took(began, connection), p.callback(i), scopes(i), token}
}

func (p *proof) integration(ctx context.Context) (*authv1.Integration, error) {
	resp, err := p.cfg.Auth.GetIntegration(ctx, &authv1.GetIntegrationRequest{Workspace: p.workspace})
	return resp.GetIntegration(), err
}

// broken says what the last refresh of a connection was refused for, and what mends that.
func broken(i *authv1.Integration) *gatewayv1.ProofCheck {
	row, known := apierr.Lookup(apierr.Reason(i.GetLastError().GetReason()))
	if !known {
		row, _ = apierr.Lookup(apierr.ReasonReconnectRequired)
	}
	return failed("connection", cmp.Or(i.GetLastError().GetMessage(), "Bitbucket does not renew the connection's token."), row.Remedy)
}

// callback holds the callback URL against the public URL: that Bitbucket sends browsers back to it, the connect
// itself showed.
func (p *proof) callback(i *authv1.Integration) *gatewayv1.ProofCheck {
	url := i.GetSetup().GetCallbackUrl()
	if !strings.HasPrefix(url, p.cfg.PublicURL+"/") {
		return failed("callback", fmt.Sprintf("The callback URL %s is not below the public URL %s.", url, p.cfg.PublicURL), "The operator sets the same DEVPILOT_PUBLIC_URL for auth and gateway.")
	}
	return passed("callback", fmt.Sprintf("Bitbucket last sent a browser back at %s; a new connect uses %s.", when.UTC(i.GetConnectTime().AsTime()), url))
}

func scopes(i *authv1.Integration) *gatewayv1.ProofCheck {
	if missing := i.GetMissingScopes(); len(missing) > 0 {
		return failed("scopes", "The account did not grant: "+strings.Join(missing, ", ")+".", "Tick them in the OAuth consumer at Bitbucket and connect again.")
	}
	return passed("scopes", "Granted: "+strings.Join(i.GetSetup().GetRequiredScopes(), ", ")+".")
}

// token asks Bitbucket's REST API with the token of today.
func (p *proof) token(ctx context.Context) *gatewayv1.ProofCheck {
	began := time.Now()
	resp, err := p.cfg.Repo.ListBitbucketWorkspaces(ctx, &repov1.ListBitbucketWorkspacesRequest{Workspace: p.workspace})
	if err != nil {
		return took(began, failedWith("token", err))
	}
	return took(began, passed("token", fmt.Sprintf("Bitbucket's REST API takes the token; the account belongs to %d Bitbucket workspaces.", len(resp.GetBitbucketWorkspaces()))))
}

// delivery checks the way from outside to our webhooks, and the clock.
func (p *proof) delivery(ctx context.Context) checks {
	began := time.Now()
	resp, err := p.cfg.Webhook.ProveDelivery(ctx, &webhookv1.ProveDeliveryRequest{Workspace: p.workspace})
	if err != nil {
		return checks{took(began, failedWith("delivery", err)), skipped("clock", "Not asked: the webhook service does not answer.")}
	}
	var d *gatewayv1.ProofCheck
	switch {
	case resp.GetSkipped() != "":
		d = skipped("delivery", resp.GetSkipped())
	case resp.GetVerified():
		d = passed("delivery", fmt.Sprintf("A signed delivery to ourselves through %s arrived and was verified; it was not routed.", resp.GetPublicUrl()))
	default:
		d = failed("delivery", resp.GetTrouble(), "Check DEVPILOT_PUBLIC_URL and that the proxy before Devpilot passes POST /webhooks/bitbucket/… on unchanged.")
	}
	return checks{took(began, d), clockCheck(resp)}
}

func clockCheck(resp *webhookv1.ProveDeliveryResponse) *gatewayv1.ProofCheck {
	if resp.GetBitbucketTime() == nil {
		return failed("clock", resp.GetClockTrouble(), "Check that this machine reaches Bitbucket.")
	}
	skew := resp.GetOwnTime().AsTime().Sub(resp.GetBitbucketTime().AsTime()).Round(time.Second)
	if skew.Abs() > bitbucket.MaxSkew {
		side := "ahead of"
		if skew < 0 {
			side = "behind"
		}
		return failed("clock", fmt.Sprintf("This machine's clock is %s %s Bitbucket's.", skew.Abs(), side), "Set this machine's clock, best by NTP.")
	}
	return passed("clock", fmt.Sprintf("This machine's clock and Bitbucket's differ by no more than %s.", max(skew.Abs(), time.Second)))
}

// repositories checks, for each repository in use, the account's right and git.
func (p *proof) repositories(ctx context.Context, show func(checks)) checks {
	began := time.Now()
	list, err := p.apps()
	if err != nil {
		return checks{took(began, failedWith("repositories", err))}
	}
	apps := perRepository(list.GetApps())
	if len(apps) == 0 {
		return checks{skipped("repositories", "There is no app yet, so there is no repository to check.")}
	}
	rest := len(apps) - provedRepositories
	apps = apps[:min(len(apps), provedRepositories)]
	all := checks{}
	for _, a := range apps {
		all = append(all, running("admin "+a.GetRepositoryFullName()), running("git "+a.GetRepositoryFullName()))
	}
	var mu sync.Mutex
	ended := func(i int, c *gatewayv1.ProofCheck) {
		mu.Lock()
		defer mu.Unlock()
		all[i] = c
		show(slices.Clone(all))
	}
	show(slices.Clone(all))
	g := errgroup.Group{}
	g.SetLimit(proveParallel)
	for i, a := range apps {
		g.Go(func() error {
			for j, check := range []func(context.Context, *deployerv1.App) *gatewayv1.ProofCheck{p.right, p.git} {
				if excluded(a) {
					ended(2*i+j, skipped(all[2*i+j].GetName(), "An admin narrowed this workspace to other Bitbucket workspaces: nothing is deployed from it."))
				} else {
					ended(2*i+j, check(ctx, a))
				}
			}
			return nil
		})
	}
	_ = g.Wait() // checks do not fail: they say what does
	if rest > 0 || list.GetNextPageToken() != "" {
		all = append(all, skipped("other repositories", fmt.Sprintf("The first %d repositories were checked; the others are not asked about, to spare Bitbucket's limit.", len(apps))))
	}
	return all
}

// perRepository is an app of each repository: one that deploys on pushes, where there is one, for it asks the most
// of the account.
func perRepository(list []*deployerv1.App) (apps []*deployerv1.App) {
	at := map[string]int{}
	for _, a := range list {
		i, found := at[a.GetRepository()]
		switch {
		case !found:
			at[a.GetRepository()] = len(apps)
			apps = append(apps, a)
		case a.GetAutoDeploy() && !apps[i].GetAutoDeploy():
			apps[i] = a
		}
	}
	return apps
}

// excluded tells whether an admin narrowed the workspace away from an app's repository.
func excluded(a *deployerv1.App) bool {
	return slices.ContainsFunc(a.GetWarnings(), func(w *deployerv1.Warning) bool { return w.GetReason() == string(apierr.ReasonWorkspaceExcluded) })
}

func (p *proof) right(ctx context.Context, a *deployerv1.App) *gatewayv1.ProofCheck {
	began, name := time.Now(), "admin "+a.GetRepositoryFullName()
	resp, err := p.cfg.Repo.GetRepository(ctx, &repov1.GetRepositoryRequest{Workspace: p.workspace, Repository: a.GetRepository()})
	switch {
	case err != nil:
		return took(began, failedWith(name, err))
	case resp.GetRepository().GetPermission() == repov1.Repository_ADMIN:
		return took(began, passed(name, "The account is an admin of it: Devpilot can register its webhook."))
	case a.GetAutoDeploy() && a.GetWebhook().GetState() == webhookv1.Webhook_MANUAL.String():
		return took(began, passed(name, "The account is no admin of it; the webhook was added by hand."))
	case !a.GetAutoDeploy():
		return took(began, skipped(name, "The account is no admin of it, which auto-deploy would need; it is off."))
	}
	row, _ := apierr.Lookup(apierr.ReasonNotRepositoryAdmin)
	return took(began, failed(name, "The account is no admin of it: Devpilot cannot register its webhook.", row.Remedy))
}

func (p *proof) git(ctx context.Context, a *deployerv1.App) *gatewayv1.ProofCheck {
	began, name := time.Now(), "git "+a.GetRepositoryFullName()
	resp, err := p.cfg.Deployer.ProveGit(ctx, &deployerv1.ProveGitRequest{Workspace: p.workspace, App: a.GetId()})
	if err != nil {
		return took(began, failedWith(name, err))
	}
	return took(began, passed(name, fmt.Sprintf("git lists %d branches with today's token.", resp.GetBranches())))
}

// disk checks, for each server that apps are on, how much room it has.
func (p *proof) disk(ctx context.Context) checks {
	began := time.Now()
	apps, err := p.apps()
	if err != nil {
		return checks{took(began, failedWith("disk", err))}
	}
	used := map[string]bool{}
	for _, a := range apps.GetApps() {
		used[cmp.Or(a.GetServer(), defaultServer)] = true
	}
	if len(used) == 0 {
		used[defaultServer] = true
	}
	list, err := p.cfg.Deployer.ListServers(ctx, &deployerv1.ListServersRequest{PageSize: pagetoken.MaxPage})
	if err != nil {
		return checks{took(began, failedWith("disk", err))}
	}
	workers := map[string][]*deployerv1.Worker{}
	for _, s := range list.GetServers() {
		workers[s.GetId()] = s.GetWorkers()
	}
	var all checks
	for _, id := range slices.Sorted(maps.Keys(used)) {
		all = append(all, took(began, room(id, workers[id])))
	}
	return all
}

// room is what a server's workers say of its disk, which they share.
func room(server string, workers []*deployerv1.Worker) *gatewayv1.ProofCheck {
	name := "disk " + server
	if len(workers) == 0 {
		return failed(name, fmt.Sprintf("No worker of server %s has answered lately: its deployments wait.", server), "Start a worker of that server, or look at its log.")
	}
	w := slices.MaxFunc(workers, func(a, b *deployerv1.Worker) int {
		return a.GetLastSeenTime().AsTime().Compare(b.GetLastSeenTime().AsTime())
	})
	switch {
	case w.DiskFreeMib == nil || w.DiskReserveMib == nil:
		return skipped(name, fmt.Sprintf("The worker of server %s does not say how much room it has.", server))
	case w.GetDiskFreeMib() < w.GetDiskReserveMib():
		return failed(name, fmt.Sprintf("Server %s has %d MiB left, and %d MiB are to stay free: deployments wait.", server, w.GetDiskFreeMib(), w.GetDiskReserveMib()),
			"Make room on that server's disk; deployments then go on by themselves.")
	}
	return passed(name, fmt.Sprintf("Server %s has %d MiB left; %d MiB are to stay free.", server, w.GetDiskFreeMib(), w.GetDiskReserveMib()))
}

// status writes a commit status where that was asked for: it shows at Bitbucket.
func (p *proof) status(ctx context.Context) checks {
	if !p.writeStatus {
		return checks{skipped(statusName, "Not written: it shows at a commit on Bitbucket, so it has to be asked for.")}
	}
	began := time.Now()
	apps, err := p.apps()
	if err != nil {
		return checks{took(began, failedWith(statusName, err))}
	}
	i := slices.IndexFunc(apps.GetApps(), func(a *deployerv1.App) bool { return a.GetLive() != nil && a.GetCommitStatus() && !excluded(a) })
	if i < 0 {
		return checks{skipped(statusName, "No app that shows its deployments at Bitbucket has deployed yet, so there is no commit to write to.")}
	}
	resp, err := p.cfg.Deployer.ProveStatus(ctx, &deployerv1.ProveStatusRequest{Workspace: p.workspace, App: apps.GetApps()[i].GetId()})
	switch {
	case apierr.Has(err, apierr.ReasonAccessRestricted): // of a call, not of git: it is about the right to write
		return checks{took(began, failed(statusName, apierr.From(err).Message(), "Give the connected account write permission on the repository at Bitbucket, or switch the commit status off in its apps."))}
	case err != nil:
		return checks{took(began, failedWith(statusName, err))}
	case resp.GetSkipped() != "":
		return checks{skipped(statusName, resp.GetSkipped())}
	}
	return checks{took(began, passed(statusName, fmt.Sprintf("Written to commit %.7s of %s, where it shows as Devpilot: connection.", resp.GetCommit(), resp.GetRepositoryFullName())))}
}
