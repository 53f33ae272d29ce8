package e2e

import (
	"flag"
	"fmt"
	"net/http"
	"sync"
	"time"
)

var speedApps = flag.Int("speed.apps", 1000, "how many apps BenchmarkSpeed makes in its rows many and idle")

// appsPerRepository is how many apps share a repository.
const appsPerRepository = 5

// createApps makes apps that share repositories, eight callers at a time.
func (p *timed) createApps(from, to int) (took []time.Duration, spent time.Duration) {
	p.b.Helper()
	for len(p.repos) <= to/appsPerRepository {
		p.repos = append(p.repos, p.site().repository(p.b, fmt.Sprintf("many-%05d", len(p.repos)), "site"))
	}
	if to-from >= 100 {
		defer p.profiled(10 * time.Second)()
	}
	used := p.cpu()
	numbers := make(chan int)
	var mu sync.Mutex
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for i := range numbers {
				if i%50 == 0 {
					p.newHour()
				}
				began := time.Now()
				problem := p.api.do(http.MethodPost, p.path("/apps"), object{"appId": fmt.Sprintf("app-%05d", i), "app": object{
					"repository": p.repos[i/appsPerRepository].id, "branch": "main", "autoDeploy": true,
				}}, nil)
				mu.Lock()
				if problem != nil {
					p.b.Errorf("create app %d: %s: %s", i, problem.Reason, problem.Detail)
				}
				took = append(took, time.Since(began))
				mu.Unlock()
			}
		})
	}
	for i := from; i < to; i++ {
		numbers <- i
	}
	close(numbers)
	callers.Wait()
	if p.b.Failed() {
		p.b.FailNow()
	}
	return took, p.cpu() - used
}

// newHour forgets how many calls to Bitbucket were made: more apps are made at once than an hour's
// calls allow.
func (p *timed) newHour() {
	if err := p.redis.FlushAll(p.b.Context()).Err(); err != nil {
		p.b.Error(err)
	}
}

// manyApps measures creating many apps, and pages of them.
func manyApps(p *timed) []figure {
	began := time.Now()
	took, spent := p.createApps(0, *speedApps)
	all := time.Since(began)
	page := func(size int) float64 {
		var took []time.Duration
		for range 15 {
			began := time.Now()
			if got := len(objects(p.api.get(p.path("/apps?pageSize=%d", size))["apps"])); got != size {
				p.b.Fatalf("a page of %d has %d apps", size, got)
			}
			took = append(took, time.Since(began))
		}
		return median(took)
	}
	return []figure{
		{"create an app, 8 callers: CPU", float64(spent.Microseconds()) / 1000 / float64(len(took)), "ms", "≤ 6 ms"},
		{"… p99", quantile(took, 0.99), "ms", ""},
		{"… apps made", float64(len(took)) / all.Seconds(), "/s", "≥ 56 /s"},
		{"page of 50 apps", page(50), "ms", "≤ 10 ms"},
		{"page of 198 apps", page(198), "ms", "≤ 30 ms"},
	}
}

// thousandsOfApps measures making ten thousand apps, with all that follows from it, and what they cost while
// nobody uses them.
func thousandsOfApps(p *timed) []figure {
	const apps = 10_000
	began := time.Now()
	took, spent := p.createApps(0, apps)
	made := time.Since(began)
	p.quiet()
	idle := p.idle(apps, "≤ 5 %")
	figures := []figure{
		{"10,000 apps made, 8 callers", made.Seconds(), "s", "≤ 180 s"},
		{"… CPU of one", float64(spent.Microseconds()) / 1000 / float64(len(took)), "ms", "≤ 6 ms"},
	}
	return append(figures, idle...)
}

