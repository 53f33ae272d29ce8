package bitbucket

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// BuildState is the state of a build status (BITBUCKET.md#build-statuses).
type BuildState string

// The states. There is none for waiting: use BuildInProgress.
const (
	BuildInProgress BuildState = "INPROGRESS"
	BuildSuccessful BuildState = "SUCCESSFUL"
	BuildFailed     BuildState = "FAILED"
	BuildStopped    BuildState = "STOPPED"
)

// MaxStatusKey is the longest key that Bitbucket is known to take.
const MaxStatusKey = 40

// maxStatusText is where name and description are cut, in characters: Bitbucket wants a name below 255.
const maxStatusText = 254

// BuildStatus is what a commit's page shows of a deployment.
type BuildStatus struct {
	Key         string // unique per commit; at most MaxStatusKey characters, see StatusKey
	State       BuildState
	Name        string // cut at 254 characters
	URL         string // absolute; Bitbucket refuses localhost and expands {…} in it
	Description string // cut at 254 characters
	RefName     string // the branch, so that pull requests from it show the status; may be empty
}

// StatusKey makes a key of at most MaxStatusKey characters from parts of any length: the same parts
// give the same key.
func StatusKey(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil))[:MaxStatusKey]
}

// SetBuildStatus creates the status or overwrites the one of the same key; the last write wins. It
// needs the scope `repository`. The hash is the full one.
func (a *Account) SetBuildStatus(ctx context.Context, ref Ref, hash string, s BuildStatus) error {
	if s.Key == "" || len(s.Key) > MaxStatusKey {
		return fmt.Errorf("bitbucket statuses: the key must have 1 to %d characters", MaxStatusKey)
	}
	// Braces would be taken for a template (BITBUCKET.md#build-statuses).
	target := strings.NewReplacer("{", "%7B", "}", "%7D").Replace(s.URL)
	body := struct {
		Key         string     `json:"key"`
		State       BuildState `json:"state"`
		Name        string     `json:"name,omitempty"`
		URL         string     `json:"url"`
		Description string     `json:"description,omitempty"`
		RefName     string     `json:"refname,omitempty"`
	}{s.Key, s.State, cut(s.Name), target, cut(s.Description), s.RefName}
	return a.do(ctx, call{
		method: http.MethodPost, route: RouteStatuses, subject: ref.subject(), object: ref.path(), body: body,
		path: ref.path() + "/commit/" + url.PathEscape(hash) + "/statuses/build",
	})
}

func cut(s string) string {
	if r := []rune(s); len(r) > maxStatusText {
		return string(r[:maxStatusText-1]) + "…"
	}
	return s
}
