package sites

import (
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// Describe is what of an app's kept releases on a server is served, as the records say.
func Describe(a *storev1.App, l *storev1.Lane, server string) release.Site {
	site := release.Site{Generation: a.GetGeneration(), Last: l.GetLastNumber(), Releases: []release.SiteRelease{}}
	live := l.GetLive()
	if live != nil && (live.GetServer() != server || live.GetLost()) {
		site.Elsewhere = live.GetServer()
	}
	for _, k := range l.GetKept() {
		if k.GetServer() != server || live.GetLost() && k.GetNumber() == live.GetNumber() {
			continue
		}
		serve := apps.ServeKept(a, k)
		site.Releases = append(site.Releases, release.SiteRelease{
			Number: k.GetNumber(), Directory: k.GetDirectory(), Hash: k.GetHash(), Serve: serve.GetDirectory(), Fallback: serve.GetFallback(), Shared: apps.Shared(a, k),
		})
	}
	return site
}
