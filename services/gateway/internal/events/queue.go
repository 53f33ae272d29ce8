package events

import (
	"context"
	"slices"
	"strings"
	"time"

	"devpilot.io/bitbucket/services/gateway/internal/live"
)

// queue is what a client is to be sent, in order. What waits for its object holds back what comes after it, for no
// longer than Objects waits.
type queue struct {
	objects *Objects
	want    included
	// identify gives the context with today's identity of the reader; false when it may not read any more.
	identify func() (context.Context, bool)
	entries  []entry
}

// entry is a change, or an event of another name.
type entry struct {
	change      Change
	other       []byte
	object, app *reading // nil: none
	until       time.Time
}

// waitsFor is the first reading that the entry waits for; nil when it waits for none.
func (e entry) waitsFor() *reading {
	for _, r := range []*reading{e.object, e.app} {
		if r != nil && !r.over() {
			return r
		}
	}
	return nil
}

func (e entry) bytes() []byte {
	if e.other != nil {
		return e.other
	}
	c := e.change
	if r := e.object; r != nil && r.over() && r.body != nil {
		c.Object, c.ETag = r.body, r.etag
	}
	if r := e.app; r != nil && r.over() && r.body != nil {
		c.App, c.AppETag = r.body, r.etag
	}
	return live.Event(eventID(c.Sequence), nameChange, c.json())
}

// folds tells whether a newer change of the same object is told in the change's place.
func (q *queue) folds(c Change) bool {
	return q.want.object && slices.Contains(KindsWithObject(), c.Kind)
}

// brings tells what a change brings along.
func (q *queue) brings(c Change) (object, app bool) {
	return q.folds(c) && !c.Deleted, q.want.app && c.Kind == kindDeployment && !c.Deleted
}

// missed takes what a client missed: of each object the newest change, of which the newest bring it along.
func (q *queue) missed(list []Change) {
	type object struct{ kind, id string }
	newest := map[object]uint64{}
	for _, c := range list {
		newest[object{c.Kind, c.ID}] = c.Sequence
	}
	list = slices.DeleteFunc(list, func(c Change) bool { return q.folds(c) && newest[object{c.Kind, c.ID}] != c.Sequence })
	for i, c := range list {
		q.add(c, len(list)-i <= maxResumed)
	}
}

// change takes one that came.
func (q *queue) change(c Change) { q.add(c, true) }

func (q *queue) other(data []byte) { q.entries = append(q.entries, entry{other: data}) }

func (q *queue) add(c Change, bring bool) {
	e := entry{change: c}
	object, app := q.brings(c)
	if bring && (object || app) {
		if ctx, ok := q.identify(); ok {
			e.until = time.Now().Add(q.objects.wait)
			if object {
				e.object = q.objects.ask(ctx, c.Kind, c.ID, c.Sequence)
			}
			if app {
				of, _, _ := strings.Cut(c.ID, "/")
				e.app = q.objects.ask(ctx, kindApp, of, c.Sequence)
			}
		}
	}
	// One of the same object that still waits is told with this one, and no later for it.
	if at := slices.IndexFunc(q.entries, func(o entry) bool {
		return o.other == nil && q.folds(c) && o.change.Kind == c.Kind && o.change.ID == c.ID
	}); at >= 0 {
		if before := q.entries[at].until; !before.IsZero() && before.Before(e.until) {
			e.until = before
		}
		q.entries = slices.Delete(q.entries, at, at+1)
	}
	q.entries = append(q.entries, e)
}

// due takes out what is to be sent now.
func (q *queue) due() []byte {
	now := time.Now()
	n := max(0, len(q.entries)-buffer)
	for i, e := range q.entries {
		if e.waitsFor() != nil && !now.Before(e.until) {
			n = max(n, i+1) // it waits no more, nor do those before it
		}
	}
	for n < len(q.entries) && q.entries[n].waitsFor() == nil {
		n++
	}
	var data []byte
	for _, e := range q.entries[:n] {
		data = append(data, e.bytes()...)
	}
	q.entries = slices.Delete(q.entries, 0, n)
	return data
}

// next is what the first entry waits for, and until when the queue waits at all; nil, zero when it is empty.
func (q *queue) next() (<-chan struct{}, time.Time) {
	if len(q.entries) == 0 {
		return nil, time.Time{}
	}
	var until time.Time
	for _, e := range q.entries {
		if e.waitsFor() != nil && (until.IsZero() || e.until.Before(until)) {
			until = e.until
		}
	}
	if r := q.entries[0].waitsFor(); r != nil {
		return r.done, until
	}
	return nil, until
}
