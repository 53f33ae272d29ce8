package app

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

func refused(field, message string) error {
	var faults apierr.Faults
	faults.Add(field, message)
	return faults.Err()
}

// place is where a commit was seen.
type place struct {
	repository string
	hash       string
}

// places are the places where a commit was seen, and the ref that it was pushed to there.
type places map[place]lane.Ref

func (ps places) add(repository, hash string, ref lane.Ref) {
	if was, there := ps[place{repository, hash}]; !there || was == "" {
		ps[place{repository, hash}] = ref
	}
}

func (q *question) ofDeployment(ctx context.Context) error {
	p := q.part(q.req.GetApp())
	if q.number = q.req.GetDeployment(); p == nil {
		return q.ofDeletedApp(ctx)
	}
	d, err := q.s.deployment(ctx, q.r, p.key, p.app, p.lane, q.number)
	if err != nil {
		return err
	}
	if d == nil {
		return noDeployment(p.key, q.number)
	}
	q.hash, q.ref = d.GetCommit().GetHash(), refOf(d)
	if q.hash == "" {
		q.hash = d.GetRequestedCommit().GetHash()
	}
	if asked := d.GetDelivery(); asked != nil && d.GetSourceNumber() == 0 {
		one, err := q.s.cfg.Deliveries.Delivery(ctx, p.key.Workspace, asked.GetWebhook(), asked.GetNumber())
		switch {
		case err == nil:
			q.deliveries = append(q.deliveries, one)
			return nil
		case apierr.Has(err, apierr.ReasonDeliveryNotFound):
			q.limits = append(q.limits, "The delivery that asked for the deployment is no longer kept: the last 1,000 of each webhook are.")
		default:
			q.unanswered(ctx, err)
		}
		return nil
	}
	return q.deliveriesOf(ctx)
}

// ofDeletedApp finds a deployment of an app that is gone: only the deliveries tell of it.
func (q *question) ofDeletedApp(ctx context.Context) error {
	told := q.scan(ctx, &webhookv1.ListDeliveriesRequest{App: q.req.GetApp(), Deployment: q.number})
	if len(told) == 0 {
		return notFound(lane.Key{Workspace: q.req.GetWorkspace(), App: q.req.GetApp()})
	}
	d := told[len(told)-1] // an app may have been deleted twice: the last one counts
	for _, o := range d.GetOutcomes() {
		if i := int(o.GetChange()); o.GetApp() == q.req.GetApp() && o.GetDeployment() == q.number && i < len(d.GetChanges()) {
			q.ref, q.hash = changeRef(d.GetChanges()[i]), d.GetChanges()[i].GetNewHash()
		}
	}
	q.of(d.GetRepository())
	q.deliveries = []*webhookv1.Delivery{d}
	return nil
}

func refOf(d *deployerv1.Deployment) lane.Ref {
	if d.GetTag() != "" {
		return lane.Tag(d.GetTag())
	}
	return lane.Branch(d.GetBranch())
}

func changeRef(c *webhookv1.DeliveryChange) lane.Ref {
	if c.GetRefType() == webhookv1.DeliveryChange_TAG {
		return lane.Tag(c.GetRef())
	}
	return lane.Branch(c.GetRef())
}

// ofDelivery finds a delivery by its number or by Bitbucket's id of the request.
func (q *question) ofDelivery(ctx context.Context) error {
	asked := q.req.GetDelivery()
	if requestPattern.MatchString(asked) {
		found := q.scan(ctx, &webhookv1.ListDeliveriesRequest{RequestUuid: asked})
		if len(found) == 0 {
			found = q.scan(ctx, &webhookv1.ListDeliveriesRequest{RequestUuid: asked, Refused: true})
		}
		q.deliveries = found
	} else {
		hook, number, _ := strings.Cut(asked, "/")
		if number == "" {
			hook, number = q.hook().GetId(), asked
		}
		n, err := strconv.ParseInt(number, 10, 32)
		if err != nil {
			return refused("delivery", "there is no delivery with such a number")
		}
		d, err := q.s.cfg.Deliveries.Delivery(ctx, q.req.GetWorkspace(), hook, int32(n))
		if err != nil {
			return err
		}
		q.deliveries = []*webhookv1.Delivery{d}
	}
	if len(q.deliveries) == 0 {
		return nil
	}
	d := q.deliveries[0]
	q.of(d.GetRepository())
	if c := q.change(d); c != nil {
		q.ref, q.hash = changeRef(c), c.GetNewHash()
		if n := len(d.GetChanges()); n > 1 {
			q.limits = append(q.limits, fmt.Sprintf("The delivery tells of %d branches and tags; this is about %s. Ask about a commit or a branch for the others.", n, q.ref.Name()))
		}
	}
	return nil
}

