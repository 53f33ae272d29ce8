package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

// watched makes a repository of some files and an app that watches it, live.
func (p *timed) watched(app string, files int) (repository, *checkout) {
	p.b.Helper()
	repo := p.site().repository(p.b, app, "site")
	clone := p.site().clone(p.b, repo)
	fill(p.b, clone, files)
	hash := clone.commit("index.html", "first\n")
	clone.git("push", "--quiet", "origin", "HEAD:main")
	p.app(app, repo, "main")
	p.api.must("POST", p.path("/apps/%s/deployments", app), object{})
	p.live(app, hash)
	return repo, clone
}

// fill adds files to a checkout.
func fill(b testing.TB, clone *checkout, files int) {
	b.Helper()
	for i := range files {
		dir := filepath.Join(clone.dir, fmt.Sprintf("dir-%02d", i%20))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%05d.txt", i)), fmt.Appendf(nil, "file %d\n%s", i, strings.Repeat("text ", 100)), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	clone.git("add", ".")
}

// hook is an app's webhook as somebody sees it who delivers to it.
func (p *timed) hook(app string) (id string, h handmade) {
	p.b.Helper()
	id = fmt.Sprint(dig(p.api.get(p.path("/apps/%s", app)), "webhook", "id"))
	h.secret, h.url = p.reveal(id)
	return id, h
}

// decided waits until the newest delivery of a webhook has an outcome.
func (p *timed) decided(webhook, hash string) time.Duration {
	p.b.Helper()
	began := time.Now()
	for tick := time.Tick(2 * time.Millisecond); ; <-tick {
		list := objects(p.api.get(p.path("/webhooks/%s/deliveries?pageSize=1", webhook))["deliveries"])
		if len(list) == 1 && len(objects(list[0]["outcomes"])) > 0 && dig(objects(list[0]["changes"])[0], "newHash") == hash {
			return time.Since(began)
		}
		if time.Since(began) > 5*time.Minute {
			p.b.Fatalf("not decided: %v", list)
		}
	}
}

// burstBesideAPush measures how long a push of one webhook waits behind a burst on another.
func burstBesideAPush(p *timed) []figure {
	loud, _ := p.watched("loud", 0)
	quiet, _ := p.watched("quiet", 0)
	_, a := p.hook("loud")
	webhook, bell := p.hook("quiet")
	bell.body = pushOf(quiet, "main", hashOf(0))
	alone := time.Now()
	bell.post(p.b)
	p.decided(webhook, hashOf(0))
	took := time.Since(alone)
	const burst = 4000
	var sent sync.WaitGroup
	numbers := make(chan int)
	for range 64 {
		sent.Go(func() {
			for i := range numbers {
				d := a
				d.body = pushOf(loud, "unwatched", hashOf(i+1))
				d.post(p.b)
			}
		})
	}
	for i := range burst {
		numbers <- i
	}
	close(numbers)
	sent.Wait()
	bell.body = pushOf(quiet, "main", hashOf(burst+1))
	began := time.Now()
	bell.post(p.b)
	p.decided(webhook, hashOf(burst+1))
	return []figure{
		{"push alone, until decided", took.Seconds(), "s", ""},
		{"push right after 4,000 deliveries on another webhook", time.Since(began).Seconds(), "s", "≤ 1 s"},
	}
}

// routingKeepsUp measures how far behind routing is after some seconds of all the load it accepts.
func routingKeepsUp(p *timed) []figure {
	repo, _ := p.watched("web", 0)
	webhook, h := p.hook("web")
	all := p.each(p.deliveries(h, repo, 0, 20_000))
	used := p.cpu()
	r := p.load(16, 5*time.Second, all)
	ended := time.Now()
	last := hashOf(1 << 30)
	h.body = pushOf(repo, "unwatched", last)
	h.post(p.b)
	p.decided(webhook, last)
	lag := time.Since(ended)
	return []figure{
		{"accepted for 5 s, 16 connections", r.rate(), "/s", ""},
		{"routing behind after that", lag.Seconds(), "s", "< 1 s"},
		{"routed", float64(r.done) / (5 + lag.Seconds()), "/s", ""},
		{"CPU of a delivery, from accepted to decided", float64((p.cpu() - used).Microseconds()) / 1000 / float64(r.done), "ms", ""},
	}
}

// ingestBesidePlainServer compares with a server that checks the signature, parses and forgets.
func ingestBesidePlainServer(p *timed) []figure {
	repo, _ := p.watched("web", 0)
	_, h := p.hook("web")
	plain := startPlain(p.b)
	var figures []figure
	for i, connections := range []int{1, 8, 64, 256} {
		all := p.deliveries(h, repo, i<<20, []int{2_000, 6_000, 12_000, 12_000}[i])
		at := func(path string) func() *http.Request {
			there := slices.Clone(all)
			for i := range there {
				there[i].url = plain + path + h.secret
			}
			return p.each(there)
		}
		requests, forgotten, stored := p.each(all), at("/webhook/"), at("/synced/")
		ceiling := p.load(connections, longest, forgotten)
		naive := p.load(connections, longest, stored)
		got := p.load(connections, longest, requests)
		synced := p.syncedPublishes(connections, all)
		goal, least := "", "≥ 1"
		if connections == 1 {
			least = "≥ 0.9"
		}
		if connections == 64 {
			goal = "≥ 0.6, p99 < 25 ms"
		}
		figures = append(figures,
			figure{fmt.Sprintf("ingest beside a plain server, %d connections", connections), got.rate() / ceiling.rate(), "×", goal},
			figure{fmt.Sprintf("… p99, %d connections", connections), got.p99, "ms", ""},
			figure{fmt.Sprintf("… beside a plain server with one synced publish each, %d connections", connections), got.rate() / naive.rate(), "×", least},
			figure{fmt.Sprintf("… beside those publishes alone, without requests, %d connections", connections), got.rate() / synced.rate(), "×", ""})
	}
	return figures
}

// stalledGits measures a push of an app without rules while pushes with path rules wait for git.
func stalledGits(p *timed) []figure {
	const stalled = 20
	var repos []repository
	for i := range stalled {
		app := fmt.Sprintf("rules-%d", i)
		repo, _ := p.watched(app, 0)
		p.api.must("PATCH", p.path("/apps/%s", app), object{"rules": object{"paths": []any{"site/**"}}})
		repos = append(repos, repo)
	}
	plain, _ := p.watched("plain", 0)
	webhook, _ := p.hook("plain")
	for _, repo := range repos {
		if _, err := p.site().Inject(p.b.Context(), emulator.Fault{Kind: emulator.FaultSlow, Route: "git", Repository: repo.name, Delay: time.Minute}); err != nil {
			p.b.Fatal(err)
		}
	}
	for _, repo := range repos {
		p.site().commit(p.b, repo, "main", "waits for git")
	}
	if err := p.site().WaitIdle(p.b.Context()); err != nil {
		p.b.Fatal(err)
	}
	hash := p.site().commit(p.b, plain, "main", "waits for nobody")
	took := p.decided(webhook, hash)
	if err := p.site().ClearFaults(p.b.Context()); err != nil {
		p.b.Fatal(err)
	}
	return []figure{{"push without rules beside 20 whose git stalls, until decided", took.Seconds(), "s", "≤ 1 s"}}
}

// readsBesidePlainServer compares reading an app with a server that prints the same JSON.
func readsBesidePlainServer(p *timed) []figure {
	p.watched("web", 0)
	app := p.api.get(p.path("/apps/web"))
	plain := startPlain(p.b)
	cookies := p.api.http.Jar.Cookies(must(http.NewRequest(http.MethodGet, p.url()+"/v1/me", nil)).URL)
	get := func(url string) func() *http.Request {
		return func() *http.Request {
			r := must(http.NewRequestWithContext(p.b.Context(), http.MethodGet, url, nil))
			for _, c := range cookies {
				r.AddCookie(c)
			}
			return r
		}
	}
	servePlainly(p.b, plain, app)
	ceiling := p.load(16, 4*time.Second, get(plain+"/app"))
	used := p.cpu()
	got := p.load(16, 4*time.Second, get(p.url()+p.path("/apps/web")))
	spent := p.cpu() - used
	return []figure{
		{"GET an app beside a plain JSON server, 16 connections", got.rate() / ceiling.rate(), "×", "≥ 0.2"},
		{"… CPU of one", float64(spent.Microseconds()) / 1000 / float64(got.done), "ms", ""},
		{"… p99", got.p99, "ms", ""},
	}
}

// repeatBesideClone compares deploying a changed repository with cloning it. The pushes come a second
// apart: those that follow each other within a webhook's turn are routed together, and wait for it.
func repeatBesideClone(p *timed) []figure {
	repo, clone := p.watched("web", 200)
	remote := p.site().remote(p.b, repo)
	var deploys, clones []time.Duration
	for i := range 12 {
		text := fmt.Sprintf("push %d\n", i)
		hash := clone.commit("index.html", text)
		p.pause(time.Second)
		clone.git("push", "--quiet", "origin", "HEAD:main")
		deploys = append(deploys, p.shown([]string{"web"}, text))
		p.live("web", hash)
		clones = append(clones, p.cloned(remote))
	}
	return []figure{
		{"push to live, 200 files", median(deploys), "ms", "< 250 ms"},
		{"… beside git clone --depth 1", median(deploys) / median(clones), "×", "≤ 1 ×"},
	}
}

// cloned measures one clone.
func (p *timed) cloned(remote string) time.Duration {
	dir := filepath.Join(p.b.TempDir(), uuid.NewString())
	began := time.Now()
	cmd := exec.CommandContext(p.b.Context(), "git", "clone", "--quiet", "--depth", "1", remote, dir) // of a repository of this test
	cmd.Env = append(cleanEnviron(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_TERMINAL_PROMPT=0")
	if raw, err := cmd.CombinedOutput(); err != nil {
		p.b.Fatalf("git clone: %v\n%s", err, raw)
	}
	return time.Since(began)
}

// appsOfOneRepository compares ten apps that one push deploys with ten clones, two at a time.
func appsOfOneRepository(p *timed) []figure {
	const apps = 10
	repo, clone := p.watched("web-0", 200)
	remote := p.site().remote(p.b, repo)
	for i := range apps - 1 {
		p.app(fmt.Sprintf("web-%d", i+1), repo, "main")
	}
	var names, remotes []string
	for i := range apps {
		names, remotes = append(names, fmt.Sprintf("web-%d", i)), append(remotes, remote)
	}
	round := func(text string) time.Duration {
		clone.commit("index.html", text)
		clone.git("push", "--quiet", "origin", "HEAD:main")
		return p.shown(names, text)
	}
	clones := func() time.Duration { return p.cloneAll(remotes) }
	first := round("first everywhere\n")
	beside := clones()
	var repeats, besides []time.Duration
	for i := range 4 {
		repeats = append(repeats, round(fmt.Sprintf("again %d\n", i)))
		besides = append(besides, clones())
	}
	return []figure{
		{"ten apps of a repository beside ten clones: first", first.Seconds() / beside.Seconds(), "×", "≤ 0.6 ×"},
		{"… repeat", median(repeats) / median(besides), "×", "≤ 0.5 ×"},
	}
}

// tailOfALongLog measures the end of a log of 20,000 lines.
func tailOfALongLog(p *timed) []figure {
	p.watched("web", 0)
	p.api.must("PATCH", p.path("/apps/web"), object{"hooks": []object{{"stage": "POST_SOURCE_CONTROL", "name": "talk", "command": "seq -f 'line %06g of a hook that says what it does' 20000"}}})
	begun := p.api.must("POST", p.path("/apps/web/deployments"), object{})
	path := p.path("/apps/web/deployments/%v", begun["number"])
	p.await(path, func(d object) error {
		if d["state"] != "COMPLETED" {
			return fmt.Errorf("the deployment is %v: %v", d["state"], d["error"])
		}
		return nil
	})
	var took []time.Duration
	for range 20 {
		began := time.Now()
		resp := must(p.api.http.Get(p.url() + path + "/log?tail=10"))
		raw := readAll(p.b, resp)
		took = append(took, time.Since(began))
		if !strings.Contains(raw, "\n") {
			p.b.Fatalf("the log is %q", raw)
		}
	}
	return []figure{{"log?tail=10 of 20,000 lines", median(took), "ms", "≤ 5 ms"}}
}
