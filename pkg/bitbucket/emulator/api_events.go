package emulator

import (
	"slices"
	"strings"
)

// hookEvent is one line of the catalogue of repository events (BITBUCKET.md#event-keys).
type hookEvent struct{ key, category, label string }

var hookEvents = []hookEvent{
	{"repo:push", "Repository", "Push"},
	{"repo:fork", "Repository", "Fork"},
	{"repo:updated", "Repository", "Updated"},
	{"repo:transfer", "Repository", "Transfer accepted"},
	{"repo:created", "Repository", "Created"},
	{"repo:deleted", "Repository", "Deleted"},
	{"repo:imported", "Repository", "Imported"},
	{"repo:commit_comment_created", "Repository", "Commit comment created"},
	{"repo:commit_status_created", "Repository", "Build status created"},
	{"repo:commit_status_updated", "Repository", "Build status updated"},
	{"project:updated", "Project", "Updated"},
	{"pipeline:span_created", "Pipeline", "Span created"},
	{"pullrequest:created", "Pull Request", "Created"},
	{"pullrequest:updated", "Pull Request", "Updated"},
	{"pullrequest:push", "Pull Request", "Push"},
	{"pullrequest:approved", "Pull Request", "Approved"},
	{"pullrequest:unapproved", "Pull Request", "Approval removed"},
	{"pullrequest:fulfilled", "Pull Request", "Merged"},
	{"pullrequest:rejected", "Pull Request", "Declined"},
	{"pullrequest:changes_request_created", "Pull Request", "Changes request created"},
	{"pullrequest:changes_request_removed", "Pull Request", "Changes request removed"},
	{"pullrequest:comment_created", "Pull Request", "Comment created"},
	{"pullrequest:comment_updated", "Pull Request", "Comment updated"},
	{"pullrequest:comment_deleted", "Pull Request", "Comment deleted"},
	{"pullrequest:comment_resolved", "Pull Request", "Comment resolved"},
	{"pullrequest:comment_reopened", "Pull Request", "Comment reopened"},
}

func knownEvent(key string) bool {
	return slices.ContainsFunc(hookEvents, func(e hookEvent) bool { return e.key == key })
}

func (c *call) listHookEvents() response {
	return paginate(c, hookEvents, func(event hookEvent) any {
		return obj{
			"event": event.key, "category": event.category, "label": event.label,
			"description": "Whenever: " + event.category + " " + strings.ToLower(event.label),
		}
	})
}
