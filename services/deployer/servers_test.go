package deployer_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// house is a worker that serves releases, in a bench.
type house struct {
	*bench
	address string
}

// house has the bench's own process, of the server "default", serve releases.
func (b *bench) house() *house {
	b.t.Helper()
	b.serveLive()
	return &house{b, b.keyset.Live.Addr().String()}
}

// beside starts a worker with a directory and a connection of its own; change may give it another one's
// directory.
func (b *bench) beside(server string, change ...func(*deployer.Config)) *house {
	b.t.Helper()
	c := *b
	listener, err := (&net.ListenConfig{}).Listen(b.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	c.cfg.Server, c.cfg.API, c.cfg.DataDir, c.cfg.CacheDir, c.cfg.LiveURL, c.keyset.Live = server, false, b.t.TempDir(), b.t.TempDir(), "http://localhost:8083", listener
	for _, fn := range change {
		fn(&c.cfg)
	}
	_, c.keyset.JS = b.nats.Connect()
	c.start()
	c.client = b.client
	return &house{&c, listener.Addr().String()}
}

// want waits until a page is answered so: what one worker does, another one hears of a moment later.
func (h *house) want(host string, status int, body string) (header http.Header) {
	h.t.Helper()
	testkit.Eventually(h.t, timeout, func() error {
		got, text, head := h.visit(http.MethodGet, h.address, host+".acme-inc.localhost", "/")
		if header = head; got != status || body != "" && text != body {
			return fmt.Errorf("%s at %s: %d %q, want %d %q", host, h.cfg.Server, got, text, status, body)
		}
		return nil
	})
	return header
}

// published deploys what the branch's head is then to an app's server.
func (b *bench) published(app, server, content string) {
	b.t.Helper()
	b.repo.Commit("main", content, map[string]string{"index.html": content})
	if server != "" {
		b.update(app, &deployerv1.App{Server: server}, "server")
	}
	b.deployed(app, deployerv1.Deployment_COMPLETED)
}

func (b *bench) createServed(app, server string) {
	b.t.Helper()
	a := web(false)
	a.Server, a.Serve = server, &deployerv1.ServeOptions{Directory: "."}
	b.create(app, a)
}

// Any worker answers for any app, as the worker does that has it.
func TestServers_anyWorkerAnswersForAnyApp(t *testing.T) {
	b := newBench(t)
	here := b.house()
	there := here.beside("eu")
	b.createServed("web", "default")
	b.createServed("far", "eu")
	b.published("web", "", "one")
	b.published("web", "", "two")
	b.published("far", "", "far away")
	there.want("web", 200, "two")
	there.want("1--web", 200, "one")
	here.want("far", 200, "far away")
	there.want("unknown", 404, "")
	there.want("9--web", 404, "")

	for name, headers := range map[string][]string{
		"page": nil, "compressed": {"Accept-Encoding", "gzip"}, "part": {"Range", "bytes=1-2"}, "no part": {"Range", "bytes=9-"}, "old": {"If-None-Match", `"x"`},
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
			for _, path := range []string{"/", "/missing.js", "/%2e%2e/a", "/a%2Fb?x=1;y"} {
				status, text, header := b.visit(method, here.address, "web.acme-inc.localhost", path, headers...)
				tag := header.Get("Etag")
				got, same, told := b.visit(method, there.address, "web.acme-inc.localhost", path, headers...)
				header.Del("Date")
				told.Del("Date")
				if got != status || same != text || fmt.Sprint(told) != fmt.Sprint(header) {
					t.Errorf("%s %s, %s: %d %q %v, want %d %q %v", method, path, name, got, same, told, status, text, header)
				}
				if tag != "" {
					if got, _, _ := b.visit(method, there.address, "web.acme-inc.localhost", path, "If-None-Match", tag); got != http.StatusNotModified {
						t.Errorf("%s %s with its tag: %d", method, path, got)
					}
				}
			}
		}
	}

	b.idle()
	const pages = 50
	if asked := b.leaderReads(func() {
		for range pages {
			there.wantNow("web", 200, "two")
			there.wantNow("unknown", 404, "")
		}
	}); len(asked) >= pages { // what a worker asks now and then does not count
		t.Errorf("%d pages of another server, and as many of no app, ask the leaders %d times: %q", pages, len(asked), asked)
	}

	b.nats.Stop()
	there.wantNow("web", 200, "two")
	there.wantNow("1--web", 200, "one")
	here.wantNow("far", 200, "far away")
	there.wantNow("unknown", 404, "")

	here.stopOne()
	if status, text, header := b.visit(http.MethodGet, there.address, "web.acme-inc.localhost", "/"); status != 503 || header.Get("Retry-After") == "" ||
		!strings.Contains(text, "does not answer") || strings.Contains(text, "127.0.0.1") || strings.Contains(text, "default") {
		t.Errorf("of a server that is away: %d %v %q", status, header, text)
	}
	there.wantNow("far", 200, "far away")
	there.wantNow("unknown", 404, "")
}

