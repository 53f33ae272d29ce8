package app

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// scanCopies is how many records a filtered page of a workspace examines at most where their summaries are
// in memory.
const scanCopies = 100_000

// Place is that of a deployment in the history of its workspace, which is ordered by the time at which
// deployments were made, newest first, and those of the same time by app.
type Place struct {
	Made   time.Time
	App    string
	Number int32
}

// String writes a place down for ParsePlace.
func (p Place) String() string { return fmt.Sprintf("%d %d %s", p.Made.UnixNano(), p.Number, p.App) }

// ParsePlace reads a place; nil of an empty text.
func ParsePlace(text string) (*Place, error) {
	if text == "" {
		return nil, nil
	}
	var nanos int64
	p := &Place{}
	if _, err := fmt.Sscanf(text, "%d %d %s", &nanos, &p.Number, &p.App); err != nil {
		return nil, fmt.Errorf("app: read a place in the history: %w", err)
	}
	p.Made = time.Unix(0, nanos)
	return p, nil
}

// before orders places: newest first.
func (p Place) before(q Place) bool {
	return cmp.Or(q.Made.Compare(p.Made), strings.Compare(p.App, q.App), cmp.Compare(q.Number, p.Number)) < 0
}

// WorkspaceDeployments returns a page of the history of all apps of a workspace, newest first, beginning after
// a place (nil: at the newest), and the place to go on after, nil at the end. An app costs a summary or two
// besides what is shown of it, and one whose lane is not in memory three records.
func (s *Service) WorkspaceDeployments(ctx context.Context, workspace string, f Filter, after *Place, size int) (page []*deployerv1.Deployment, next *Place, err error) {
	r, err := s.history(ctx)
	if err != nil {
		return nil, nil, err
	}
	prefix := workspace + "."
	keys, err := r.apps.Keys(ctx, prefix, "", 0)
	if err != nil && !isAbsent(err) {
		return nil, nil, fmt.Errorf("app: list workspace %s: %w", workspace, err)
	}
	keys = slices.DeleteFunc(keys, func(key string) bool { return !f.Apps.Has(strings.TrimPrefix(key, prefix)) })
	memory := r.apps.FromCopy() && r.lanes.FromCopy() && r.deployments.FromCopy()
	heads := make([]*past, len(keys))
	err = each(len(keys), memory, func(i int) error {
		p := &past{s: s, reading: r, key: lane.Key{Workspace: workspace, App: strings.TrimPrefix(keys[i], prefix)}, filter: f}
		there, err := p.begin(ctx, after)
		if there {
			heads[i] = p
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	var all pasts
	for _, p := range heads {
		if p != nil {
			all = append(all, p)
		}
	}
	most := scan
	if memory {
		most = scanCopies
	}
	return all.page(ctx, size, most)
}

// pasts are the histories of apps, as a heap: the one whose next deployment is the newest comes first.
type pasts []*past

// Len is of heap.Interface, as the four after it.
func (h pasts) Len() int           { return len(h) }
func (h pasts) Less(i, j int) bool { return h[i].at.before(h[j].at) }
func (h pasts) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push is never called: no history comes later.
func (h *pasts) Push(any) {}

// Pop takes the last one away.
func (h *pasts) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// page takes the newest ones that match, until there are enough of them or most were examined.
func (h pasts) page(ctx context.Context, size, most int) (page []*deployerv1.Deployment, next *Place, err error) {
	heap.Init(&h)
	for examined := 0; len(h) > 0; examined++ {
		if len(page) == size || examined == most {
			return page, next, nil
		}
		p := h[0]
		at := p.at
		next = &at
		d, err := p.take(ctx)
		if err != nil {
			return nil, nil, err
		}
		if d != nil {
			page = append(page, d)
		}
		there, err := p.below(ctx, at.Number-1)
		if err != nil {
			return nil, nil, err
		}
		if there {
			heap.Fix(&h, 0)
		} else {
			heap.Pop(&h)
		}
	}
	return page, nil, nil
}

// past is what is still to be looked at of one app's history.
type past struct {
	s       *Service
	reading *reading
	key     lane.Key
	filter  Filter
	at      Place // of the next deployment

	app  *storev1.App // read when it is needed
	lane *storev1.Lane
}

// begin finds the app's newest deployment after a place. It is false where there is none.
func (p *past) begin(ctx context.Context, after *Place) (there bool, err error) {
	last, err := p.last(ctx)
	if err != nil || last == 0 {
		return false, err
	}
	if after != nil && after.App == p.key.App {
		last = min(last, after.Number-1)
	} else if after != nil || p.filter.Before != nil {
		// Later numbers are later times, so that the first of the rest is found by halves.
		skipped := sort.Search(int(last), func(i int) bool {
			var found bool
			if found, err = p.below(ctx, last-int32(i)); err != nil || !found { //nolint:gosec // at most last
				return true
			}
			return (after == nil || after.before(p.at)) && (p.filter.Before == nil || p.at.Made.Before(p.filter.Before.AsTime()))
		})
		if err != nil {
			return false, err
		}
		last -= int32(skipped) //nolint:gosec // at most last
	}
	return p.below(ctx, last)
}

// last is the number of the app's last deployment; 0 for none.
func (p *past) last(ctx context.Context) (int32, error) {
	if h, ok := p.known(); ok {
		return h.Last, nil
	}
	err := p.read(ctx)
	return p.lane.GetLastNumber(), err
}

// known is what memory says of the app's history; not ok where it says nothing.
func (p *past) known() (store.History, bool) {
	sum, _ := p.reading.lanes.Summary(p.key.String())
	return store.HistoryOf(sum)
}

// summary is what memory says of a deployment; nil where it says nothing.
func (p *past) summary(n int32) *store.DeploymentSummary {
	sum, _ := p.reading.deployments.Summary(p.key.Record(n))
	d, _ := sum.(*store.DeploymentSummary)
	if h, ok := p.known(); !ok || d != nil && d.Generation != h.Generation {
		return nil
	}
	return d
}

// read reads the app and its lane. An app that is gone by now has no history.
func (p *past) read(ctx context.Context) (err error) {
	if p.lane != nil {
		return nil
	}
	p.lane = &storev1.Lane{}
	a, l, err := p.reading.laneOf(ctx, p.key)
	switch {
	case apierr.Has(err, apierr.ReasonAppNotFound):
		return nil
	case err != nil:
		return err
	}
	p.app, p.lane = a, l
	return nil
}

// below goes on to the newest deployment of at most a number. It is false where there is none, or none that
// is new enough.
func (p *past) below(ctx context.Context, n int32) (there bool, err error) {
	for ; n >= 1; n-- {
		made, ok, err := p.made(ctx, n)
		if err != nil {
			return false, err
		}
		if ok {
			p.at = Place{Made: made, App: p.key.App, Number: n}
			return p.filter.After == nil || !made.Before(p.filter.After.AsTime()), nil
		}
	}
	return false, nil
}

// made is when a deployment was made; not ok where there is none of the number.
func (p *past) made(ctx context.Context, n int32) (made time.Time, ok bool, err error) {
	if d := p.summary(n); d != nil {
		return d.Created, true, nil
	}
	if err := p.read(ctx); err != nil {
		return time.Time{}, false, err
	}
	d, err := p.s.deployment(ctx, p.reading, p.key, p.app, p.lane, n)
	return d.GetCreateTime().AsTime(), d != nil, err
}

// take returns the deployment at the place, nil where it does not match.
func (p *past) take(ctx context.Context) (*deployerv1.Deployment, error) {
	// What was decided and is not written yet stands in the lane.
	if h, ok := p.known(); ok && h.Written {
		if d := p.summary(p.at.Number); d != nil && !p.filter.matches(d) {
			return nil, nil
		}
	}
	if err := p.read(ctx); err != nil {
		return nil, err
	}
	h := pastOf{s: p.s, reading: p.reading, key: p.key, app: p.app, lane: p.lane, filter: p.filter}
	return h.at(ctx, p.at.Number)
}
