package emulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// hookInput is the body of POST and PUT. Pointers and raw values tell absent from empty (BITBUCKET.md#webhook-fields).
type hookInput struct {
	Description *string         `json:"description"`
	URL         *string         `json:"url"`
	Active      *bool           `json:"active"`
	Events      []string        `json:"events"`
	Secret      json.RawMessage `json:"secret"`
}

// secret returns the new secret, and whether it is to be changed at all: null and "" remove it.
func (in *hookInput) secret() (value string, given, valid bool) {
	if in.Secret == nil {
		return "", false, true
	}
	if bytes.Equal(in.Secret, []byte("null")) {
		return "", true, true
	}
	err := json.Unmarshal(in.Secret, &value)
	return value, true, err == nil && len(value) <= 128
}

// administered finds the repository for webhook operations: its administrators only. Callers hold e.mu.
func (c *call) administered() (*Repository, response, bool) {
	repo, refused, found := c.repositoryLocked()
	if !found {
		return nil, refused, false
	}
	if c.e.permission(c.account, repo) != "admin" {
		return nil, insufficientRights(), false
	}
	return repo, response{}, true
}

// hook finds the webhook of the path. Callers hold e.mu.
func (c *call) hook() (*Repository, *Hook, response, bool) {
	repo, refused, allowed := c.administered()
	if !allowed {
		return nil, nil, refused, false
	}
	id, isBraced := stripBraces(c.p["hook"])
	if hook := c.e.st.hooks[id]; isBraced && hook != nil && hook.Repository == repo.UUID {
		return repo, hook, response{}, true
	}
	return nil, nil, failure(http.StatusNotFound, c.p["hook"]+" is not a valid hook"), false
}

func (c *call) listHooks() response {
	c.e.mu.RLock()
	defer c.e.mu.RUnlock()
	repo, refused, allowed := c.administered()
	if !allowed {
		return refused
	}
	return paginate(c, c.e.st.hooksOf(repo.UUID), func(hook *Hook) any { return c.e.renderHook(repo, hook) })
}

func (c *call) getHook() response {
	c.e.mu.RLock()
	defer c.e.mu.RUnlock()
	repo, hook, refused, found := c.hook()
	if !found {
		return refused
	}
	return ok(c.e.renderHook(repo, hook))
}

func (c *call) createHook() response {
	var in hookInput
	if refused, valid := c.decode(&in); !valid {
		return refused
	}
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	repo, refused, allowed := c.administered()
	if !allowed {
		return refused
	}
	if limit := c.switches.MaxHooks; limit > 0 && len(c.e.st.hooksOf(repo.UUID)) >= limit {
		return failure(http.StatusBadRequest, fmt.Sprintf("A repository can have at most %d webhooks.", limit))
	}
	if refused, valid := c.validateHook(&in); !valid {
		return refused
	}
	hook := &Hook{UUID: newUUID(), Repository: repo.UUID, Active: true}
	if refused, stored := c.e.storeHook(hook, &in); !stored {
		return refused
	}
	answer := response{status: http.StatusCreated, body: c.e.renderHook(repo, hook)}
	return answer.with("Location", c.e.hookLink(repo, hook))
}

// updateHook replaces description, URL, active and events; the secret only if it is given.
func (c *call) updateHook() response {
	var in hookInput
	if refused, valid := c.decode(&in); !valid {
		return refused
	}
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	repo, hook, refused, found := c.hook()
	if !found {
		return refused
	}
	if refused, valid := c.validateHook(&in); !valid {
		return refused
	}
	updated := *hook
	if refused, stored := c.e.storeHook(&updated, &in); !stored {
		return refused
	}
	return ok(c.e.renderHook(repo, &updated))
}

func (c *call) deleteHook() response {
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	_, hook, refused, found := c.hook()
	if !found {
		return refused
	}
	delete(c.e.st.hooks, hook.UUID)
	if err := c.e.store.write(change{bucketHooks, hook.UUID, nil}); err != nil {
		return c.e.internal("webhook not deleted", err)
	}
	return response{status: http.StatusNoContent}
}

