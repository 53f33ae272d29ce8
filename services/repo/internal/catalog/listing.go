package catalog

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/when"
	"devpilot.io/bitbucket/services/repo/internal/account"
)

// Question asks for a page of the list of repositories.
type Question struct {
	Workspace string
	Query     string // see [Catalog.List]
	Refresh   bool
	After     *Key // nil for the first page
	Size      int  // of the page, at least 1
}

// Answer is a page of the list.
type Answer struct {
	Repositories []Repository
	Failures     []Failure
	FetchTime    time.Time
	Stale        bool      // a newer list is being fetched
	Next         *Key      // the next page begins after it; nil on the last one
	Total        int       // how many match
	NextRefresh  time.Time // set where Refresh came too soon
}

// waitReserve is what is left of the caller's time to answer with what there is, instead of waiting
// on for a list that is still being fetched.
const waitReserve = 300 * time.Millisecond

// retryFailed is how long a failed renewal is not tried again by itself.
const retryFailed = 30 * time.Second

// List answers a page.
//
// A query is text within the full name or the name, case ignored. A repository's URL (or anything
// else that names one on this Bitbucket, see bitbucket.Site.ParseRepository) is looked up live; so is
// `workspace/slug` where the list has it or where nothing else matches.
//
// The first question of a connection fetches the list. Opening it (no query, first page) when it is
// older than 30 s begins to fetch it anew and answers at once with what there is: Stale. Refresh
// waits for the new list, at most once a minute; sooner it is answered from what there is, with the
// time from which it works again. While a list has never been fetched whole, a caller whose time
// runs out gets what has come so far.
func (c *Catalog) List(ctx context.Context, q Question) (Answer, error) {
	q.Query = strings.TrimSpace(q.Query)
	conn, err := c.open(ctx, q.Workspace)
	if err != nil {
		return Answer{}, err
	}
	workspace, slug, isRef := c.site.ParseRepository(q.Query)
	if isRef && !isBareName(q.Query) {
		c.metrics.served.WithLabelValues("live").Inc()
		return c.lookupAnswer(ctx, conn, workspace, slug)
	}
	list, err := c.snapshot(ctx, conn, q)
	if err != nil {
		return Answer{}, err
	}
	c.metrics.served.WithLabelValues(list.source).Inc()
	a := Answer{Failures: list.snapshot.Failures, FetchTime: list.snapshot.FetchTime, Stale: list.stale, NextRefresh: list.nextRefresh}
	if list.failure != nil {
		a.Failures = append([]Failure{*list.failure}, a.Failures...)
	}
	matches := search(list.snapshot.Repositories, q.Query)
	if isRef && q.After == nil {
		matches = c.liveMatches(ctx, conn, workspace+"/"+slug, matches, &a)
	}
	a.Total = len(matches)
	var more bool
	a.Repositories, more = page(matches, q.Size, func(r Repository) bool { return q.After == nil || keyOf(r).compare(*q.After) > 0 })
	if more {
		next := keyOf(a.Repositories[len(a.Repositories)-1])
		a.Next = &next
	}
	return a, nil
}

// isBareName tells `acme/web`, which may be the beginning of something longer that is being typed,
// from what was pasted.
func isBareName(query string) bool {
	return strings.Count(query, "/") == 1 && !strings.ContainsAny(query, ":@ ") && !strings.HasSuffix(query, ".git")
}

// found is a snapshot and how current it is.
type found struct {
	snapshot    *Snapshot
	stale       bool
	failure     *Failure
	nextRefresh time.Time
	source      string
}

// snapshot decides which list answers the question, and whether to fetch a new one.
func (c *Catalog) snapshot(ctx context.Context, conn *account.Connection, q Question) (found, error) {
	have := c.current(ctx, conn)
	switch {
	case have.snapshot == nil:
		return c.firstFetch(ctx, conn)
	case q.Refresh && q.After == nil:
		return c.refreshed(ctx, conn, have)
	}
	opened := q.After == nil && q.Query == ""
	age := c.now().Sub(have.snapshot.FetchTime)
	if opened && age > revalidateAfter && !c.now().Before(have.retryAt) {
		c.fetch(ctx, conn, have.snapshot, fetchPlan{background: true, notBefore: have.snapshot.FetchTime.Add(time.Nanosecond)})
	}
	return c.asItStands(conn, have), nil
}

