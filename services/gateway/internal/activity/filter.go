package activity

import (
	"strings"
	"time"

	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

// outOfOrder is how much older than its neighbours a record may be: replicas number their records when
// they write them, which may be after some tries.
const outOfOrder = time.Hour

// Filter says which records are asked for. What is not set lets all through.
type Filter struct {
	Actor  string // a part of the name, in capitals or not
	Action string // an action such as app.create, or the kind before the dot
	Target string // a part of what it was done to, such as app "web"
	After  time.Time
	Before time.Time
}

func (f Filter) matches(a *gatewaystorev1.Activity) bool {
	at := a.GetTime().AsTime()
	switch {
	case !strings.Contains(strings.ToLower(a.GetActorLabel()), strings.ToLower(f.Actor)):
		return false
	case f.Action != "" && a.GetAction() != f.Action && !strings.HasPrefix(a.GetAction(), f.Action+"."):
		return false
	case !strings.Contains(a.GetTarget(), f.Target):
		return false
	case at.Before(f.After):
		return false
	}
	return f.Before.IsZero() || at.Before(f.Before)
}

// isOver tells that this record and all with smaller numbers are too old.
func (f Filter) isOver(a *gatewaystorev1.Activity) bool {
	return !f.After.IsZero() && a.GetTime().AsTime().Before(f.After.Add(-outOfOrder))
}
