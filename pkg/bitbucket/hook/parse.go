package hook

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/internal/author"
	"devpilot.io/bitbucket/pkg/bitbucket/internal/uuid"
)

// ErrNotJSON is returned for a body that is not one JSON object.
var ErrNotJSON = errors.New("hook: the body is not a JSON object")

var errType = errors.New("has an unexpected type")

// NormalizeUUID returns an identifier without braces and in lower case: payloads and the API have
// braces, the X-Hook-UUID header has none.
func NormalizeUUID(s string) string { return uuid.Normalize(s) }

// Parse reads the body of a repo:push delivery, in one pass. It fails only where the body is not one
// JSON object, or its push or repository is of the wrong type; an error is then ErrNotJSON or names the
// part, and never quotes the body. Fields that are missing, null or of the wrong type are left empty; a
// change that cannot be read is counted in Unreadable and costs none of the others.
//
// What is JSON, and which of several values counts, is decided as encoding/json does: the last of
// equal names, whatever the case of their letters; U+FFFD for what is no UTF-8; 10,000 levels.
func Parse(body []byte) (Push, error) {
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return Push{}, ErrNotJSON
	}
	r := newReader(body)
	defer r.free()
	var p Push
	var errPush, errRepository error
	r.object([]string{"push", "repository", "actor"}, func(field int) {
		switch field {
		case 0:
			errPush = r.push(&p)
		case 1:
			p.Repository, errRepository = r.repository()
		case 2:
			p.Actor = r.actor()
		}
	})
	r.end()
	switch {
	case r.err != nil:
		return Push{}, ErrNotJSON
	case errRepository != nil:
		return Push{}, fmt.Errorf("hook: repository: %w", errRepository)
	case errPush != nil:
		return Push{}, fmt.Errorf("hook: push: %w", errPush)
	}
	return p, nil
}

func (r *reader) push(p *Push) error {
	p.Changes, p.Unreadable = nil, 0
	var err error
	if !r.nullOrObject([]string{"changes"}, func(int) {
		p.Changes, p.Unreadable = nil, 0
		i := 0
		if !r.nullOrArray(func() {
			if c, ok := r.change(); ok {
				c.Index = i
				p.Changes = append(p.Changes, c)
			} else {
				p.Unreadable++
			}
			i++
		}) {
			err = errType
		}
	}) {
		return errType
	}
	return err
}

func (r *reader) repository() (Repository, error) {
	var repo Repository
	if !r.nullOrObject([]string{"uuid", "full_name", "name", "is_private", "workspace"}, func(field int) {
		switch field {
		case 0:
			r.text(&repo.UUID)
		case 1:
			r.text(&repo.FullName)
		case 2:
			r.text(&repo.Name)
		case 3:
			r.flag(&repo.Private)
		case 4:
			repo.WorkspaceUUID, repo.WorkspaceSlug = "", ""
			r.object([]string{"uuid", "slug"}, func(field int) { // an odd workspace is a missing one
				r.text([]*string{&repo.WorkspaceUUID, &repo.WorkspaceSlug}[field])
			})
		}
	}) {
		return Repository{}, errType
	}
	repo.UUID, repo.WorkspaceUUID = uuid.Normalize(repo.UUID), uuid.Normalize(repo.WorkspaceUUID)
	return repo, nil
}

// actor reads who pushed; an odd one is a missing one.
func (r *reader) actor() Actor {
	var a Actor
	r.object([]string{"type", "uuid", "account_id", "display_name", "nickname"}, func(field int) {
		r.text([]*string{&a.Kind, &a.UUID, &a.AccountID, &a.DisplayName, &a.Nickname}[field])
	})
	a.UUID = uuid.Normalize(a.UUID)
	return a
}

// change reads one change; false for one that names no ref at all.
func (r *reader) change() (Change, bool) {
	var c Change
	okOld, okNew := true, true
	if !r.object([]string{"old", "new", "created", "closed", "forced", "truncated", "commits"}, func(field int) {
		switch field {
		case 0:
			c.Old, okOld = r.ref()
		case 1:
			c.New, okNew = r.ref()
		case 6:
			c.Commits = nil
			r.array(func() { c.Commits = append(c.Commits, r.commit()) }) // display only
		default:
			r.flag([]*bool{2: &c.Created, 3: &c.Closed, 4: &c.Forced, 5: &c.Truncated}[field])
		}
	}) || !okOld || !okNew || (c.Old == nil && c.New == nil) {
		return Change{}, false
	}
	return c, true
}

// ref reads a ref: nil for null, not ok for one without a name, which must not be taken for a
// deletion.
func (r *reader) ref() (ref *Ref, ok bool) {
	if r.null() {
		return nil, true
	}
	var kind string
	ref = &Ref{}
	r.object([]string{"type", "name", "target"}, func(field int) {
		switch field {
		case 0:
			r.text(&kind)
		case 1:
			r.text(&ref.Name)
		case 2:
			ref.Target = r.commit()
		}
	})
	if ref.Name == "" {
		return nil, false
	}
	if kind == "tag" || kind == "annotated_tag" {
		ref.Kind = Tag
	}
	return ref, true
}

// commit reads a commit; an odd one is an empty one: its Hash says so.
func (r *reader) commit() Commit {
	var c Commit
	var hash, date, raw, user string
	r.object([]string{"hash", "message", "date", "author"}, func(field int) {
		switch field {
		case 0:
			r.text(&hash)
		case 1:
			r.text(&c.Message)
		case 2:
			r.text(&date)
		case 3:
			raw, user = r.author()
		}
	})
	if hash = strings.ToLower(hash); isHash(hash) {
		c.Hash = hash
	}
	if t, err := time.Parse(time.RFC3339Nano, date); err == nil {
		c.Time = t.UTC()
	}
	if c.AuthorName, c.AuthorEmail = author.Split(raw); c.AuthorName == "" {
		c.AuthorName = user
	}
	return c
}

// author reads the line of the commit and the name of the account that it belongs to.
func (r *reader) author() (raw, user string) {
	r.object([]string{"raw", "user"}, func(field int) {
		if field == 0 {
			r.text(&raw)
			return
		}
		user = ""
		r.object([]string{"display_name"}, func(int) { r.text(&user) })
	})
	return raw, user
}

// isHash reports whether s is a full commit hash: it goes into git commands and URLs later on.
func isHash(s string) bool {
	if len(s) != 40 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
