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
	ByNeed       Order = "need"       // those first that need somebody
	ByMatch      Order = "match"      // those first whose id begins with the query's first word
)

// Orders lists the orders.
func Orders() []Order { return []Order{ByID, ByUpdateTime, ByDeployTime, ByNeed, ByMatch} }

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
	Need         deployerv1.App_Need // any when unspecified
	Order        Order
	// Basic leaves out hooks and variables.
	Basic bool
}

// all says that nothing is left out.
func (q Question) all() bool {
	return q.Query == "" && q.Repository == "" && q.Branch == "" && q.AutoDeploy == nil && len(q.LatestStates) == 0 && !q.standing()
}

// standing says that an answer needs to know how an app's branch stands.
func (q Question) standing() bool {
	return q.Order == ByNeed || q.Need != deployerv1.App_NEED_UNSPECIFIED || len(q.SyncStates) > 0
}

// Spot is that of an app in a list: by rank, the highest first, then by id. By id alone all ranks are the same.
type Spot struct {
	Rank int64 // nanoseconds of a time, or what an order makes of the app
	ID   string
}

// String writes a spot down for ParseSpot.
func (p Spot) String() string { return fmt.Sprintf("%d %s", p.Rank, p.ID) }

// ParseSpot reads a spot; nil, the first, of an empty text.
func ParseSpot(text string) (*Spot, error) {
	if text == "" {
		return nil, nil
	}
	var p Spot
	if _, err := fmt.Sscanf(text, "%d %s", &p.Rank, &p.ID); err != nil {
		return nil, fmt.Errorf("app: read a place in the list: %w", err)
	}
	return &p, nil
}

func (p Spot) compare(q Spot) int {
	return cmp.Or(cmp.Compare(q.Rank, p.Rank), strings.Compare(p.ID, q.ID))
}

// List is a page of apps.
type List struct {
	Apps  []*deployerv1.App
	Next  *Spot // to go on after; nil at the end
	Total int   // on all pages
	// Needs and Troubles are those of all the caller's apps, also of those that are not asked for; by need only.
	Needs    []*deployerv1.NeedCount
	Troubles []*deployerv1.AppsTrouble
}

// List returns a page of a workspace's apps after a spot. What is asked of all apps, an order or a filter, costs two
// records in memory for each and nothing of the stores; by need, also how the webhooks stand. What is shown is read
// for the page alone. A page may come back short while an app is being deleted.
func (s *Service) List(ctx context.Context, q Question, after *Spot, size int) (List, error) {
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
			out.Next = &Spot{ID: strings.TrimPrefix(keys[size-1], prefix)}
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

// chosen is an app as a question sees it.
type chosen struct {
	*parts
	at    Spot
	need  deployerv1.App_Need // where the question is about how branches stand
	asked bool
}

// choose lists what a question with an order or a filter is about.
func (s *Service) choose(ctx context.Context, r *reading, q Question, keys []string, after *Spot, size int, out *List) error {
	all, err := s.partsOf(ctx, r, q.Workspace, keys)
	if err != nil || len(all) == 0 {
		return err
	}
	if q.Order != ByNeed { // by need the others count too
		all = slices.DeleteFunc(all, func(p *parts) bool { return !q.about(p) })
	}
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
	var hooks webhookViews
	if q.Order == ByNeed {
		hooks = s.hooks(ctx, q.Workspace, all)
		out.Needs, out.Troubles = needCounts(list), troubles(s.troubled(all, connection, hooks))
	}
	list = slices.DeleteFunc(list, func(c *chosen) bool { return !c.asked })
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
	out.Apps, err = s.describe(ctx, r, q.Workspace, page, hooks)
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

// chosen holds an app, its newest deployment and its branch against the question, and finds its place.
func (s *Service) chosen(ctx context.Context, r *reading, q Question, p *parts, connection *storev1.Connection) (*chosen, error) {
	c := &chosen{parts: p, at: Spot{ID: p.app.GetId()}, asked: q.about(p)}
	switch q.Order {
	case ByUpdateTime:
		c.at.Rank = p.app.GetUpdateTime().AsTime().UnixNano()
	case ByMatch:
		if words := strings.Fields(strings.ToLower(q.Query)); len(words) > 0 && strings.HasPrefix(p.app.GetId(), words[0]) {
			c.at.Rank = 1
		}
	case ByID, ByDeployTime, ByNeed:
	}
	if q.Order != ByDeployTime && len(q.LatestStates) == 0 && !q.standing() {
		return c, nil
	}
	latest, err := s.deployment(ctx, r, p.key, p.app, p.lane, p.lane.GetLastNumber())
	if err != nil {
		return nil, err
	}
	if q.Order == ByDeployTime && latest != nil {
		c.at.Rank = latest.GetCreateTime().AsTime().UnixNano()
	}
	c.asked = c.asked && (len(q.LatestStates) == 0 || latest != nil && slices.Contains(q.LatestStates, latest.GetState()))
	if !q.standing() || !c.asked && q.Order != ByNeed {
		return c, nil
	}
	live, err := s.deployment(ctx, r, p.key, p.app, p.lane, p.lane.GetLive().GetNumber())
	if err != nil {
		return nil, err
	}
	sync, err := s.sync(ctx, r, p, connection, live, latest)
	if err != nil {
		return nil, err
	}
	c.need = needOf(summary(latest), sync)
	if q.Order == ByNeed {
		c.at.Rank = -int64(c.need) // the most urgent is the lowest word
	}
	c.asked = c.asked && (len(q.SyncStates) == 0 || slices.Contains(q.SyncStates, sync.GetState())) &&
		(q.Need == deployerv1.App_NEED_UNSPECIFIED || q.Need == c.need)
	return c, nil
}
