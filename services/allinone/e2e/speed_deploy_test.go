package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// cloneAll clones repositories, two at a time.
func (p *timed) cloneAll(remotes []string) time.Duration {
	began := time.Now()
	next := make(chan string)
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for remote := range next {
				p.cloned(remote)
			}
		})
	}
	for _, remote := range remotes {
		next <- remote
	}
	close(next)
	all.Wait()
	return time.Since(began)
}

// shown waits until all apps serve a file with this text from their live release.
func (p *timed) shown(apps []string, text string) time.Duration {
	p.b.Helper()
	began := time.Now()
	for i := 0; i < len(apps); {
		raw, err := os.ReadFile(filepath.Join(p.dir, "apps", p.workspace, apps[i], "current", "index.html"))
		if err == nil && string(raw) == text {
			i++
			continue
		}
		if time.Since(began) > timeout {
			p.b.Fatalf("%s does not show %q", apps[i], text)
		}
		p.pause(time.Millisecond) // how often the disk is read
	}
	return time.Since(began)
}

// twentyRepositories deploys twenty repositories at once and clones as many, two at a time.
func twentyRepositories(p *timed) []figure {
	const count = 20
	var apps, remotes []string
	var clones []*checkout
	for i := range count {
		app := fmt.Sprintf("web-%02d", i)
		repo := p.site().repository(p.b, app, "site")
		clone := p.site().clone(p.b, repo)
		fill(p.b, clone, 200)
		clone.commit("index.html", "first\n")
		clone.git("push", "--quiet", "origin", "HEAD:main")
		p.api.must("POST", p.path("/apps"), object{"appId": app, "app": object{"repository": repo.id, "branch": "main", "autoDeploy": false}})
		apps, remotes, clones = append(apps, app), append(remotes, p.site().remote(p.b, repo)), append(clones, clone)
	}
	round := func(text string) time.Duration {
		began := time.Now()
		for _, app := range apps {
			p.api.must("POST", p.path("/apps/%s/deployments", app), object{})
		}
		p.shown(apps, text)
		return time.Since(began)
	}
	first := round("first\n")
	beside := p.cloneAll(remotes)
	for _, clone := range clones {
		clone.commit("index.html", "second\n")
		clone.git("push", "--quiet", "origin", "HEAD:main")
	}
	repeat := round("second\n")
	again := p.cloneAll(remotes)
	return []figure{
		{"20 repositories at once beside 20 clones: first", first.Seconds() / beside.Seconds(), "×", "≤ 1.1 ×"},
		{"… repeat", repeat.Seconds() / again.Seconds(), "×", "≤ 0.9 ×"},
	}
}

// largeRepository deploys a repository of 20,000 files.
func largeRepository(p *timed) []figure {
	repo := p.site().repository(p.b, "large", "site")
	clone := p.site().clone(p.b, repo)
	fill(p.b, clone, 20_000)
	clone.commit("index.html", "first\n")
	clone.git("push", "--quiet", "origin", "HEAD:main")
	p.api.must("POST", p.path("/apps"), object{"appId": "large", "app": object{"repository": repo.id, "branch": "main", "autoDeploy": false}})
	remote := p.site().remote(p.b, repo)
	round := func(text string) time.Duration {
		began := time.Now()
		p.api.must("POST", p.path("/apps/large/deployments"), object{})
		p.shown([]string{"large"}, text)
		return time.Since(began)
	}
	beside := p.cloned(remote)
	first := round("first\n")
	clone.commit("index.html", "second\n")
	clone.git("push", "--quiet", "origin", "HEAD:main")
	again := p.cloned(remote)
	repeat := round("second\n")
	return []figure{
		{"20,000 files beside git clone --depth 1: first", first.Seconds() / beside.Seconds(), "×", "≤ 1.1 ×"},
		{"… repeat", repeat.Seconds() / again.Seconds(), "×", "keep 0.06 ×"},
	}
}