// change is the change of a delivery that the answer is about: the first that an app watches.
func (q *question) change(d *webhookv1.Delivery) *webhookv1.DeliveryChange {
	for _, c := range d.GetChanges() {
		if slices.ContainsFunc(q.parts, func(p *parts) bool { return q.wanted(p) && watches(p, changeRef(c)) }) {
			return c
		}
	}
	if len(d.GetChanges()) == 0 {
		return nil
	}
	return d.GetChanges()[0]
}

// wanted tells whether the answer is to be about an app.
func (q *question) wanted(p *parts) bool {
	return q.req.GetApp() == "" || p.app.GetId() == q.req.GetApp()
}

// watches tells whether pushes to a ref concern an app, by its branch and tags.
func watches(p *parts, ref lane.Ref) bool {
	if ref.IsTag() {
		return rules.MatchTag(p.app.GetRules().GetTags(), ref.Name())
	}
	return ref != "" && rules.MatchBranch(p.app.GetBranch(), ref.Name())
}

// ofBranch finds a branch's newest commit.
func (q *question) ofBranch(ctx context.Context) error {
	q.ref = lane.Branch(q.req.GetBranch())
	var names []string
	for _, p := range q.parts {
		if watches(p, q.ref) || p.lane.GetHeads()[string(q.ref)] != nil {
			names = append(names, p.app.GetRepository())
		}
	}
	slices.Sort(names)
	switch names = slices.Compact(names); {
	case q.repository != "":
	case len(names) > 1:
		return refused("repository", fmt.Sprintf("%d repositories have a branch %s: name the app or the repository", len(names), q.ref.Name()))
	case len(names) == 1:
		q.of(names[0])
	}
	var newest time.Time
	for _, p := range q.parts {
		if p.app.GetRepository() != q.repository {
			continue
		}
		if h := apps.ShownHead(p.app, p.lane, q.ref); h.GetHash() != "" && h.GetTime().AsTime().After(newest) {
			newest, q.hash = h.GetTime().AsTime(), h.GetHash()
		}
		if t := apps.NewestTold(p.app, p.lane, q.ref); t != nil && t.Time.AsTime().After(newest) {
			newest, q.hash = t.Time.AsTime(), t.Hash
		}
	}
	told := q.scan(ctx, &webhookv1.ListDeliveriesRequest{Branch: q.ref.Branch()})
	if len(told) == 0 {
		return nil
	}
	last := told[len(told)-1]
	if q.repository == "" {
		q.of(last.GetRepository())
	}
	for _, c := range last.GetChanges() {
		if changeRef(c) == q.ref && (q.hash == "" || last.GetReceiveTime().AsTime().After(newest)) {
			q.hash = c.GetNewHash()
		}
	}
	q.deliveries = slices.DeleteFunc(told, func(d *webhookv1.Delivery) bool { return !q.tells(d) })
	return nil
}

