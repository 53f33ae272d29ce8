package connect

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
)

const (
	// storeFirst is the first pause before the record is read or written again.
	storeFirst = 50 * time.Millisecond
	// storeMost is the longest such pause.
	storeMost = time.Second
	// mostLooked is how many repositories an account is held against before it takes the place of another: what is
	// read in the time of a connect.
	mostLooked = 300
	// lookParallel is how many of them are looked at at once.
	lookParallel = 8
	// mostNamed is how many apps an error names.
	mostNamed = 10
)

// errMoved says that another connection was stored meanwhile than the one that was looked at.
var errMoved = errors.New("somebody else connected meanwhile")

// replace stores the record in place of what is there, which is decided by what is there: what works is replaced by
// another account's only when no app stops for it. What it replaces works until then, and is erased with the write.
func (f *Flow) replace(ctx context.Context, cb Callback, h *authstorev1.Handshake, token seal.Secret, rec *authstorev1.Integration) (uint64, error) {
	for {
		cur, err := f.current(ctx, rec.GetWorkspace())
		if err != nil {
			return 0, err
		}
		if !h.GetEvenIfAppsStop() && f.works(cur) && cur.GetAccount().GetUuid() != rec.GetAccount().GetUuid() {
			if err := f.reachesAll(ctx, token, cb.Used, cur, rec); err != nil {
				return 0, err
			}
		}
		rev, err := f.store(ctx, rec, cur.GetConnectionId())
		if !errors.Is(err, errMoved) {
			return rev, err
		}
	}
}

// works is whether deployments go on with the connection as it is; nil does not.
func (f *Flow) works(cur *authstorev1.Integration) bool {
	return cur != nil && !cur.GetReconnectRequired() && cur.GetSiteUrl() == f.cfg.Site.SiteURL && cur.GetConsumerKey() == f.cfg.Consumer.Key
}

// reachesAll refuses an account that cannot reach what apps use.
func (f *Flow) reachesAll(ctx context.Context, token seal.Secret, used []*authv1.UsedRepository, cur, rec *authstorev1.Integration) error {
	lost, err := f.cfg.Accounts.Unreached(ctx, token, used[:min(len(used), mostLooked)])
	if err != nil {
		return fmt.Errorf("look at the repositories of the apps: %w", err)
	}
	unknown := max(0, len(used)-mostLooked)
	if len(lost) == 0 && unknown == 0 {
		return nil
	}
	var apps []string
	for _, r := range lost {
		apps = append(apps, r.GetApps()...)
	}
	slices.Sort(apps)
	own, old := rec.GetAccount().GetLabel(), cur.GetAccount().GetLabel()
	var says []string
	if len(apps) > 0 {
		says = append(says, fmt.Sprintf("@%s cannot reach the repositories of %s, which would stop deploying.", own, few(apps)))
	}
	if unknown > 0 {
		says = append(says, fmt.Sprintf("Whether it reaches %d further repositories was not looked at.", unknown))
	}
	says = append(says, fmt.Sprintf("Nothing was changed: @%s stays connected.", old))
	return apierr.New(apierr.ReasonAppsWouldStop, strings.Join(says, " "),
		apierr.WithDetail("apps", strings.Join(apps[:min(len(apps), mostNamed)], " ")), apierr.WithDetail("appsCount", fmt.Sprint(len(apps))),
		apierr.WithDetail("repositoriesUnknown", fmt.Sprint(unknown)))
}

// few names the first apps, and how many more there are.
func few(apps []string) string {
	if more := len(apps) - mostNamed; more > 0 {
		return fmt.Sprintf("%s and %d more apps", strings.Join(apps[:mostNamed], ", "), more)
	}
	return strings.Join(apps, ", ")
}

// current is what is stored; nil where nothing is.
func (f *Flow) current(ctx context.Context, workspace string) (*authstorev1.Integration, error) {
	return again(ctx, func() (*authstorev1.Integration, error) {
		cur, _, err := f.cfg.Integrations.Get(ctx, workspace)
		if errors.Is(err, kv.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			err = fmt.Errorf("read the integration of workspace %s: %w", workspace, err)
		}
		return cur, err
	})
}

// store writes the record in place of the connection that was looked at. A write that was acknowledged too late is
// recognised by its connection id.
func (f *Flow) store(ctx context.Context, rec *authstorev1.Integration, looked string) (uint64, error) {
	return again(ctx, func() (uint64, error) {
		_, rev, err := f.cfg.Integrations.Update(ctx, rec.GetWorkspace(), func(cur *authstorev1.Integration) (*authstorev1.Integration, error) {
			switch cur.GetConnectionId() {
			case rec.GetConnectionId():
				return nil, kv.ErrSkip
			case looked:
				return rec, nil
			}
			return nil, errMoved
		})
		if err != nil {
			err = fmt.Errorf("store the integration of workspace %s: %w", rec.GetWorkspace(), err)
		}
		return rev, err
	})
}

// again repeats what the store was away for, or what was lost to other writers: the code is spent.
func again[T any](ctx context.Context, do func() (T, error)) (T, error) {
	return backoff.Retry(ctx, func() (T, error) {
		v, err := do()
		if err != nil && !errors.Is(err, kv.ErrUnavailable) && !errors.Is(err, kv.ErrConflict) {
			err = backoff.Permanent(err)
		}
		return v, err
	}, backoff.WithBackOff(stream.Pauses(storeFirst, storeMost)), backoff.WithMaxElapsedTime(0))
}

// Unreached implements Accounts.
func (a *RESTAccounts) Unreached(ctx context.Context, token seal.Secret, used []*authv1.UsedRepository) ([]*authv1.UsedRepository, error) {
	opts := a.opts
	opts.HTTPClient = &http.Client{Transport: a.base}
	account := bitbucket.NewClient(a.site, opts).As(bitbucket.StaticToken(token))
	var mu sync.Mutex
	var lost []*authv1.UsedRepository
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(lookParallel)
	for _, r := range used {
		group.Go(func() error {
			workspace, _, _ := strings.Cut(r.GetFullName(), "/")
			_, err := account.Repository(ctx, bitbucket.RefByID(workspace, r.GetRepository(), r.GetFullName()))
			var e *bitbucket.Error
			switch {
			case err == nil:
				return nil
			case !errors.As(err, &e) || !slices.Contains(outOfReach, e.Kind):
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			lost = append(lost, r)
			return nil
		})
	}
	return lost, group.Wait()
}

// outOfReach are the answers to whoever may not see a repository, or to whom it is gone.
var outOfReach = []bitbucket.Kind{
	bitbucket.KindNotFound, bitbucket.KindForbidden, bitbucket.KindRefused, bitbucket.KindAccessRestricted, bitbucket.KindGone,
}
