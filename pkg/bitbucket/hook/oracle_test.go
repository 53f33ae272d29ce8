package hook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/internal/author"
	"devpilot.io/bitbucket/pkg/bitbucket/internal/uuid"
)

// parseSlowly says the same as Parse, level by level with encoding/json: what Parse is compared with.
func parseSlowly(body []byte) (Push, error) {
	var top struct {
		Push       json.RawMessage `json:"push"`
		Repository json.RawMessage `json:"repository"`
		Actor      json.RawMessage `json:"actor"`
	}
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return Push{}, ErrNotJSON
	}
	if err := json.Unmarshal(body, &top); err != nil {
		return Push{}, ErrNotJSON
	}
	var repo wireRepository
	if err := optional(top.Repository, &repo); err != nil {
		return Push{}, fmt.Errorf("hook: repository: %w", err)
	}
	var push struct {
		Changes []json.RawMessage `json:"changes"`
	}
	if err := optional(top.Push, &push); err != nil {
		return Push{}, fmt.Errorf("hook: push: %w", err)
	}
	p := Push{Repository: repo.repository(), Actor: parseActor(top.Actor)}
	for i, raw := range push.Changes {
		change, ok := parseChange(raw)
		if !ok {
			p.Unreadable++
			continue
		}
		change.Index = i
		p.Changes = append(p.Changes, change)
	}
	return p, nil
}

// optional decodes a part that may be absent or null. Its error does not quote the payload.
func optional(raw json.RawMessage, into any) error {
	if len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return errType
	}
	return nil
}

// text is a string that forgives other types.
type text string

// UnmarshalJSON implements json.Unmarshaler.
func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*t = text(s)
	}
	return nil
}

// flag is a bool that forgives other types.
type flag bool

// UnmarshalJSON implements json.Unmarshaler.
func (f *flag) UnmarshalJSON(b []byte) error {
	*f = flag(string(b) == "true")
	return nil
}

type wireRepository struct {
	UUID      text            `json:"uuid"`
	FullName  text            `json:"full_name"`
	Name      text            `json:"name"`
	IsPrivate flag            `json:"is_private"`
	Workspace json.RawMessage `json:"workspace"`
}

func (w wireRepository) repository() Repository {
	var ws struct {
		UUID text `json:"uuid"`
		Slug text `json:"slug"`
	}
	_ = optional(w.Workspace, &ws) // an odd workspace is a missing one
	return Repository{
		UUID: uuid.Normalize(string(w.UUID)), FullName: string(w.FullName), Name: string(w.Name), Private: bool(w.IsPrivate),
		WorkspaceUUID: uuid.Normalize(string(ws.UUID)), WorkspaceSlug: string(ws.Slug),
	}
}

func parseActor(raw json.RawMessage) Actor {
	var w struct {
		Type        text `json:"type"`
		UUID        text `json:"uuid"`
		AccountID   text `json:"account_id"`
		DisplayName text `json:"display_name"`
		Nickname    text `json:"nickname"`
	}
	_ = optional(raw, &w) // an odd actor is a missing one
	return Actor{
		Kind: string(w.Type), UUID: uuid.Normalize(string(w.UUID)), AccountID: string(w.AccountID),
		DisplayName: string(w.DisplayName), Nickname: string(w.Nickname),
	}
}

// parseChange reads one change; false for one that names no ref at all.
func parseChange(raw json.RawMessage) (Change, bool) {
	var w struct {
		Old       json.RawMessage `json:"old"`
		New       json.RawMessage `json:"new"`
		Created   flag            `json:"created"`
		Closed    flag            `json:"closed"`
		Forced    flag            `json:"forced"`
		Truncated flag            `json:"truncated"`
		Commits   json.RawMessage `json:"commits"`
	}
	if json.Unmarshal(raw, &w) != nil {
		return Change{}, false
	}
	before, okOld := parseRef(w.Old)
	after, okNew := parseRef(w.New)
	if !okOld || !okNew || (before == nil && after == nil) {
		return Change{}, false
	}
	c := Change{
		Old: before, New: after, Created: bool(w.Created), Closed: bool(w.Closed),
		Forced: bool(w.Forced), Truncated: bool(w.Truncated),
	}
	var commits []json.RawMessage
	_ = optional(w.Commits, &commits) // display only
	for _, one := range commits {
		c.Commits = append(c.Commits, parseCommit(one))
	}
	return c, true
}

// parseRef reads a ref: nil for an absent or null one, not ok for one without a name, which must not
// be taken for a deletion.
func parseRef(raw json.RawMessage) (ref *Ref, ok bool) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, true
	}
	var w struct {
		Type   text            `json:"type"`
		Name   text            `json:"name"`
		Target json.RawMessage `json:"target"`
	}
	if json.Unmarshal(raw, &w) != nil || w.Name == "" {
		return nil, false
	}
	r := &Ref{Kind: Branch, Name: string(w.Name), Target: parseCommit(w.Target)}
	if w.Type == "tag" || w.Type == "annotated_tag" {
		r.Kind = Tag
	}
	return r, true
}

func parseCommit(raw json.RawMessage) Commit {
	var w struct {
		Hash    text            `json:"hash"`
		Message text            `json:"message"`
		Date    text            `json:"date"`
		Author  json.RawMessage `json:"author"`
	}
	_ = optional(raw, &w) // an odd commit is an empty one: its Hash says so
	c := Commit{Message: string(w.Message)}
	if hash := strings.ToLower(string(w.Hash)); isHash(hash) {
		c.Hash = hash
	}
	if t, err := time.Parse(time.RFC3339Nano, string(w.Date)); err == nil {
		c.Time = t.UTC()
	}
	var who struct {
		Raw  text            `json:"raw"`
		User json.RawMessage `json:"user"`
	}
	_ = optional(w.Author, &who)
	c.AuthorName, c.AuthorEmail = author.Split(string(who.Raw))
	if c.AuthorName == "" {
		var user struct {
			DisplayName text `json:"display_name"`
		}
		_ = optional(who.User, &user)
		c.AuthorName = string(user.DisplayName)
	}
	return c
}
