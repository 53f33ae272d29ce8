package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/httpserver"
	"devpilot.io/bitbucket/services/deployer/internal/engine/hosting"
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// Site implements hosting.Sites: what of this server's kept releases is served.
func (w *Worker) Site(ctx context.Context, workspace, name string, number int32) (hosting.Site, error) {
	k := lane.Key{Workspace: workspace, App: name}
	a, err := w.cfg.Records.Apps.App(ctx, k)
	if apierr.Has(err, apierr.ReasonAppNotFound) {
		return hosting.Site{}, hosting.ErrNotFound
	}
	if err != nil {
		return hosting.Site{}, err
	}
	l, _, err := w.cfg.Records.Keeper.Get(ctx, k)
	if err != nil {
		return hosting.Site{}, err
	}
	if l.GetGeneration() != a.GetGeneration() || l.GetRetired() {
		return hosting.Site{}, hosting.ErrNotFound
	}
	kept, err := keptRelease(l, number, w.cfg.Server)
	if errors.Is(err, hosting.ErrGone) && apps.Serve(a, l, l.GetLive().GetNumber()).GetDirectory() == "" {
		return hosting.Site{}, hosting.ErrNotServed // who asks must not learn that there is such an app
	}
	if err != nil {
		return hosting.Site{}, err
	}
	serve := apps.Serve(a, l, kept.GetNumber())
	if serve.GetDirectory() == "" {
		return hosting.Site{}, hosting.ErrNotServed
	}
	root, err := w.releases.Open(workspace, name, kept.GetDirectory())
	if errors.Is(err, release.ErrNotKept) {
		return hosting.Site{}, hosting.ErrGone
	}
	if err != nil {
		return hosting.Site{}, err
	}
	return hosting.Site{
		Release: root, Directory: serve.GetDirectory(), Fallback: serve.GetFallback(), Number: kept.GetNumber(), Live: number == 0,
		Version: fmt.Sprintf("%d.%s.%s", a.GetGeneration(), kept.GetDirectory(), kept.GetHash()),
		Shared: hosting.Shared{
			Links: release.SharedLinks(apps.Shared(a, kept)),
			Open:  func() (*os.Root, error) { return w.releases.OpenShared(workspace, name) },
		},
	}, nil
}

// keptRelease finds a kept release of a server, 0 being the live one.
func keptRelease(l *storev1.Lane, number int32, server string) (*storev1.Kept, error) {
	if number == 0 {
		number = l.GetLive().GetNumber()
	}
	for _, k := range l.GetKept() {
		if k.GetNumber() == number && k.GetServer() == server {
			return k, nil
		}
	}
	if number == 0 || number > l.GetLastNumber() {
		return nil, hosting.ErrNotFound
	}
	return nil, hosting.ErrGone
}

// serveLive serves releases until ctx is done.
func (w *Worker) serveLive(ctx context.Context) error {
	host, err := hosting.CheckHost(w.cfg.LiveBase.Hostname(), "")
	if err != nil {
		return err
	}
	server, err := hosting.New(hosting.Config{Sites: w, Host: host, Logger: w.cfg.Logger, Registerer: w.cfg.Registerer})
	if err != nil {
		return err
	}
	web := httpserver.Bound(server.HTTPServer(), httpserver.Share(0.2))
	stopped := context.AfterFunc(ctx, func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = web.Stop(stop) // visitors that were cut come again
	})
	defer stopped()
	return web.Serve(w.cfg.Live)
}