// ofCommit finds a commit by how its hash begins.
func (q *question) ofCommit(ctx context.Context) error {
	prefix := strings.ToLower(q.req.GetCommit())
	found := q.remembered(prefix)
	if len(prefix) == hashDigits && len(found) == 1 {
		for at := range found {
			q.of(at.repository) // nothing else has it: only its webhook's deliveries are looked through
		}
	}
	told := q.scan(ctx, &webhookv1.ListDeliveriesRequest{Commit: prefix})
	for _, d := range told {
		for _, c := range d.GetChanges() {
			if strings.HasPrefix(c.GetNewHash(), prefix) {
				found.add(d.GetRepository(), c.GetNewHash(), changeRef(c))
			}
		}
	}
	at, err := found.one(q.req.GetCommit())
	if err != nil || at.hash == "" {
		return err
	}
	q.of(at.repository)
	q.hash, q.ref = at.hash, found[at]
	q.deliveries = slices.DeleteFunc(told, func(d *webhookv1.Delivery) bool { return !q.tells(d) })
	q.watchedRef()
	return nil
}

// watchedRef prefers, of the branches and tags that the commit was pushed to, one that an app watches.
func (q *question) watchedRef() {
	for _, d := range q.deliveries {
		for _, c := range d.GetChanges() {
			ref := changeRef(c)
			if c.GetNewHash() == q.hash && slices.ContainsFunc(q.parts, func(p *parts) bool { return q.wanted(p) && watches(p, ref) }) {
				q.ref = ref
				return
			}
		}
	}
}

const hashDigits = 40 // of a whole hash

// one is the only commit of all; it refuses a question that fits several.
func (ps places) one(asked string) (place, error) {
	hashes, repositories := map[string]bool{}, 0
	for at := range ps {
		hashes[at.hash] = true
		repositories++
	}
	switch {
	case len(hashes) > 1:
		all := slices.Sorted(maps.Keys(hashes))
		n := len(all)
		for i := range all[:min(n, 3)] {
			all[i] = all[i][:min(len(asked)+4, len(all[i]))]
		}
		return place{}, refused("commit", fmt.Sprintf("%d commits begin with %s, such as %s: give more digits", n, asked, strings.Join(all[:min(n, 3)], ", ")))
	case repositories > 1:
		return place{}, refused("repository", fmt.Sprintf("%d repositories have this commit: name the app or the repository", repositories))
	}
	for at := range ps {
		return at, nil
	}
	return place{}, nil
}

// remembered are the places of commits that begin so, of what lanes and deployments know.
func (q *question) remembered(prefix string) places {
	found := places{}
	for _, p := range q.parts {
		id := p.app.GetRepository()
		for name, h := range p.lane.GetHeads() {
			if h.GetRepository() == id && h.GetHash() != "" && strings.HasPrefix(h.GetHash(), prefix) {
				found.add(id, h.GetHash(), lane.Ref(name))
			}
		}
		for _, t := range p.lane.GetTurnedAway() {
			ref := lane.Branch(t.GetBranch())
			if t.GetTag() != "" {
				ref = lane.Tag(t.GetTag())
			}
			if strings.HasPrefix(t.GetCommit(), prefix) {
				found.add(id, t.GetCommit(), ref)
			}
		}
		for _, s := range p.lane.GetSighted() {
			if strings.HasPrefix(s.GetHash(), prefix) {
				found.add(id, s.GetHash(), lane.Branch(s.GetBranch()))
			}
		}
		if lv := p.lane.GetLive(); lv.GetHash() != "" && strings.HasPrefix(lv.GetHash(), prefix) {
			found.add(id, lv.GetHash(), lane.Ref(lv.GetRef()))
		}
		q.deployed(p, prefix, found)
	}
	return found
}

// deployed adds what an app's kept deployments deployed, as far as that is in memory.
func (q *question) deployed(p *parts, prefix string, found places) {
	if !q.r.deployments.FromCopy() {
		q.limit("Older deployments were not looked through: they are still being read into memory. Ask again in a moment.")
		return
	}
	for n := p.lane.GetLastNumber(); n > 0 && n > p.lane.GetLastNumber()-scan; n-- {
		sum, ok := q.r.deployments.Summary(p.key.Record(n))
		if d, is := sum.(*store.DeploymentSummary); ok && is && d.Generation == p.lane.GetGeneration() && strings.HasPrefix(d.Hash, prefix) && d.Hash != "" {
			found.add(p.app.GetRepository(), d.Hash, lane.Branch(d.Branch))
		}
	}
}

func short(hash string) string { return bitbucket.ShortHash(hash) }
