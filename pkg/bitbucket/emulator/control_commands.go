package emulator

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// controlCommand is one route of the control API. run returns what to answer; nil answers 204.
type controlCommand struct {
	method, pattern string
	run             func(*controlCall) (any, error)
}

// Bodies of the control API.
type (
	permissionBody struct {
		Permission string `json:"permission"`
	}
	renameBody struct {
		Slug      string `json:"slug"`
		Workspace string `json:"workspace"`
		// TakenBy makes another repository of the old name in the same step. It gets the permissions of the old one
		// unless it names its own.
		TakenBy *RepositoryInput `json:"taken_by,omitempty"`
	}
	pushBody struct {
		Account string      `json:"account"`
		Changes []RefChange `json:"changes"`
	}
	deliverBody struct {
		Event   string          `json:"event"`
		Payload json.RawMessage `json:"payload,omitempty"`
		// Padding repeats a character in a field "padding", to make payloads of any size.
		Padding int `json:"padding"`
	}
	hookBody struct {
		Description    string   `json:"description"`
		URL            string   `json:"url"`
		Secret         string   `json:"secret"`
		Active         bool     `json:"active"`
		Events         []string `json:"events"`
		HistoryEnabled bool     `json:"history_enabled"`
	}
	historyBody struct {
		Enabled bool `json:"enabled"`
	}
	expireBody struct {
		Grant   string `json:"grant"`
		Refresh bool   `json:"refresh"`
	}
	grantBody struct {
		Account string   `json:"account"`
		Scopes  []string `json:"scopes"`
	}
	consumerBody struct {
		CallbackURL *string  `json:"callback_url"`
		Secret      string   `json:"secret"`
		Scopes      []string `json:"scopes"`
	}
	clockBody struct {
		By time.Duration `json:"by"`
	}
	faultBody struct {
		ID string `json:"id"`
	}
	countBody struct {
		Count int `json:"count"`
	}
)

func (e *Emulator) controlCommands() []controlCommand {
	var commands []controlCommand
	add := func(method, pattern string, run func(*controlCall) (any, error)) {
		commands = append(commands, controlCommand{method, pattern, run})
	}
	add("GET", "state", func(*controlCall) (any, error) {
		s := e.snapshot()
		for _, command := range commands {
			s.Commands = append(s.Commands, command.method+" "+controlPrefix+command.pattern)
		}
		return s, nil
	})
	e.addWorldCommands(add)
	e.addRepositoryCommands(add)
	e.addHookCommands(add)
	e.addTrafficCommands(add)
	e.addTokenCommands(add)
	return commands
}

type adder func(method, pattern string, run func(*controlCall) (any, error))