// idle is how much of a core the product uses while nobody uses it, and how many programs it starts where
// its system calls are written down.
func (p *timed) idle(apps int, goal string) []figure {
	p.b.Helper()
	const during = 45 * time.Second
	var used time.Duration
	var calls map[string]float64
	alone := func() {
		profile := p.profiled(during)
		before := p.cpu()
		p.pause(during) // what it uses meanwhile is the question
		used = p.cpu() - before
		profile()
	}
	if p.calls == "" {
		alone()
	} else {
		calls = p.counted(alone)
	}
	figures := []figure{{fmt.Sprintf("idle, %d apps", apps), 100 * used.Seconds() / during.Seconds(), "% of a core", goal}}
	if calls != nil {
		figures = append(figures,
			figure{fmt.Sprintf("… programs started in %v, %d apps", during, apps), calls["execve"], "", "0"},
			figure{fmt.Sprintf("… fsyncs in %v, %d apps", during, apps), calls["fsync"], "", ""})
	}
	return figures
}

// emptyFilter measures a page of a long history of which nothing matches. One deployment waits in a hook
// while the others are asked for, so that each takes the place of the one before and none has to run.
func emptyFilter(p *timed) []figure {
	const deployments = 4000
	p.watched("web", 0)
	p.api.must(http.MethodPatch, p.path("/apps/web"), object{"hooks": []object{{"stage": "POST_SOURCE_CONTROL", "name": "wait", "command": "sleep 3600"}}})
	numbers := make(chan int)
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for i := range numbers {
				if i%50 == 0 {
					p.newHour()
				}
				if problem := p.api.do(http.MethodPost, p.path("/apps/web/deployments"), object{}, nil); problem != nil {
					p.b.Errorf("deployment %d: %s: %s", i, problem.Reason, problem.Detail)
				}
			}
		})
	}
	for i := range deployments {
		numbers <- i
	}
	close(numbers)
	callers.Wait()
	if p.b.Failed() {
		p.b.FailNow()
	}
	newest := objects(p.api.get(p.path("/apps/web/deployments?pageSize=1"))["deployments"])
	if n, ok := newest[0]["number"].(float64); !ok || n < deployments {
		p.b.Fatalf("the newest deployment is number %v", newest[0]["number"])
	}
	var took []time.Duration
	for range 15 {
		began := time.Now()
		if got := objects(p.api.get(p.path("/apps/web/deployments?branch=none"))["deployments"]); len(got) != 0 {
			p.b.Fatalf("%d deployments are of a branch that there is not", len(got))
		}
		took = append(took, time.Since(began))
	}
	return []figure{{"a filter of 4,000 deployments that matches nothing", median(took), "ms", "≤ 15 ms"}}
}

// idleCost measures what the product uses while nobody uses it.
func idleCost(p *timed) []figure {
	var figures []figure
	made := 0
	for _, step := range []struct {
		apps int
		goal string
	}{{1, "≤ 0.5 %"}, {10, "≤ 0.6 %"}, {*speedApps, "≤ 1.5 %"}} {
		p.createApps(made, step.apps)
		made = step.apps
		p.quiet()
		figures = append(figures, p.idle(step.apps, step.goal)...)
	}
	return figures
}

// idleCalls counts what the product asks of the system while nobody uses it. Being traced costs time, which
// idleCost measures without.
func idleCalls(p *timed) []figure {
	const apps = 100
	p.createApps(0, apps)
	p.quiet()
	return p.idle(apps, "")[1:]
}

// pause lets the product alone for so long, or until the benchmark ends.
func (p *timed) pause(d time.Duration) {
	p.b.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.b.Context().Done():
		p.b.Fatal(p.b.Context().Err())
	}
}

// quiet waits until the product has done what it had to do: it uses little for some seconds.
func (p *timed) quiet() {
	p.b.Helper()
	for began := time.Now(); time.Since(began) < 5*time.Minute; {
		p.newHour()
		used := p.cpu()
		p.pause(5 * time.Second)
		if p.cpu()-used < 5*time.Second/4 {
			return
		}
	}
	p.b.Fatal("the product does not come to rest")
}
