package emulator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Control drives an emulator, in this process or another, over its control API. It is safe for concurrent use.
// Every method returns an error that names the command and what the emulator said.
type Control struct {
	base   string
	client *http.Client
}

// NewControl drives the emulator at a base URL such as "http://127.0.0.1:8081", from the same machine.
func NewControl(baseURL string) *Control {
	return &Control{base: strings.TrimRight(baseURL, "/"), client: &http.Client{
		Timeout:       time.Minute,
		Transport:     &http.Transport{Proxy: nil},
		CheckRedirect: noRedirect,
	}}
}

// Control drives this emulator, with or without a server in front of it.
func (e *Emulator) Control() *Control {
	return &Control{base: e.opts.SiteURL, client: &http.Client{Transport: inProcess{e}, CheckRedirect: noRedirect}}
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// inProcess hands requests to the handler as if they came from loopback.
type inProcess struct{ e *Emulator }

// errConnectionCut is what a lost answer looks like without a network.
var errConnectionCut = errors.New("emulator: connection cut")

func (t inProcess) RoundTrip(r *http.Request) (answer *http.Response, err error) {
	defer func() {
		if cut := recover(); cut == http.ErrAbortHandler { //nolint:errorlint // a panic value, never wrapped
			answer, err = nil, errConnectionCut
		} else if cut != nil {
			panic(cut)
		}
	}()
	inner := r.Clone(r.Context())
	inner.RemoteAddr, inner.RequestURI = "127.0.0.1:1", r.URL.RequestURI()
	inner.Host = r.URL.Host
	if inner.Body == nil {
		inner.Body = http.NoBody
	}
	kept := newBuffer()
	t.e.handler.ServeHTTP(kept, inner)
	kept.WriteHeader(http.StatusOK)
	return &http.Response{
		StatusCode: kept.status, Status: strconv.Itoa(kept.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: kept.header, Body: io.NopCloser(bytes.NewReader(kept.body)), ContentLength: int64(len(kept.body)), Request: r,
	}, nil
}

// do sends a command. in and out may be nil.
func (c *Control) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("emulator: %s %s: %w", method, path, err)
		}
		body = bytes.NewReader(raw)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+controlPrefix+path, body)
	if err != nil {
		return fmt.Errorf("emulator: %s %s: %w", method, path, err)
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := c.client.Do(request)
	if err != nil {
		return fmt.Errorf("emulator: %s %s: %w", method, path, err)
	}
	raw, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		return fmt.Errorf("emulator: %s %s: %w", method, path, err)
	}
	if answer.StatusCode >= 300 {
		return fmt.Errorf("emulator: %s %s: %d: %s", method, path, answer.StatusCode, raw)
	}
	if out == nil || len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("emulator: %s %s: %w", method, path, err)
	}
	return nil
}

func repositoryPath(fullName string) string {
	workspace, slug, _ := strings.Cut(fullName, "/")
	return "repositories/" + url.PathEscape(workspace) + "/" + url.PathEscape(slug)
}

// State shows accounts, workspaces, grants, switches and faults.
func (c *Control) State(ctx context.Context) (state State, err error) {
	return state, c.do(ctx, "GET", "state", nil, &state)
}

// Switch reads the switches, lets change alter them, and sets them. Not atomic between two callers.
func (c *Control) Switch(ctx context.Context, change func(*Switches)) error {
	state, err := c.State(ctx)
	if err != nil {
		return err
	}
	change(&state.Switches)
	return c.do(ctx, "PATCH", "switches", state.Switches, nil)
}

// SetLatency delays every answer of the REST API and the token endpoint from now on.
func (c *Control) SetLatency(ctx context.Context, latency time.Duration) error {
	return c.Switch(ctx, func(s *Switches) { s.Latency = latency })
}

// SetScopes ticks exactly these scopes on the consumer; grants made before keep theirs.
func (c *Control) SetScopes(ctx context.Context, scopes ...string) error {
	return c.do(ctx, "PATCH", "consumer", consumerBody{Scopes: scopes}, nil)
}

// SetCallbackURL changes the consumer's callback URL; empty is a consumer without one.
func (c *Control) SetCallbackURL(ctx context.Context, callbackURL string) error {
	return c.do(ctx, "PATCH", "consumer", consumerBody{CallbackURL: &callbackURL}, nil)
}

// SetConsumerSecret changes the consumer's secret, as its owner resets it.
func (c *Control) SetConsumerSecret(ctx context.Context, secret string) error {
	return c.do(ctx, "PATCH", "consumer", consumerBody{Secret: secret}, nil)
}

// AdvanceClock moves the emulator's clock forward, on top of what was moved before.
func (c *Control) AdvanceClock(ctx context.Context, by time.Duration) error {
	return c.do(ctx, "POST", "clock", clockBody{by}, nil)
}

// PutAccount adds or changes an account. Empty fields get values made from the user name.
func (c *Control) PutAccount(ctx context.Context, username string, account Account) (stored Account, err error) {
	return stored, c.do(ctx, "PUT", "accounts/"+url.PathEscape(username), account, &stored)
}