// addWorldCommands are about switches, clock, accounts and workspaces.
func (e *Emulator) addWorldCommands(add adder) {
	add("PATCH", "switches", func(c *controlCall) (any, error) { return e.patchSwitches(c) })
	add("PATCH", "consumer", func(c *controlCall) (any, error) { return e.patchConsumer(c) })
	add("POST", "clock", func(c *controlCall) (any, error) {
		var in clockBody
		if err := c.input(&in); err != nil {
			return nil, err
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.advanced += in.By
		return nil, nil // 204
	})
	add("PUT", "accounts/{account}", func(c *controlCall) (any, error) {
		var in Account
		if err := c.input(&in); err != nil {
			return nil, err
		}
		return e.putAccount(c.p["account"], in)
	})
	add("PUT", "workspaces/{workspace}", func(c *controlCall) (any, error) {
		var in Workspace
		if err := c.input(&in); err != nil {
			return nil, err
		}
		return e.putWorkspace(c.p["workspace"], in)
	})
}

// patchSwitches sets the switches that the body names and leaves the others.
func (e *Emulator) patchSwitches(c *controlCall) (any, error) {
	e.mu.RLock()
	switches := e.switches
	e.mu.RUnlock()
	if err := c.input(&switches); err != nil {
		return nil, err
	}
	if err := switches.Tokens.validate(); err != nil {
		return nil, err
	}
	if !slices.Contains([]string{"public", "loopback", "any"}, switches.HookURLs) {
		return nil, fmt.Errorf("hook_urls %q is none of public, loopback, any", switches.HookURLs)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !switches.Tokens.LockOut || switches.Tokens.LockOut != e.switches.Tokens.LockOut {
		e.st.lockedOutUntil = time.Time{}
	}
	if switches.RateLimit != e.switches.RateLimit {
		e.limiter.reset()
	}
	e.switches = switches
	return switches, nil
}

func (e *Emulator) patchConsumer(c *controlCall) (any, error) {
	var in consumerBody
	if err := c.input(&in); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if in.CallbackURL != nil {
		e.consumer.CallbackURL = *in.CallbackURL
	}
	if in.Secret != "" {
		e.consumer.Secret = in.Secret
	}
	if in.Scopes != nil {
		e.consumer.Scopes = in.Scopes
	}
	return e.consumer, nil
}

// addRepositoryCommands are about repositories and pushes.
func (e *Emulator) addRepositoryCommands(add adder) {
	const one = "repositories/{workspace}/{repository}"
	add("GET", "repositories", func(*controlCall) (any, error) { return e.repositoryStates(), nil })
	add("PUT", one, func(c *controlCall) (any, error) {
		var in RepositoryInput
		if err := c.input(&in); err != nil {
			return nil, err
		}
		repo, err := e.putRepository(c.p["workspace"], c.p["repository"], in)
		return RepositoryState{repo, c.fullName()}, err
	})
	add("DELETE", one, func(c *controlCall) (any, error) { return nil, e.deleteRepository(c.fullName()) })
	add("POST", one+"/rename", func(c *controlCall) (any, error) {
		var in renameBody
		if err := c.input(&in); err != nil {
			return nil, err
		}
		return nil, e.renameRepository(c.fullName(), in)
	})
	add("PUT", one+"/permissions/{account}", func(c *controlCall) (any, error) {
		var in permissionBody
		if err := c.input(&in); err != nil {
			return nil, err
		}
		return nil, e.setPermission(c.fullName(), c.p["account"], in.Permission)
	})
	add("GET", one+"/refs", func(c *controlCall) (any, error) {
		repo, err := e.findRepository(c.fullName())
		if err != nil {
			return nil, err
		}
		_, refs, err := e.opened(c.r.Context(), &repo)
		heads := map[string]string{}
		for name, at := range refs {
			heads[name] = at.commit
		}
		return heads, err
	})
	add("POST", one+"/pushes", func(c *controlCall) (any, error) {
		var in pushBody
		if err := c.input(&in); err != nil {
			return nil, err
		}
		return e.push(c.r.Context(), c.fullName(), in.Account, in.Changes)
	})
	add("POST", one+"/deliver", func(c *controlCall) (any, error) { return e.deliverRaw(c) })
}

// addHookCommands are about webhooks and build statuses.
func (e *Emulator) addHookCommands(add adder) {
	const one = "repositories/{workspace}/{repository}"
	add("GET", one+"/hooks", func(c *controlCall) (any, error) {
		repo, err := e.findRepository(c.fullName())
		if err != nil {
			return nil, err
		}
		return e.hookStates(repo.UUID), nil
	})
	add("POST", one+"/hooks", func(c *controlCall) (any, error) {
		var in hookBody
		if err := c.input(&in); err != nil {
			return nil, err
		}
		repo, err := e.findRepository(c.fullName())
		if err != nil {
			return nil, err
		}
		hook, err := e.addHook(repo.UUID, Hook{
			Description: in.Description, URL: in.URL, Secret: in.Secret, Active: in.Active, Events: in.Events, HistoryEnabled: in.HistoryEnabled,
		})
		return hookState(&hook), err
	})
	add("PUT", "hooks/{hook}/history", func(c *controlCall) (any, error) {
		var in historyBody
		if err := c.input(&in); err != nil {
			return nil, err
		}
		return nil, e.changeHook(c.p["hook"], func(hook *Hook) { hook.HistoryEnabled = in.Enabled })
	})
	add("DELETE", "hooks/{hook}", func(c *controlCall) (any, error) { return nil, e.removeHook(c.p["hook"]) })
	add("GET", "statuses", func(*controlCall) (any, error) {
		e.mu.RLock()
		defer e.mu.RUnlock()
		list := []BuildStatus{}
		for _, status := range e.st.statuses {
			list = append(list, *status)
		}
		slices.SortFunc(list, func(a, b BuildStatus) int { return a.UpdatedOn.Compare(b.UpdatedOn) })
		return list, nil
	})
}

func (e *Emulator) repositoryStates() []RepositoryState {
	e.mu.RLock()
	defer e.mu.RUnlock()
	list := make([]RepositoryState, 0, len(e.st.repositories))
	for _, repo := range e.st.repositories {
		list = append(list, RepositoryState{*repo, e.st.fullName(repo)})
	}
	slices.SortFunc(list, func(a, b RepositoryState) int { return strings.Compare(a.FullName, b.FullName) })
	return list
}

func hookState(hook *Hook) HookState {
	state := HookState{Hook: *hook, SecretSet: hook.Secret != ""}
	state.Secret, state.SealedSecret = "", nil
	return state
}

func (e *Emulator) hookStates(repo string) []HookState {
	e.mu.RLock()
	defer e.mu.RUnlock()
	list := []HookState{}
	for _, hook := range e.st.hooksOf(repo) {
		list = append(list, hookState(hook))
	}
	return list
}

// deliverRaw sends a body as it is to the repository's webhooks. Without a payload it is a push without changes.
func (e *Emulator) deliverRaw(c *controlCall) (any, error) {
	var in deliverBody
	if err := c.input(&in); err != nil {
		return nil, err
	}
	repo, err := e.findRepository(c.fullName())
	if err != nil {
		return nil, err
	}
	setDefault(&in.Event, "repo:push")
	body := []byte(in.Payload)
	if len(body) == 0 {
		e.mu.RLock()
		payload := e.pushPayload(&repo, e.st.firstAdmin(&repo), nil, nil)
		e.mu.RUnlock()
		if in.Padding > 0 {
			payload["padding"] = strings.Repeat("x", in.Padding)
		}
		if body, err = compactJSON(payload); err != nil {
			return nil, err
		}
	}
	return countBody{e.deliver(repo.UUID, in.Event, body, nil)}, nil
}

// addTrafficCommands are about requests, counters, deliveries and faults.
func (e *Emulator) addTrafficCommands(add adder) {
	add("GET", "requests", func(c *controlCall) (any, error) {
		return e.journal.since(c.number("after"), c.r.URL.Query().Get("route")), nil
	})
	add("DELETE", "requests", func(*controlCall) (any, error) { e.journal.clear(); return nil, nil }) // 204
	add("GET", "counters", func(*controlCall) (any, error) { return e.journal.snapshot(), nil })
	add("DELETE", "counters", func(*controlCall) (any, error) { e.journal.resetCounters(); return nil, nil }) // 204
	add("GET", "deliveries", func(c *controlCall) (any, error) {
		return e.deliveries.list(c.r.URL.Query().Get("hook"), c.number("after")), nil
	})
	add("DELETE", "deliveries", func(*controlCall) (any, error) { e.deliveries.clear(); return nil, nil }) // 204
	add("POST", "deliveries/{attempt}/resend", func(c *controlCall) (any, error) {
		var id int64
		if _, err := fmt.Sscan(c.p["attempt"], &id); err != nil {
			return nil, fmt.Errorf("attempt %q is not a number", c.p["attempt"])
		}
		return nil, e.deliveries.resend(id)
	})
	add("GET", "faults", func(*controlCall) (any, error) { return e.faults.all(), nil })
	add("POST", "faults", func(c *controlCall) (any, error) {
		var in Fault
		if err := c.input(&in); err != nil {
			return nil, err
		}
		id, err := e.inject(c.r.Context(), in)
		return faultBody{id}, err
	})
	add("DELETE", "faults", func(*controlCall) (any, error) { e.faults.remove(""); return nil, nil }) // 204
	add("DELETE", "faults/{fault}", func(c *controlCall) (any, error) {
		if !e.faults.remove(c.p["fault"]) {
			return nil, fmt.Errorf("%w: fault %q", errNotFound, c.p["fault"])
		}
		return nil, nil // 204
	})
}

// addTokenCommands are about grants and tokens.
func (e *Emulator) addTokenCommands(add adder) {
	add("POST", "grants", func(c *controlCall) (any, error) {
		var in grantBody
		if err := c.input(&in); err != nil {
			return nil, err
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		account := e.st.accountByName(in.Account)
		if account == nil {
			return nil, fmt.Errorf("%w: account %q", errNotFound, in.Account)
		}
		if in.Scopes == nil {
			in.Scopes = e.consumer.Scopes
		}
		return e.newGrant(account.UUID, in.Scopes)
	})
	add("DELETE", "grants/{grant}", func(c *controlCall) (any, error) {
		if !e.revokeGrant(c.p["grant"]) {
			return nil, fmt.Errorf("%w: grant %q", errNotFound, c.p["grant"])
		}
		return nil, nil // 204
	})
	add("POST", "tokens/expire", func(c *controlCall) (any, error) {
		var in expireBody
		if err := c.input(&in); err != nil {
			return nil, err
		}
		count, err := e.expireTokens(in.Grant, in.Refresh)
		return countBody{count}, err
	})
}
