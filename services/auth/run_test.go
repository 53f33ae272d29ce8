package auth_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/testkit"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/auth"
)

func TestRun_leavesNothingBehind(t *testing.T) {
	s := newStackAlone(t, emulator.Options{})
	for n := range 3 {
		_, js := s.nats.Connect()
		rc := s.redis.Client()
		svc, err := auth.New(s.config(), auth.Deps{Logger: s.logs.Logger, JS: js, Redis: rc, Keyset: s.keyset})
		if err != nil {
			t.Fatal(err)
		}
		if svc.Ready(t.Context()) == nil {
			t.Error("ready before it ran")
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- svc.Run(ctx) }()
		testkit.Eventually(t, timeout, func() error { return svc.Ready(ctx) })
		if len(ours()) == 0 {
			t.Fatal("the search finds nothing even while the service runs")
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("stop %d: %v", n, err)
		}
		// The embedded server has goroutines of its own; only ours are looked for.
		testkit.Eventually(t, timeout, func() error {
			if left := ours(); len(left) > 0 {
				return fmt.Errorf("still running:\n%s", strings.Join(left, "\n\n"))
			}
			return nil
		})
	}
}

// ours are the stacks of goroutines that run code of the service or of what it watches with.
func ours() []string {
	buf := make([]byte, 4<<20)
	var left []string
	for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		for _, pkg := range []string{"services/auth/internal/", "services/auth.(", "bitbucket/pkg/kv.", "bitbucket/pkg/stream."} {
			if strings.Contains(g, pkg) {
				left = append(left, g)
				break
			}
		}
	}
	return left
}

func TestRun_restartKeepsTheConnection(t *testing.T) {
	s := newStack(t, emulator.Options{})
	first := s.start("first")
	s.connect(first, "acme-inc", "jane-dev")
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	s.nats.Restart()
	second := s.start("second")
	s.expire()
	if r, err := issue(t, second.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"}); err != nil || s.works(r.GetAccessToken()) != nil {
		t.Errorf("%v", err)
	}
}

func TestNew_namesWhatIsMissing(t *testing.T) {
	s := newStack(t, emulator.Options{})
	good := auth.Deps{Logger: s.logs.Logger, JS: s.nats.JS(), Redis: s.redis.Client(), Keyset: s.keyset}
	for name, f := range map[string]func(*auth.Config, *auth.Deps){
		"Logger":    func(_ *auth.Config, d *auth.Deps) { d.Logger = nil },
		"JS":        func(_ *auth.Config, d *auth.Deps) { d.JS = nil },
		"Redis":     func(_ *auth.Config, d *auth.Deps) { d.Redis = nil },
		"Keyset":    func(_ *auth.Config, d *auth.Deps) { d.Keyset = nil },
		"PublicURL": func(c *auth.Config, _ *auth.Deps) { c.PublicURL = "devpilot.example.com" },
		"Site":      func(c *auth.Config, _ *auth.Deps) { c.Site = bitbucket.Site{} },
	} {
		cfg, deps := s.config(), good
		f(&cfg, &deps)
		if _, err := auth.New(cfg, deps); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	if _, err := auth.New(s.config(), good); err != nil {
		t.Error(fmt.Errorf("complete: %w", err))
	}
}