// PutWorkspace adds or replaces a workspace; Members are by user name.
func (c *Control) PutWorkspace(ctx context.Context, slug string, workspace Workspace) (stored Workspace, err error) {
	return stored, c.do(ctx, "PUT", "workspaces/"+url.PathEscape(slug), workspace, &stored)
}

// Repositories lists all repositories.
func (c *Control) Repositories(ctx context.Context) (list []RepositoryState, err error) {
	return list, c.do(ctx, "GET", "repositories", nil, &list)
}

// PutRepository adds or changes "workspace/slug".
func (c *Control) PutRepository(ctx context.Context, fullName string, in RepositoryInput) (stored RepositoryState, err error) {
	return stored, c.do(ctx, "PUT", repositoryPath(fullName), in, &stored)
}

// DeleteRepository deletes a repository with its webhooks and statuses.
func (c *Control) DeleteRepository(ctx context.Context, fullName string) error {
	return c.do(ctx, "DELETE", repositoryPath(fullName), nil, nil)
}

// RenameRepository changes the slug; the old one is 404 from then on.
func (c *Control) RenameRepository(ctx context.Context, fullName, slug string) error {
	return c.do(ctx, "POST", repositoryPath(fullName)+"/rename", renameBody{Slug: slug}, nil)
}

// ReplaceRepository renames a repository and gives its old name to another, new one in the same step. Without
// permissions of its own the new one has those of the old. It gets a history that shares nothing with the old one's if
// its Seed is "stranger".
func (c *Control) ReplaceRepository(ctx context.Context, fullName, slug string, by RepositoryInput) error {
	return c.do(ctx, "POST", repositoryPath(fullName)+"/rename", renameBody{Slug: slug, TakenBy: &by}, nil)
}

// TransferRepository moves a repository to another workspace.
func (c *Control) TransferRepository(ctx context.Context, fullName, workspace string) error {
	return c.do(ctx, "POST", repositoryPath(fullName)+"/rename", renameBody{Workspace: workspace}, nil)
}

// SetPermission gives an account none, read, write or admin on a repository.
func (c *Control) SetPermission(ctx context.Context, fullName, username, permission string) error {
	return c.do(ctx, "PUT", repositoryPath(fullName)+"/permissions/"+url.PathEscape(username), permissionBody{permission}, nil)
}

// Refs maps full ref names to commit hashes.
func (c *Control) Refs(ctx context.Context, fullName string) (refs map[string]string, err error) {
	return refs, c.do(ctx, "GET", repositoryPath(fullName)+"/refs", nil, &refs)
}

// Push changes refs in one push and delivers it. An empty account pushes as the first admin of the repository.
func (c *Control) Push(ctx context.Context, fullName, account string, changes ...RefChange) (results []RefResult, err error) {
	return results, c.do(ctx, "POST", repositoryPath(fullName)+"/pushes", pushBody{account, changes}, &results)
}

// Commit pushes one commit with the files to a branch and returns its hash.
func (c *Control) Commit(ctx context.Context, fullName, branch, message string, files map[string]string) (string, error) {
	results, err := c.Push(ctx, fullName, "", RefChange{Branch: branch, Commits: []CommitSpec{{Message: message, Files: files}}})
	if err != nil {
		return "", err
	}
	if len(results) != 1 {
		return "", fmt.Errorf("emulator: commit to %s %s changed %d refs", fullName, branch, len(results))
	}
	return results[0].New, nil
}

// Deliver sends an event with a raw JSON payload to the repository's webhooks and returns to how many. A nil payload is
// a push without changes.
func (c *Control) Deliver(ctx context.Context, fullName, event string, payload []byte) (int, error) {
	var out countBody
	err := c.do(ctx, "POST", repositoryPath(fullName)+"/deliver", deliverBody{Event: event, Payload: payload}, &out)
	return out.Count, err
}

// Hooks lists the webhooks of a repository.
func (c *Control) Hooks(ctx context.Context, fullName string) (hooks []HookState, err error) {
	return hooks, c.do(ctx, "GET", repositoryPath(fullName)+"/hooks", nil, &hooks)
}

// AddHook adds a webhook as an administrator does by hand. No events means repo:push. It is active.
func (c *Control) AddHook(ctx context.Context, fullName string, hook Hook) (added HookState, err error) {
	if len(hook.Events) == 0 {
		hook.Events = []string{"repo:push"}
	}
	in := hookBody{hook.Description, hook.URL, hook.Secret, true, hook.Events, hook.HistoryEnabled}
	return added, c.do(ctx, "POST", repositoryPath(fullName)+"/hooks", in, &added)
}

// RemoveHook deletes a webhook by its UUID without braces.
func (c *Control) RemoveHook(ctx context.Context, hook string) error {
	return c.do(ctx, "DELETE", "hooks/"+hook, nil, nil)
}

// SetHistory switches a webhook's request log, as the button on the page does.
func (c *Control) SetHistory(ctx context.Context, hook string, enabled bool) error {
	return c.do(ctx, "PUT", "hooks/"+hook+"/history", historyBody{enabled}, nil)
}

