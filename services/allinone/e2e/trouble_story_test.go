package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/testkit"
)

// story is a trouble on its way: an app "web" of the repository's main, and "held", which was rolled back
// on develop.
type story struct {
	*tenant
	trouble
	t       *testing.T
	g       *ground
	account string
	repo    repository
	pushes  []string // commits, in order
	page    string   // of the last one
	old     emulator.Attempt
	webhook any
}

func (g *ground) tell(t *testing.T, x trouble, lengths []length) {
	s := g.prepare(t, x, strings.ReplaceAll(t.Name()[strings.LastIndexByte(t.Name(), '/')+1:], "_", "-"))
	for _, l := range lengths {
		began := time.Now()
		ids := g.inject(t, x.faults, func(f *emulator.Fault) { s.about(f, l) })
		if x.plane == deliveries {
			s.pushUndelivered(l)
		} else {
			s.suffer(l, ids)
		}
		hits := g.lift(t, ids)
		lasted := time.Since(began)
		live := g.appears(s.tenant, s.web(), s.page, recovery)
		s.health(l)
		g.told.add("%-22s %-6s for %6v, met %3d times, live %6v after its end", x.name(), l, lasted.Round(100*time.Millisecond), hits, live.Round(10*time.Millisecond))
	}
}

// prepare makes what a story needs, while all is well. The slug names its repository, apps and account. It gives back
// a place of g.making, which the caller took.
func (g *ground) prepare(t *testing.T, x trouble, slug string) *story {
	defer func() { <-g.making }()
	s := &story{trouble: x, t: t, g: g, account: "common"}
	if x.ofRepo {
		common := *g.common
		common.t, common.api = t, g.owner.with(t)
		s.tenant = &common
	} else {
		s.account = slug
		s.tenant = g.connected(t, slug, slug)
	}
	s.repo = g.repository(t, slug, s.account)
	s.webhook = dig(s.appWhenAllowed(s.web(), s.repo, "main"), "webhook", "id")
	s.push()
	g.appears(s.tenant, s.web(), s.page, timeout)
	s.appWhenAllowed(s.held(), s.repo, "develop")
	for i := range 2 {
		page := fmt.Sprintf("develop %d", i)
		g.site().commit(t, s.repo, "develop", page)
		g.appears(s.tenant, s.held(), page, timeout)
	}
	attempts, err := g.site().Deliveries(t.Context(), onlyHook(t, g.site(), s.repo), 0)
	if err != nil {
		t.Fatal(err)
	}
	s.old = attempts[len(attempts)-1]
	s.settled(s.held()) // live a moment before it is written down
	back := s.api.must("POST", s.path("/apps/%s:rollback", s.held()), object{})
	s.ended(s.held(), back["number"], "COMPLETED")
	return s
}

// appWhenAllowed makes an app, as soon as the account may call Bitbucket: stories of one account run beside each
// other, and when Bitbucket limits it about several things, all of it waits for as long as Bitbucket says, which is
// two seconds.
func (n *tenant) appWhenAllowed(id string, repo repository, branch string) object {
	n.t.Helper()
	testkit.Eventually(n.t, timeout, func() error {
		p := n.api.do("POST", n.path("/apps"), newApp(id, repo, branch), nil)
		if p == nil {
			return nil
		}
		err := fmt.Errorf("make %s: %d %s: %s", id, p.Status, p.Reason, p.Detail)
		if p.Reason != "BITBUCKET_RATE_LIMITED" || p.RetryAfterSeconds < 1 || p.RetryAfterSeconds > 2 {
			n.t.Fatal(err)
		}
		return err
	})
	return n.hooked(id)
}

func (s *story) web() string  { return s.repo.name[len("acme/"):] }
func (s *story) held() string { return s.web() + "-held" }

// about aims a fault at the story.
func (s *story) about(f *emulator.Fault, l length) {
	if s.ofRepo {
		f.Repository = s.repo.name
	}
	if s.plane != deliveries {
		f.Account = s.account // people go on pushing
	}
	if l == short {
		f.Times = 1
	}
}

// push has Bitbucket take a push of a page. That people push with git is for other tests: a push with it is
// some thirty processes, and hundreds of them would be what this one waits for.
func (s *story) push() {
	s.t.Helper()
	s.page = fmt.Sprintf("push %d", len(s.pushes)+1)
	s.pushes = append(s.pushes, s.g.site().commit(s.t, s.repo, "main", s.page))
}

