package emulator

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// statusInput is the body of POST and PUT (BITBUCKET.md#build-statuses).
type statusInput struct {
	Key         string  `json:"key"`
	State       string  `json:"state"`
	Name        *string `json:"name"`
	URL         string  `json:"url"`
	Description *string `json:"description"`
	Refname     *string `json:"refname"`
}

var statusStates = []string{"SUCCESSFUL", "FAILED", "INPROGRESS", "STOPPED"}

func statusID(repo, commit, key string) string { return repo + "/" + commit + "/" + key }

// createStatus makes a status (201) or overwrites the one with the same key (200).
func (c *call) createStatus() response {
	repo, at, permission, refused, found := c.commit(false)
	if !found {
		return refused
	}
	var in statusInput
	if refused, valid := c.decode(&in); !valid {
		return refused
	}
	if refused, valid := in.validate(); !valid {
		return refused
	}
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	code := http.StatusOK
	status := c.e.st.statuses[statusID(repo.UUID, at.hash, in.Key)]
	if status == nil {
		code = http.StatusCreated
		status = &BuildStatus{Repository: repo.UUID, Commit: at.hash, Key: in.Key, Creator: c.account.UUID, CreatedOn: c.e.nowLocked()}
	}
	if refused, allowed := c.overwritable(status, permission); !allowed {
		return refused
	}
	return c.storeStatus(code, *status, &in)
}

// updateStatus is PUT: anything but the key, and only of a status that exists.
func (c *call) updateStatus() response {
	repo, at, permission, refused, found := c.commit(false)
	if !found {
		return refused
	}
	var in statusInput
	if refused, valid := c.decode(&in); !valid {
		return refused
	}
	in.Key = c.p["key"]
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	status := c.e.st.statuses[statusID(repo.UUID, at.hash, in.Key)]
	if status == nil {
		return statusNotFound(in.Key)
	}
	if refused, allowed := c.overwritable(status, permission); !allowed {
		return refused
	}
	setDefault(&in.State, status.State)
	setDefault(&in.URL, status.URL)
	if refused, valid := in.validate(); !valid {
		return refused
	}
	return c.storeStatus(http.StatusOK, *status, &in)
}

// storeStatus writes a changed copy, so that readers of the old one are not disturbed. Callers hold e.mu for writing.
func (c *call) storeStatus(code int, status BuildStatus, in *statusInput) response {
	status.State, status.URL, status.UpdatedOn = in.State, in.URL, c.e.nowLocked()
	for field, value := range map[*string]*string{&status.Name: in.Name, &status.Description: in.Description, &status.Refname: in.Refname} {
		if value != nil {
			*field = *value
		}
	}
	setDefault(&status.Name, status.Key)
	id := statusID(status.Repository, status.Commit, status.Key)
	c.e.st.statuses[id] = &status
	if err := c.e.store.write(change{bucketStatuses, id, &status}); err != nil {
		return c.e.internal("build status not stored", err)
	}
	return response{status: code, body: c.e.renderStatus(&status)}
}

// overwritable tells that the caller made the status or administers the repository (BITBUCKET.md#build-statuses). Writing new ones needs
// no more than reading.
func (c *call) overwritable(status *BuildStatus, permission string) (response, bool) {
	if status.Creator == c.account.UUID || permission == "admin" {
		return response{}, true
	}
	return failure(http.StatusForbidden, "Only the creator of a build status or an administrator of the repository may overwrite it."), false
}

// Most characters of a status's texts (BITBUCKET.md#build-statuses).
const (
	maxStatusKey         = 40
	maxStatusName        = 254
	maxStatusURL         = 449
	maxStatusDescription = 255
)