// Statuses lists all commit build statuses, last changed last.
func (c *Control) Statuses(ctx context.Context) (list []BuildStatus, err error) {
	return list, c.do(ctx, "GET", "statuses", nil, &list)
}

// Requests lists requests with an id above after whose route contains the text ("" for all), oldest first.
func (c *Control) Requests(ctx context.Context, after int64, route string) (list []RequestRecord, err error) {
	path := "requests?after=" + strconv.FormatInt(after, 10) + "&route=" + url.QueryEscape(route)
	return list, c.do(ctx, "GET", path, nil, &list)
}

// Counters reads the counters.
func (c *Control) Counters(ctx context.Context) (counters Counters, err error) {
	return counters, c.do(ctx, "GET", "counters", nil, &counters)
}

// ResetCounters sets all counters to zero.
func (c *Control) ResetCounters(ctx context.Context) error {
	return c.do(ctx, "DELETE", "counters", nil, nil)
}

// Deliveries lists attempts with an id above after, of one webhook or of all for "", oldest first.
func (c *Control) Deliveries(ctx context.Context, hook string, after int64) (list []Attempt, err error) {
	path := "deliveries?after=" + strconv.FormatInt(after, 10) + "&hook=" + url.QueryEscape(hook)
	return list, c.do(ctx, "GET", path, nil, &list)
}

// WaitIdle returns when no delivery is queued or under way, or with the error of the context.
func (c *Control) WaitIdle(ctx context.Context) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		state, err := c.State(ctx)
		if err != nil || state.Idle {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ResendDelivery sends an attempt again with the next attempt number.
func (c *Control) ResendDelivery(ctx context.Context, attempt int64) error {
	return c.do(ctx, "POST", "deliveries/"+strconv.FormatInt(attempt, 10)+"/resend", nil, nil)
}

// Inject adds a fault and returns its id.
func (c *Control) Inject(ctx context.Context, fault Fault) (string, error) {
	var out faultBody
	err := c.do(ctx, "POST", "faults", fault, &out)
	return out.ID, err
}

// Faults lists the faults that are neither used up nor over.
func (c *Control) Faults(ctx context.Context) (list []Fault, err error) {
	return list, c.do(ctx, "GET", "faults", nil, &list)
}

// RemoveFault removes a fault; ClearFaults removes all.
func (c *Control) RemoveFault(ctx context.Context, id string) error {
	return c.do(ctx, "DELETE", "faults/"+id, nil, nil)
}

// ClearFaults removes all faults.
func (c *Control) ClearFaults(ctx context.Context) error {
	return c.do(ctx, "DELETE", "faults", nil, nil)
}

// IssueTokens makes a grant without the consent page. No scopes means those of the consumer.
func (c *Control) IssueTokens(ctx context.Context, account string, scopes ...string) (pair TokenPair, err error) {
	return pair, c.do(ctx, "POST", "grants", grantBody{account, scopes}, &pair)
}

// RevokeGrant revokes a grant with all its tokens, as the account's owner does in the settings.
func (c *Control) RevokeGrant(ctx context.Context, grant string) error {
	return c.do(ctx, "DELETE", "grants/"+url.PathEscape(grant), nil, nil)
}

// ExpireTokens makes all access tokens of a grant (of all grants for "") expired, and returns how many.
func (c *Control) ExpireTokens(ctx context.Context, grant string) (int, error) {
	var out countBody
	err := c.do(ctx, "POST", "tokens/expire", expireBody{Grant: grant}, &out)
	return out.Count, err
}

// ExpireRefreshTokens does the same to refresh tokens too, as if they had been idle for three months.
func (c *Control) ExpireRefreshTokens(ctx context.Context, grant string) error {
	return c.do(ctx, "POST", "tokens/expire", expireBody{Grant: grant, Refresh: true}, nil)
}

// Consent does what a person does on the consent page: choose the account and press Grant access or Cancel. It returns
// where the browser is sent. An authorize URL that Bitbucket would not redirect from is an error.
func (c *Control) Consent(ctx context.Context, authorizeURL, account string, grant bool) (string, error) {
	action := "grant"
	if !grant {
		action = "cancel"
	}
	form := url.Values{"account": {account}, "action": {action}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, authorizeURL, strings.NewReader(form.Encode()))
	if err != nil {
		return "", fmt.Errorf("emulator: consent: %w", err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := c.client.Do(request)
	if err != nil {
		return "", fmt.Errorf("emulator: consent: %w", err)
	}
	page, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		return "", fmt.Errorf("emulator: consent: %w", err)
	}
	if answer.StatusCode != http.StatusFound {
		_, title, _ := strings.Cut(string(page), "<h1>")
		title, _, _ = strings.Cut(title, "</h1>")
		return "", fmt.Errorf("emulator: consent: %d: %s", answer.StatusCode, title)
	}
	return answer.Header.Get("Location"), nil
}

// CloseIdleConnections lets go of connections to the emulator; not needed for one in this process.
func (c *Control) CloseIdleConnections() { c.client.CloseIdleConnections() }