// suffer pushes while the faults last. An old delivery comes again meanwhile.
func (s *story) suffer(l length, ids []string) {
	s.t.Helper()
	if s.plane == tokens {
		s.expire()
	}
	s.push()
	if err := s.g.site().ResendDelivery(s.t.Context(), s.old.ID); err != nil {
		s.t.Fatal(err)
	}
	s.use()
	switch l {
	case short:
		// Some calls are made seldom: then there was no trouble.
		until := time.Now().Add(mediumTrouble)
		testkit.Eventually(s.t, recovery, func() error {
			left := s.g.left(s.t)
			for _, id := range ids {
				if _, there := left[id]; there && time.Now().Before(until) {
					return errors.New("no request has met the fault")
				}
			}
			return nil
		})
	case medium:
		<-time.After(mediumTrouble / 2) // how long it lasts is the point
		s.push()
		s.use()
		<-time.After(mediumTrouble / 2)
	case long:
		<-time.After(longTrouble / 2)
		s.push()
		s.use()
		<-time.After(longTrouble / 2)
		if s.plane == tokens {
			<-time.After(longTokenTrouble - longTrouble)
		}
		if s.doubtful {
			s.untilBelieved()
		}
	}
}

// use is what a person does meanwhile that makes calls of the plane which deployments make seldom. It
// may be refused, in words.
func (s *story) use() {
	s.t.Helper()
	for _, call := range map[string][][2]string{
		"repository": {{"GET", s.path("/repositories/%s", s.repo.id)}, {"POST", s.path("/webhooks/%v:repair", s.webhook)}},
		"branches":   {{"GET", s.path("/repositories/%s/branches", s.repo.id)}},
		"hooks":      {{"POST", s.path("/webhooks/%v:register", s.webhook)}, {"POST", s.path("/webhooks/%v:repair", s.webhook)}},
	}[s.plane] {
		var body any
		if call[0] == "POST" {
			body = object{}
		}
		if p := s.api.do(call[0], call[1], body, nil); p != nil && p.Status == 500 {
			s.t.Errorf("%s %s: %d %s: %s", call[0], call[1], p.Status, p.Reason, p.Detail)
		}
	}
}

// untilBelieved waits until the newest push has failed, or for so long that it should have.
func (s *story) untilBelieved() {
	s.t.Helper()
	until := time.Now().Add(mostTrouble - longTrouble)
	for time.Now().Before(until) {
		if list := s.deployments(s.web()); list[0]["state"] == "FAILED" {
			return
		}
		<-time.After(time.Second)
	}
}

// expire ends the account's access tokens, so that the next call needs the token endpoint.
func (s *story) expire() {
	s.t.Helper()
	state, err := s.g.site().State(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, grant := range state.Grants {
		if grant.Account != emulator.SeededUUID("account", s.account) {
			continue
		}
		if _, err := s.g.site().ExpireTokens(s.t.Context(), grant.ID); err != nil {
			s.t.Fatal(err)
		}
	}
}

// pushUndelivered pushes while deliveries go astray; an old one comes once more, as a new one.
func (s *story) pushUndelivered(l length) {
	s.t.Helper()
	for range map[length]int{short: 1, medium: 3, long: 6}[l] {
		s.push()
	}
	if _, err := s.g.site().Deliver(s.t.Context(), s.repo.name, "repo:push", []byte(s.old.Body)); err != nil {
		s.t.Fatal(err)
	}
}

// health checks all that must be as before.
func (s *story) health(l length) {
	t := s.t
	t.Helper()
	testkit.Eventually(t, recovery, func() error {
		if integration := s.api.get(s.path("/integrations/bitbucket")); integration["state"] != "CONNECTED" {
			return fmt.Errorf("after %s the connection is %v: %v", l, integration["state"], integration["lastError"])
		}
		return nil
	})
	s.await(s.path("/apps/%s", s.web()), func(app object) error {
		if state := dig(app, "webhook", "state"); state != "ACTIVE" {
			return fmt.Errorf("after %s the webhook is %v: %v", l, state, dig(app, "webhook", "message"))
		}
		return nil
	})
	times := map[any]int{}
	for _, d := range s.settled(s.web()) {
		if d["state"] == "COMPLETED" {
			times[dig(d, "commit", "hash")]++
		}
	}
	for i, hash := range s.pushes {
		if times[hash] > 1 {
			t.Errorf("after %s push %d was deployed %d times: %s", l, i+1, times[hash], brief(s.deployments(s.web())))
		}
	}
	if got := s.g.shows(s.tenant, s.web()); got != s.page {
		t.Errorf("after %s %q is live in the end, want %q", l, got, s.page)
	}
	if got := s.g.shows(s.tenant, s.held()); got != "develop 0" {
		t.Errorf("after %s what was rolled back shows %q: %s", l, got, brief(s.deployments(s.held())))
	}
	onlyHook(t, s.g.site(), s.repo)
}