func (h *house) wantNow(host string, status int, body string) {
	h.t.Helper()
	if got, text, _ := h.visit(http.MethodGet, h.address, host+".acme-inc.localhost", "/"); got != status || body != "" && text != body {
		h.t.Errorf("%s at %s: %d %q, want %d %q", host, h.cfg.Server, got, text, status, body)
	}
}

// What a person keeps from visitors is not told by the way in which a worker cannot reach it.
func TestServers_hideWhatIsNotServed(t *testing.T) {
	b := newBench(t)
	here := b.house()
	there := here.beside("eu")
	b.createServed("web", "default")
	b.published("web", "", "one")
	there.want("web", 200, "one")
	b.update("web", &deployerv1.App{}, "serve")
	here.want("web", 404, "")
	here.stopOne()
	there.want("web", 404, "")
	there.want("1--web", 404, "")
}

// Any worker of the server that lives is good enough.
func TestServers_anyOfItsWorkersDoes(t *testing.T) {
	b := newBench(t)
	here := b.house()
	second := here.beside("default", func(c *deployer.Config) { c.DataDir = b.cfg.DataDir })
	there := here.beside("eu")
	b.createServed("web", "default")
	b.published("web", "", "one")
	there.want("web", 200, "one")
	second.want("web", 200, "one")
	here.stopOne()
	for range 10 {
		there.wantNow("web", 200, "one")
	}
	second.stopOne()
	there.want("web", 503, "")
}

// Of two servers that have a live release of an app the one counts that switched last.
func TestServers_theNewestSwitchWins(t *testing.T) {
	b := newBench(t)
	here := b.house()
	there := here.beside("eu")
	b.createServed("web", "default")
	b.published("web", "", "one")
	there.want("web", 200, "one")
	b.update("web", &deployerv1.App{Server: "eu"}, "server")
	here.want("web", 200, "one") // nothing was deployed there yet
	there.want("web", 200, "one")
	b.published("web", "", "two")
	here.want("web", 200, "two")
	there.want("web", 200, "two")
	here.want("1--web", 200, "one")
	there.want("1--web", 200, "one")
	here.want("2--web", 200, "two")

	there.stopOne()
	here.want("web", 503, "") // never the older release
	b.nats.Stop()
	here.wantNow("web", 503, "")
	b.nats.Start()
	b.published("web", "default", "three")
	here.want("web", 200, "three")
	here.want("1--web", 200, "one")
}

// What cannot be reached by anybody is refused at the start, and the setting is named.
func TestServers_refuseWhatIsNoAddress(t *testing.T) {
	b := newBench(t)
	for _, address := range []string{"http://10.0.0.7:8083", "10.0.0.7", "0.0.0.0:8083", ":8083", "worker:0"} {
		cfg := b.cfg
		cfg.LiveAddress = address
		if _, err := deployer.New(cfg, b.keyset); err == nil || !strings.Contains(err.Error(), "--live-advertise (DEVPILOT_LIVE_ADVERTISE)") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// What is announced is what a worker was told to announce, and nothing else is asked.
func TestServers_areAskedWhereTheyAnnounce(t *testing.T) {
	b := newBench(t)
	there := b.house().beside("eu", func(c *deployer.Config) { c.LiveAddress = "127.0.0.1:1" })
	b.createServed("far", "eu")
	b.published("far", "", "far away")
	there.want("far", 200, "far away")
	here := &house{b, b.keyset.Live.Addr().String()}
	here.want("far", 503, "")
}