// storeHook applies valid input to a new or copied webhook and stores it. Callers hold e.mu for writing.
func (e *Emulator) storeHook(hook *Hook, in *hookInput) (response, bool) {
	hook.URL, hook.Events = *in.URL, slices.Clone(in.Events)
	hook.Description = ""
	if in.Description != nil {
		hook.Description = *in.Description
	}
	if in.Active != nil {
		hook.Active = *in.Active
	}
	if secret, given, _ := in.secret(); given {
		sealed, err := e.store.seal(secret)
		if err != nil {
			return e.internal("webhook secret not sealed", err), false
		}
		hook.Secret, hook.SealedSecret = secret, sealed
	}
	if hook.Sequence == 0 {
		e.st.hookSequence++
		hook.Sequence, hook.CreatedAt = e.st.hookSequence, e.nowLocked()
	}
	e.st.hooks[hook.UUID] = hook
	if err := e.store.write(change{bucketHooks, hook.UUID, hook}); err != nil {
		return e.internal("webhook not stored", err), false
	}
	return response{}, true
}

// validateHook answers invalid input in the style that the switches say (BITBUCKET.md#webhook-errors).
func (c *call) validateHook(in *hookInput) (response, bool) {
	field, problem := c.e.hookProblem(in, c.switches.HookURLs)
	if problem == "" {
		return response{}, true
	}
	var fields any = []string{fmt.Sprintf("Field: {%s} Error: {%s}", field, problem)}
	if c.switches.ObjectHookErrors {
		fields = obj{field: []string{problem}}
	}
	return response{status: http.StatusBadRequest, body: obj{
		"type": "error", "error": obj{"message": "Bad request", "fields": fields},
	}}, false
}

func (e *Emulator) hookProblem(in *hookInput, urls string) (field, problem string) {
	seen := map[string]bool{}
	for _, event := range in.Events {
		if !knownEvent(event) {
			return "events", event + " is not a valid event for a repository."
		}
		if seen[event] {
			return "events", "The events must be unique."
		}
		seen[event] = true
	}
	_, _, validSecret := in.secret()
	switch {
	case in.URL == nil || *in.URL == "":
		return "url", "This field is required."
	case !acceptableHookURL(*in.URL, urls):
		return "url", "Enter a valid URL."
	case len(in.Events) == 0:
		return "events", "Choose at least one event."
	case !validSecret:
		return "secret", "The secret must have at most 128 characters."
	case in.Description != nil && len([]rune(*in.Description)) > 255:
		return "description", "The description must have at most 255 characters."
	}
	return "", ""
}

// acceptableHookURL applies Switches.HookURLs. Names are not resolved: the emulator needs no network.
func acceptableHookURL(raw, policy string) bool {
	target, err := url.Parse(raw)
	if err != nil || (target.Scheme != "http" && target.Scheme != "https") || target.Hostname() == "" || target.User != nil {
		return false
	}
	host := strings.ToLower(target.Hostname())
	if policy == "any" || (policy == "loopback" && isLoopbackHost(host)) {
		return true
	}
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsGlobalUnicast() && !ip.IsPrivate()
	}
	for _, internal := range []string{".local", ".internal", ".localhost", ".localdomain", ".lan"} {
		if strings.HasSuffix(host, internal) {
			return false
		}
	}
	return strings.Contains(host, ".")
}

func (e *Emulator) hookLink(repo *Repository, hook *Hook) string {
	return e.apiURL("/repositories/" + e.st.fullName(repo) + "/hooks/" + pathEscapeBraced(hook.UUID))
}

// renderHook is BITBUCKET.md#webhook-answers: the secret never comes back.
func (e *Emulator) renderHook(repo *Repository, hook *Hook) obj {
	return obj{
		"type": "webhook_subscription", "uuid": braced(hook.UUID), "description": hook.Description, "url": hook.URL,
		"active": hook.Active, "events": slices.Clone(hook.Events), "skip_cert_verification": false,
		"secret_set": hook.Secret != "", "history_enabled": hook.HistoryEnabled, "read_only": false, "source": nil,
		"created_at": hook.CreatedAt.Format("2006-01-02T15:04:05.000000000Z"),
		"subject":    e.renderRepositoryRef(repo),
		"links":      obj{"self": href(e.hookLink(repo, hook))},
	}
}
