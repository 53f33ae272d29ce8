package app

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/identity"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// Order is that of a list of apps.
type Order string

// The orders, as callers name them.
const (
	ByID         Order = "id"
	ByUpdateTime Order = "updateTime" // the app that was changed last first
	ByDeployTime Order = "deployTime" // the app with the newest deployment first
)

// Orders lists the orders.
func Orders() []Order { return []Order{ByID, ByUpdateTime, ByDeployTime} }

// Question says which apps are listed, and how.
type Question struct {
	Workspace    string
	Apps         identity.Apps // those that the caller is limited to
	Query        string
	Repository   string
	Branch       string
	AutoDeploy   *bool
	LatestStates []deployerv1.Deployment_State
	SyncStates   []deployerv1.Sync_State
	Order        Order
	// Basic leaves out hooks and variables.
	Basic bool
}

// all says that nothing is left out.
func (q Question) all() bool {
	return q.Query == "" && q.Repository == "" && q.Branch == "" && q.AutoDeploy == nil && len(q.LatestStates) == 0 && len(q.SyncStates) == 0
}

// AppPlace is that of an app in a list: by time, the newest first, then by id. By id alone all times are the same.
type AppPlace struct {
	Time int64 // nanoseconds
	ID   string
}

// String writes a place down for ParseAppPlace.
func (p AppPlace) String() string { return fmt.Sprintf("%d %s", p.Time, p.ID) }

// ParseAppPlace reads a place; the first of an empty text.
func ParseAppPlace(text string) (*AppPlace, error) {
	if text == "" {
		return nil, nil
	}
	var p AppPlace
	if _, err := fmt.Sscanf(text, "%d %s", &p.Time, &p.ID); err != nil {
		return nil, fmt.Errorf("app: read a place in the list: %w", err)
	}
	return &p, nil
}

func (p AppPlace) compare(q AppPlace) int {
	return cmp.Or(cmp.Compare(q.Time, p.Time), strings.Compare(p.ID, q.ID))
}

// List is a page of apps.
type List struct {
	Apps  []*deployerv1.App
	Next  *AppPlace // to go on after; nil at the end
	Total int       // on all pages
}

// List returns a page of a workspace's apps after a place. What is asked of all apps, an order or a filter, costs two
// records in memory for each and nothing of the stores; what is shown is read for the page alone. A page may come
// back short while an app is being deleted.
func (s *Service) List(ctx context.Context, q Question, after *AppPlace, size int) (List, error) {
	r, err := s.read(ctx)
	if err != nil {
		return List{}, err
	}
	prefix := q.Workspace + "."
	keys, err := r.apps.Keys(ctx, prefix, "", 0)
	if err != nil && !isAbsent(err) {
		return List{}, fmt.Errorf("app: list workspace %s: %w", q.Workspace, err)
	}
	keys = slices.DeleteFunc(keys, func(key string) bool { return !q.Apps.Has(strings.TrimPrefix(key, prefix)) })
	var out List
	if q.all() && q.Order == ByID {
		out.Total = len(keys)
		keys = slices.DeleteFunc(keys, func(key string) bool { return after != nil && strings.TrimPrefix(key, prefix) <= after.ID })
		if len(keys) > size {
			keys = keys[:size]
			out.Next = &AppPlace{ID: strings.TrimPrefix(keys[size-1], prefix)}
		}
		out.Apps, err = s.views(ctx, r, q.Workspace, keys)
	} else {
		err = s.choose(ctx, r, q, keys, after, size, &out)
	}
	if q.Basic {
		for _, a := range out.Apps {
			a.Hooks, a.Variables = nil, nil
			if a.GetCodeConfig() != nil {
				a.CodeConfig.Hooks = nil
			}
		}
	}
	return out, err
}

// chosen is an app that a question is about, with its place.
type chosen struct {
	*parts
	at AppPlace
}

// choose lists what a question with an order or a filter is about.
func (s *Service) choose(ctx context.Context, r *reading, q Question, keys []string, after *AppPlace, size int, out *List) error {
	all, err := s.partsOf(ctx, r, q.Workspace, keys)
	if err != nil || len(all) == 0 {
		return err
	}
	all = slices.DeleteFunc(all, func(p *parts) bool { return !q.about(p) })
	if err := r.recordsOf(ctx, all); err != nil {
		return err
	}
	connection, err := s.cfg.Connections.Shown(ctx, q.Workspace)
	if err != nil {
		return err
	}
	list := make([]*chosen, len(all))
	err = each(len(all), r.deployments.FromCopy(), func(i int) (err error) {
		list[i], err = s.chosen(ctx, r, q, all[i], connection)
		return err
	})
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(c *chosen) bool { return c == nil })
	out.Total = len(list)
	slices.SortFunc(list, func(a, b *chosen) int { return a.at.compare(b.at) })
	if after != nil {
		list = slices.DeleteFunc(list, func(c *chosen) bool { return c.at.compare(*after) <= 0 })
	}
	if len(list) > size {
		list = list[:size]
		out.Next = &list[size-1].at
	}
	page := make([]*parts, len(list))
	for i, c := range list {
		page[i] = c.parts
	}
	out.Apps, err = s.describe(ctx, r, q.Workspace, page)
	return err
}

// about holds an app's record against the question.
func (q Question) about(p *parts) bool {
	text := strings.ToLower(p.app.GetId() + "\n" + p.index.GetFullName() + "\n" + p.app.GetBranch())
	for word := range strings.FieldsSeq(strings.ToLower(q.Query)) {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return (q.Repository == "" || q.Repository == p.app.GetRepository()) && (q.Branch == "" || q.Branch == p.app.GetBranch()) &&
		(q.AutoDeploy == nil || *q.AutoDeploy == p.app.GetAutoDeploy())
}

// chosen holds an app's newest deployment and its branch against the question; nil where it is not asked for.
func (s *Service) chosen(ctx context.Context, r *reading, q Question, p *parts, connection *storev1.Connection) (*chosen, error) {
	c := &chosen{parts: p, at: AppPlace{ID: p.app.GetId()}}
	if q.Order == ByUpdateTime {
		c.at.Time = p.app.GetUpdateTime().AsTime().UnixNano()
	}
	if q.Order != ByDeployTime && len(q.LatestStates) == 0 && len(q.SyncStates) == 0 {
		return c, nil
	}
	latest, err := s.deployment(ctx, r, p.key, p.app, p.lane, p.lane.GetLastNumber())
	if err != nil || len(q.LatestStates) > 0 && (latest == nil || !slices.Contains(q.LatestStates, latest.GetState())) {
		return nil, err
	}
	if q.Order == ByDeployTime && latest != nil {
		c.at.Time = latest.GetCreateTime().AsTime().UnixNano()
	}
	if len(q.SyncStates) == 0 {
		return c, nil
	}
	live, err := s.deployment(ctx, r, p.key, p.app, p.lane, p.lane.GetLive().GetNumber())
	if err != nil {
		return nil, err
	}
	sync, err := s.sync(ctx, r, p, connection, live, latest)
	if err != nil || !slices.Contains(q.SyncStates, sync.GetState()) {
		return nil, err
	}
	return c, nil
}