// asItStands tells whether a newer list is on its way. Where none is, a fetch may have ended since have
// was read: then what came of it is told, since nothing would announce it any more.
func (c *Catalog) asItStands(conn *account.Connection, have remembered) found {
	if c.fetches.isRunning(fetchKey(conn)) {
		return found{snapshot: have.snapshot, failure: have.failure, stale: true, source: "stale"}
	}
	if now := c.memory.get(conn.Workspace, conn.ID); now.snapshot != nil {
		have = now
	}
	return found{snapshot: have.snapshot, failure: have.failure, source: "fresh"}
}

// current returns the newest snapshot of the connection, here or in another replica.
func (c *Catalog) current(ctx context.Context, conn *account.Connection) remembered {
	have := c.memory.get(conn.Workspace, conn.ID)
	since := time.Time{}
	if have.snapshot != nil {
		since = have.snapshot.FetchTime
	}
	if newer, ok := c.store.Newer(ctx, conn.Workspace, conn.ID, since); ok {
		c.memory.put(conn.Workspace, newer, false)
		return c.memory.get(conn.Workspace, conn.ID)
	}
	if have.unsaved && c.store.Save(ctx, conn.Workspace, have.snapshot) == nil { // it was away, and is back
		c.memory.saved(conn.Workspace, have.snapshot)
	}
	return have
}

// firstFetch waits for the connection's first list, or for as much of it as comes in time.
func (c *Catalog) firstFetch(ctx context.Context, conn *account.Connection) (found, error) {
	s, err := c.await(ctx, c.fetch(ctx, conn, nil, fetchPlan{}))
	if err == nil {
		return found{snapshot: s, source: "fetched"}, nil
	}
	if !outOfTime(err) {
		return found{}, err
	}
	if w, ok := c.walks.Load(fetchKey(conn)); ok {
		if s := w.(*walk).soFar(); s != nil {
			return found{snapshot: s, stale: true, source: "partial"}, nil
		}
	}
	return found{}, stillFetching(err)
}

// refreshed waits for a new list that a person asked for. What was there is the answer where a new
// one may not be fetched yet, does not come in time, or does not come at all.
func (c *Catalog) refreshed(ctx context.Context, conn *account.Connection, have remembered) (found, error) {
	if wait := c.allowRefresh(ctx, conn); wait > 0 {
		f := c.asItStands(conn, have)
		f.nextRefresh = c.now().Add(wait)
		return f, nil
	}
	f := found{snapshot: have.snapshot, failure: have.failure, source: "fresh"}
	asked := c.now()
	for range 2 {
		s, err := c.await(ctx, c.fetch(ctx, conn, have.snapshot, fetchPlan{notBefore: asked}))
		switch {
		case err == nil && s.FetchTime.Before(asked):
			continue // one that was under way: it may lack what the person has just made
		case err == nil:
			return found{snapshot: s, source: "fetched"}, nil
		case outOfTime(err):
			f.stale, f.source = true, "stale"
			return f, nil
		case connectionFault(err):
			return found{}, err
		default:
			failure := renewalFailure(have.snapshot, err)
			f.failure = &failure
			return f, nil
		}
	}
	f.snapshot = c.current(ctx, conn).snapshot
	return f, nil
}

// allowRefresh asks the store whether a refresh may be made, and where that is away our own memory.
func (c *Catalog) allowRefresh(ctx context.Context, conn *account.Connection) time.Duration {
	wait, err := c.store.AllowRefresh(ctx, conn.Workspace, conn.ID, refreshInterval)
	if err != nil {
		return c.refresh.allow(fetchKey(conn), refreshInterval)
	}
	return wait
}

// await waits for a fetch as long as the caller's time allows.
func (c *Catalog) await(ctx context.Context, fetch *task[*Snapshot]) (*Snapshot, error) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-waitReserve))
		defer cancel()
	}
	return fetch.wait(ctx)
}

func outOfTime(err error) bool { return errors.Is(err, context.DeadlineExceeded) && !isTyped(err) }

// isTyped tells an error with a reason of its own from a bare context error.
func isTyped(err error) bool {
	var e *apierr.Error
	return errors.As(err, &e)
}

func stillFetching(cause error) error {
	return apierr.New(apierr.ReasonTimeout, "Bitbucket is still sending the list of repositories. Try again in a few seconds.",
		apierr.WithRetryAfter(2*time.Second), apierr.WithCause(cause))
}

// renewalFailure says that a list could not be renewed and how old it therefore is.
func renewalFailure(s *Snapshot, err error) Failure {
	f := failureOf("", err)
	f.Message = "The list could not be renewed and is from " + when.UTC(s.FetchTime) + ". " + f.Message
	return f
}

