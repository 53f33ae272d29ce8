package bitbucket

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"devpilot.io/bitbucket/pkg/seal"
)

// EventPush is the event key of pushes (BITBUCKET.md#event-keys).
const EventPush = "repo:push"

// Hook is a webhook subscription on a repository (BITBUCKET.md#webhook-answers).
type Hook struct {
	UUID           string // normalised
	Description    string
	URL            string
	Active         bool
	Events         []string // in no particular order
	SecretSet      bool     // some secret is set; which one cannot be known
	HistoryEnabled bool     // Bitbucket keeps the request log
	ReadOnly       bool
	CreatedAt      time.Time
}

// HookInput is what a create or an update sends. An update is a full replacement of all but the
// secret (BITBUCKET.md#webhook-fields).
type HookInput struct {
	Description string
	URL         string
	Active      bool
	Events      []string
	Secret      seal.Secret // 1 to 128 characters; zero leaves it out: none on create, unchanged on update
}

type wireHook struct {
	UUID           string   `json:"uuid"`
	Description    string   `json:"description"`
	URL            string   `json:"url"`
	Active         bool     `json:"active"`
	Events         []string `json:"events"`
	SecretSet      bool     `json:"secret_set"`
	HistoryEnabled bool     `json:"history_enabled"`
	ReadOnly       bool     `json:"read_only"` // may be null
	CreatedAt      wireTime `json:"created_at"`
}

// UnmarshalJSON implements json.Unmarshaler. What is odd about a hook is left out: it then does not look
// as it should, and is written anew. Skipping it would make another one of the same URL.
func (w *wireHook) UnmarshalJSON(b []byte) error {
	type plain wireHook
	err := json.Unmarshal(b, (*plain)(w))
	var odd *json.UnmarshalTypeError
	if errors.As(err, &odd) && w.UUID != "" {
		return nil
	}
	return err
}

func (w wireHook) hook() Hook {
	return Hook{
		UUID: NormalizeUUID(w.UUID), Description: w.Description, URL: w.URL, Active: w.Active, Events: w.Events,
		SecretSet: w.SecretSet, HistoryEnabled: w.HistoryEnabled, ReadOnly: w.ReadOnly, CreatedAt: time.Time(w.CreatedAt),
	}
}

// wireHookInput is the request body. The secret is the one place where a Secret is put on the wire
// as text.
type wireHookInput struct {
	Description string   `json:"description"`
	URL         string   `json:"url"`
	Active      bool     `json:"active"`
	Events      []string `json:"events"`
	Secret      *string  `json:"secret,omitempty"`
}

func (in HookInput) wire() wireHookInput {
	w := wireHookInput{Description: in.Description, URL: in.URL, Active: in.Active, Events: in.Events}
	if !in.Secret.IsZero() {
		secret := in.Secret.Reveal()
		w.Secret = &secret
	}
	return w
}

// Hooks lists all webhooks of a repository, whoever made them, all pages. It needs the scope
// `webhook` and an account that is admin of the repository. No sort is sent, as BITBUCKET.md#webhooks
// names none for this listing; one page nearly always holds them all.
func (a *Account) Hooks(ctx context.Context, ref Ref) ([]Hook, error) {
	k := call{route: RouteHooks, subject: ref.subject(), object: ref.path(), path: ref.path() + "/hooks", query: listQuery("", "", "")}
	l, err := list[wireHook](ctx, a, k, 0)
	return mapListing(l, wireHook.hook, func(h Hook) bool { return IsUUID(h.UUID) }).Values, err
}

// CreateHook adds a webhook. Bitbucket does not mind two of the same URL: list first.
// It is not repeated by itself after a network error, as it may have been done.
func (a *Account) CreateHook(ctx context.Context, ref Ref, in HookInput) (Hook, error) {
	return a.writeHook(ctx, http.MethodPost, ref, ref.path()+"/hooks", in)
}

// UpdateHook replaces a webhook's settings; the secret only where the input holds one.
func (a *Account) UpdateHook(ctx context.Context, ref Ref, hookUUID string, in HookInput) (Hook, error) {
	return a.writeHook(ctx, http.MethodPut, ref, ref.path()+"/hooks/"+pathID(hookUUID), in)
}

func (a *Account) writeHook(ctx context.Context, method string, ref Ref, path string, in HookInput) (Hook, error) {
	var w wireHook
	k := call{method: method, route: RouteHooks, subject: ref.subject(), object: ref.path(), path: path, body: in.wire(), out: &w}
	if err := a.do(ctx, k); err != nil {
		return Hook{}, err
	}
	h := w.hook()
	if !IsUUID(h.UUID) {
		return Hook{}, a.client.bad(k, http.StatusOK, "the webhook has no UUID")
	}
	return h, nil
}

// Hook reads one webhook.
func (a *Account) Hook(ctx context.Context, ref Ref, hookUUID string) (Hook, error) {
	var w wireHook
	k := call{method: http.MethodGet, route: RouteHooks, subject: ref.subject(), object: ref.path(), path: ref.path() + "/hooks/" + pathID(hookUUID), out: &w}
	if err := a.do(ctx, k); err != nil {
		return Hook{}, err
	}
	return w.hook(), nil
}

// DeleteHook removes a webhook. One that is not there is an error of KindNotFound, which callers
// take for done (BITBUCKET.md#webhooks).
func (a *Account) DeleteHook(ctx context.Context, ref Ref, hookUUID string) error {
	return a.do(ctx, call{method: http.MethodDelete, route: RouteHooks, subject: ref.subject(), object: ref.path(), path: ref.path() + "/hooks/" + pathID(hookUUID)})
}