// validate answers in the older style: fields is an object. A text that is too long is named in the message too.
func (in *statusInput) validate() (response, bool) {
	problems, message := obj{}, ""
	tooLong := func(name, value string, most int) {
		if length := len([]rune(value)); length > most {
			text := fmt.Sprintf("Ensure this value has at most %d characters (it has %d).", most, length)
			problems[name], message = []string{text}, cmp.Or(message, name+": "+text)
		}
	}
	if in.Key == "" {
		problems["key"] = []string{"required key not provided"}
	}
	if !slices.Contains(statusStates, in.State) {
		problems["state"] = []string{"Select a valid choice."}
	}
	target, err := url.Parse(in.URL)
	if err != nil || (target.Scheme != "http" && target.Scheme != "https") || target.Hostname() == "" ||
		strings.EqualFold(target.Hostname(), "localhost") {
		problems["url"] = []string{"Enter a valid URL."}
	}
	tooLong("key", in.Key, maxStatusKey)
	tooLong("url", in.URL, maxStatusURL)
	if in.Name != nil {
		tooLong("name", *in.Name, maxStatusName)
	}
	if in.Description != nil {
		tooLong("description", *in.Description, maxStatusDescription)
	}
	if len(problems) == 0 {
		return response{}, true
	}
	return response{status: http.StatusBadRequest, body: obj{
		"type": "error", "error": obj{"message": cmp.Or(message, "Bad request"), "fields": problems},
	}}, false
}

func statusNotFound(key string) response {
	return failure(http.StatusNotFound, "The commit status "+key+" does not exist.")
}

func (c *call) getStatus() response {
	repo, at, _, refused, found := c.commit(true)
	if !found {
		return refused
	}
	c.e.mu.RLock()
	defer c.e.mu.RUnlock()
	status := c.e.st.statuses[statusID(repo.UUID, at.hash, c.p["key"])]
	if status == nil {
		return statusNotFound(c.p["key"])
	}
	return ok(c.e.renderStatus(status))
}

func (c *call) listStatuses() response {
	repo, at, _, refused, found := c.commit(true)
	if !found {
		return refused
	}
	c.e.mu.RLock()
	defer c.e.mu.RUnlock()
	var list []*BuildStatus
	refname := c.query.Get("refname")
	for _, status := range c.e.st.statuses {
		if status.Repository == repo.UUID && status.Commit == at.hash && (refname == "" || status.Refname == refname) {
			list = append(list, status)
		}
	}
	slices.SortFunc(list, func(a, b *BuildStatus) int {
		return cmp.Or(a.CreatedOn.Compare(b.CreatedOn), cmp.Compare(a.Key, b.Key))
	})
	list, refused, valid := filterAndSort(c, list, func(status *BuildStatus, field string) (any, bool) {
		switch field {
		case "created_on":
			return status.CreatedOn, true
		case "updated_on":
			return status.UpdatedOn, true
		case "key":
			return status.Key, true
		case "state":
			return status.State, true
		default:
			return nil, false
		}
	})
	if !valid {
		return refused
	}
	return paginate(c, list, func(status *BuildStatus) any { return c.e.renderStatus(status) })
}

// renderStatus is the body of BITBUCKET.md#build-statuses. Callers hold e.mu.
func (e *Emulator) renderStatus(status *BuildStatus) obj {
	repo := e.st.repositories[status.Repository]
	if repo == nil {
		return obj{}
	}
	link := e.commitLink(repo, status.Commit)
	var refname any
	if status.Refname != "" {
		refname = status.Refname
	}
	return obj{
		"type": "build", "key": status.Key, "state": status.State, "name": status.Name, "description": status.Description,
		"url": status.URL, "refname": refname, "created_on": isoTime(status.CreatedOn), "updated_on": isoTime(status.UpdatedOn),
		"commit": obj{"type": "commit", "hash": status.Commit, "links": obj{
			"self": href(link), "html": href(e.commitHTML(repo, status.Commit)),
		}},
		"repository": e.renderRepositoryRef(repo),
		"links":      obj{"self": href(link + "/statuses/build/" + url.PathEscape(status.Key)), "commit": href(link)},
	}
}