func fetchKey(conn *account.Connection) string { return conn.Workspace + " " + conn.ID }

// fetchPlan says how to fetch a list.
type fetchPlan struct {
	background bool
	// notBefore makes a list that another replica fetches good enough if it began no earlier.
	notBefore time.Time
}

// fetch begins to fetch the connection's list, or joins the fetch that runs.
func (c *Catalog) fetch(ctx context.Context, conn *account.Connection, previous *Snapshot, plan fetchPlan) *task[*Snapshot] {
	calls := conn.Account.Parallel(c.parallel)
	if plan.background {
		calls = calls.Background()
	}
	return c.fetches.start(ctx, fetchKey(conn), func(ctx context.Context) (*Snapshot, error) {
		w := &walk{account: calls, connection: conn.ID, allows: conn.Allows, previous: previous}
		c.walks.Store(fetchKey(conn), w)
		defer c.walks.Delete(fetchKey(conn))
		return c.runFetch(ctx, conn, w, plan)
	})
}

// runFetch walks, unless another replica is at it: then its list is taken.
func (c *Catalog) runFetch(ctx context.Context, conn *account.Connection, w *walk, plan fetchPlan) (*Snapshot, error) {
	cached := func(ctx context.Context) (*Snapshot, bool) {
		return c.store.Newer(ctx, conn.Workspace, conn.ID, plan.notBefore.Add(-time.Nanosecond))
	}
	unsaved := false
	s, err := c.store.Once(ctx, conn.Workspace, cached, func(ctx context.Context) (*Snapshot, error) {
		if s, ok := cached(ctx); ok { // another replica was done just before it was our turn
			return s, nil
		}
		w.began = c.now()
		s, err := w.run(ctx)
		c.observe(ctx, conn, w.began, s, err)
		if err != nil {
			return nil, err
		}
		if err := c.store.Save(ctx, conn.Workspace, s); err != nil {
			unsaved = true
			c.log.DebugContext(ctx, "snapshot stays in memory for now", logs.Err(err))
		}
		return s, nil
	})
	if err != nil {
		c.noteFailure(conn, w.previous, err)
		return nil, err
	}
	c.memory.put(conn.Workspace, s, unsaved)
	return s, nil
}

// noteFailure remembers why the list could not be renewed, so that the next question does not try
// again at once, and can say it.
func (c *Catalog) noteFailure(conn *account.Connection, previous *Snapshot, err error) {
	if previous == nil || errors.Is(err, context.Canceled) {
		return
	}
	retryAt := c.now().Add(max(apierr.From(err).RetryAfter(), retryFailed))
	c.memory.failed(conn.Workspace, conn.ID, renewalFailure(previous, err), retryAt)
}

func (c *Catalog) observe(ctx context.Context, conn *account.Connection, began time.Time, s *Snapshot, err error) {
	took := c.now().Sub(began)
	c.metrics.duration.Observe(took.Seconds())
	attrs := []slog.Attr{slog.String(logs.KeyWorkspace, conn.Workspace), slog.String(logs.KeyConnection, conn.ID),
		slog.Float64(logs.KeyDuration, float64(took.Microseconds())/1000)}
	switch {
	case err != nil:
		c.metrics.fetches.WithLabelValues("failed").Inc()
		c.log.LogAttrs(ctx, slog.LevelWarn, "repositories not listed", append(attrs, logs.Err(err))...)
	case len(s.Failures) > 0:
		c.metrics.fetches.WithLabelValues("partial").Inc()
		c.log.LogAttrs(ctx, slog.LevelWarn, "repositories listed in part", append(attrs, slog.Int(logs.KeyCount, len(s.Repositories)),
			slog.String(logs.KeyReason, string(s.Failures[0].Reason)))...)
	default:
		c.metrics.fetches.WithLabelValues("complete").Inc()
		c.log.LogAttrs(ctx, slog.LevelInfo, "repositories listed", append(attrs, slog.Int(logs.KeyCount, len(s.Repositories)))...)
	}
}

// forget drops what is known about a workspace's list.
func (c *Catalog) forget(ctx context.Context, workspace string) {
	c.memory.drop(workspace)
	if err := c.store.Drop(ctx, workspace); err != nil {
		c.log.DebugContext(ctx, "snapshot of a removed connection stays until it expires", logs.Err(err))
	}
}
