package emulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const controlPrefix = "/_emulator/"

// State is what GET /_emulator/state answers.
type State struct {
	SiteURL  string    `json:"site_url"`
	APIURL   string    `json:"api_url"`
	Scenario string    `json:"scenario"`
	Now      time.Time `json:"now"`
	Consumer Consumer  `json:"consumer"`
	Switches Switches  `json:"switches"`
	// LockedOut tells that the token endpoint refuses valid refresh tokens at the moment.
	LockedOut  bool        `json:"locked_out"`
	Accounts   []Account   `json:"accounts"`
	Workspaces []Workspace `json:"workspaces"`
	// Repositories counts them; GET /_emulator/repositories lists them.
	Repositories int     `json:"repositories"`
	Grants       []Grant `json:"grants"`
	Faults       []Fault `json:"faults"`
	// Idle tells that no delivery is queued or under way.
	Idle bool `json:"idle"`
	// Commands are the routes of the control API.
	Commands []string `json:"commands"`
}

// RepositoryState is a repository as the control API shows it.
type RepositoryState struct {
	Repository
	FullName string `json:"full_name"`
}

// HookState is a webhook as the control API shows it: no secret, but whether there is one.
type HookState struct {
	Hook
	FullName  string `json:"full_name"`
	SecretSet bool   `json:"secret_set"`
}

// controlCall is one request of the control API.
type controlCall struct {
	r *http.Request
	p params
}

// input decodes the JSON body; unknown fields are errors, and durations may be texts like "250ms".
func (c *controlCall) input(into any) error {
	raw, err := io.ReadAll(io.LimitReader(c.r.Body, 8<<20))
	if err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil
	}
	if raw, err = durationsToNumbers(raw); err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	return nil
}

func (c *controlCall) fullName() string { return c.p["workspace"] + "/" + c.p["repository"] }

func (c *controlCall) number(name string) int64 {
	number, err := strconv.ParseInt(c.r.URL.Query().Get(name), 10, 64)
	if err != nil {
		return 0
	}
	return number
}

// durationFields are the JSON names of durations anywhere in the control API.
var durationFields = []string{
	"latency", "grace", "idle_expiry", "grant_ttl", "access_ttl", "code_ttl", "lock_out_for", "window", "delay", "by",
	"for", "retry_after", "revoke_access_after",
}

// durationsToNumbers rewrites texts like "10m" in duration fields to nanoseconds, for people with curl.
func durationsToNumbers(raw []byte) ([]byte, error) {
	var value any
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	var walk func(any) error
	walk = func(value any) error {
		switch value := value.(type) {
		case map[string]any:
			for name, child := range value {
				if text, isText := child.(string); isText && slices.Contains(durationFields, name) {
					d, err := time.ParseDuration(text)
					if err != nil {
						return fmt.Errorf("%s: %w", name, err)
					}
					value[name] = int64(d)
				} else if err := walk(child); err != nil {
					return err
				}
			}
		case []any:
			for _, child := range value {
				if err := walk(child); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := walk(value); err != nil {
		return nil, err
	}
	return json.Marshal(value)
}

// newControlHandler serves the control API to loopback peers. A request that came through a proxy, or for a host name
// that is not this machine's, does not count as one.
func (e *Emulator) newControlHandler() http.Handler {
	commands := e.controlCommands()
	var table routes
	for _, command := range commands {
		table.add(route{method: command.method, pattern: controlPrefix + command.pattern})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !e.fromLoopback(r) {
			e.send(w, failure(http.StatusForbidden, "The control API answers to loopback only."))
			return
		}
		rt, p, _ := table.match(r.Method, r.URL.EscapedPath())
		if rt == nil {
			e.send(w, failure(http.StatusNotFound, "There is no such control command; GET /_emulator/state lists them."))
			return
		}
		i := slices.Index(table, rt)
		result, err := commands[i].run(&controlCall{r: r, p: p})
		switch {
		case errors.Is(err, errNotFound):
			e.send(w, failure(http.StatusNotFound, err.Error()))
		case err != nil:
			e.send(w, failure(http.StatusBadRequest, err.Error()))
		case result == nil:
			e.send(w, response{status: http.StatusNoContent})
		default:
			e.send(w, ok(result))
		}
	})
}

func (e *Emulator) fromLoopback(r *http.Request) bool {
	peer, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || !isLoopbackHost(peer) {
		return false
	}
	for _, forwarded := range []string{"X-Forwarded-For", "Forwarded", "X-Real-Ip"} {
		if r.Header.Get(forwarded) != "" {
			return false
		}
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return isLoopbackHost(host) || strings.EqualFold(host, e.site.Hostname())
}

// snapshot copies what State shows.
func (e *Emulator) snapshot() State {
	faults, idle := e.faults.all(), e.deliveries.idle()
	e.mu.RLock()
	defer e.mu.RUnlock()
	s := State{
		SiteURL: e.opts.SiteURL, APIURL: e.opts.SiteURL + "/2.0", Scenario: e.opts.Scenario, Now: e.nowLocked(),
		Consumer: e.consumer, Switches: e.switches, Repositories: len(e.st.repositories), Faults: faults, Idle: idle,
		LockedOut: e.switches.Tokens.LockOut && e.nowLocked().Before(e.st.lockedOutUntil),
		Accounts:  []Account{}, Workspaces: []Workspace{}, Grants: []Grant{},
	}
	for _, account := range e.st.sortedAccounts() {
		s.Accounts = append(s.Accounts, *account)
	}
	for _, ws := range e.st.sortedWorkspaces() {
		s.Workspaces = append(s.Workspaces, *ws)
	}
	for _, grant := range e.st.grants {
		s.Grants = append(s.Grants, *grant)
	}
	slices.SortFunc(s.Grants, func(a, b Grant) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return s
}
