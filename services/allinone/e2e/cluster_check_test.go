package e2e

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

// pages reads all pages of a list.
func (l *crowd) pages(path, field string) (all []object) {
	l.t.Helper()
	for token := ""; ; {
		page := l.api.get(l.path("%s?pageSize=200&pageToken=%s", path, url.QueryEscape(token)))
		all = append(all, objects(page[field])...)
		if token, _ = page["nextPageToken"].(string); token == "" {
			return all
		}
	}
}

// account is what became of all pushes.
type account struct {
	pushes, taken, found, passed, deployments, completed, superseded int
}

func (a account) String() string {
	return fmt.Sprintf("%d pushes: %d deliveries taken, %d pushes found by polling, %d passed by; %d deployments: %d completed, %d superseded",
		a.pushes, a.taken, a.found, a.passed, a.deployments, a.completed, a.superseded)
}

// check asks the API what became of every push, and fails the test where one was lost or counted twice. What was pushed
// last may be live before its delivery is listed and has its outcome.
func (l *crowd) check() (sum account) {
	l.t.Helper()
	testkit.Eventually(l.t, afterFaults, func() error {
		l.collect()
		l.wrong, sum = nil, account{}
		for _, a := range l.apps {
			l.checkDeliveries(a, &sum)
			l.checkDeployments(a, &sum)
		}
		return errors.Join(l.wrong...)
	})
	return sum
}

// isWrong notes something that should not be.
func (l *crowd) isWrong(format string, args ...any) {
	l.wrong = append(l.wrong, fmt.Errorf(format, args...))
}

// checkDeliveries holds the list of deliveries against the pushes to an app's branch: one that was taken stands there
// once, with one outcome.
func (l *crowd) checkDeliveries(a *clusterApp, sum *account) {
	l.t.Helper()
	came, found := map[string]int{}, map[string]int{}
	for _, d := range l.pages("/webhooks/"+a.webhook+"/deliveries", "deliveries") {
		for i, change := range objects(d["changes"]) {
			hash := fmt.Sprint(change["newHash"])
			if change["ref"] != a.branch {
				continue
			}
			if d["found"] == nil {
				came[hash]++
			} else {
				found[hash]++
			}
			l.checkOutcome(a, d, i, hash, sum)
		}
	}
	for _, p := range a.all() {
		sum.pushes++
		sum.taken += came[p.hash]
		sum.found += found[p.hash]
		switch taken := l.accepted[p.hash]; {
		case came[p.hash] > 1 || found[p.hash] > 1:
			l.isWrong("%s of %s is listed as %d deliveries and %d found", p.page, a.id, came[p.hash], found[p.hash])
		case taken && came[p.hash] == 0:
			l.isWrong("%s of %s is lost: Bitbucket's delivery was answered 2xx, and none is listed (%d found)", p.page, a.id, found[p.hash])
		}
	}
}

// checkOutcome has one final outcome of each change of a delivery.
func (l *crowd) checkOutcome(a *clusterApp, delivery object, change int, hash string, sum *account) {
	l.t.Helper()
	var list []object
	for _, o := range objects(delivery["outcomes"]) {
		if at, _ := o["change"].(float64); int(at) == change {
			list = append(list, o)
		}
	}
	if len(list) != 1 || list[0]["app"] != a.id {
		l.isWrong("delivery %v, %.7s of %s, came to %v", delivery["number"], hash, a.id, list)
		return
	}
	switch o := list[0]; {
	case o["kind"] == "DEPLOYMENT":
	case o["kind"] == "IGNORED" && o["reason"] == "SEEN_BEFORE":
		sum.passed++ // what was pushed after it was decided first
	default:
		l.isWrong("delivery %v, %.7s of %s, came to %v", delivery["number"], hash, a.id, o)
	}
}

// checkDeployments has each commit asked for once and deployed once at most, and the last one live alone.
func (l *crowd) checkDeployments(a *clusterApp, sum *account) {
	l.t.Helper()
	asked, deployed, live := map[string][]any{}, map[string][]any{}, []any{}
	list := l.pages("/apps/"+a.id+"/deployments", "deployments")
	for i, d := range list {
		sum.deployments++
		if want := float64(len(list) - i); d["number"] != want {
			l.isWrong("deployment %v of %s stands where %v should", d["number"], a.id, want)
		}
		commit := fmt.Sprint(dig(d, "commit", "hash"))
		request := commit
		if r := dig(d, "requestedCommit", "hash"); r != nil {
			request = fmt.Sprint(r)
		}
		asked[request] = append(asked[request], d["number"])
		switch d["state"] {
		case "COMPLETED":
			sum.completed++
			deployed[commit] = append(deployed[commit], d["number"])
		case "SUPERSEDED":
			sum.superseded++
		default:
			l.isWrong("deployment %v of %s is %v: %v, %v", d["number"], a.id, d["state"], d["error"], d["waitingFor"])
		}
		if d["live"] == true {
			live = append(live, commit)
		}
	}
	for what, by := range map[string]map[string][]any{"asked for": asked, "deployed": deployed} {
		for hash, numbers := range by {
			if len(numbers) > 1 {
				l.isWrong("%.7s of %s is %s by deployments %v", hash, a.id, what, numbers)
			}
		}
	}
	if len(live) != 1 || live[0] != a.last().hash {
		l.isWrong("%s has %v live, not %s alone", a.id, live, a.last().hash)
	}
}

// held is what a process holds.
type held struct{ files, goroutines int }

// holds reads what a process holds: from its system, and from its own metrics.
func (c *cluster) holds(p seat) (h held) {
	c.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.at(p).Pid()))
	if err != nil {
		c.t.Fatal(err)
	}
	h.files = len(entries)
	h.goroutines = int(scrape(c.t, c.at(p).ops)["go_goroutines"].GetMetric()[0].GetGauge().GetValue())
	return h
}

// inventory is what a cluster holds while nothing happens.
type inventory struct {
	of        map[seat]held
	consumers int
}

func (c *cluster) inventory() inventory {
	c.t.Helper()
	now := inventory{of: map[seat]held{}}
	for _, p := range c.seats() {
		now.of[p] = c.holds(p)
	}
	for _, info := range streams(c.t, c.js(c.t)) {
		now.consumers += info.State.Consumers
	}
	return now
}

// leftNothing waits until the cluster holds no more than before, but for a little, and finds nothing of what was under way.
func (l *crowd) leftNothing(before inventory) {
	l.t.Helper()
	c := l.c
	testkit.Eventually(l.t, afterFaults, func() error {
		now := c.inventory()
		for p, h := range now.of {
			// A process that has just started has fewer connections than one that has answered everybody.
			if was := before.of[p]; h.files > 2*was.files+50 || h.goroutines > 2*was.goroutines+100 {
				return fmt.Errorf("%v holds %+v, and held %+v", p, h, was)
			}
		}
		return nil
	})
	if *clusterFor >= time.Minute { // NATS keeps a consumer whose reader is gone for five minutes
		testkit.Eventually(l.t, 2*time.Minute, func() error {
			if now := c.inventory(); now.consumers > before.consumers+10 {
				return fmt.Errorf("NATS has %d consumers, and had %d", now.consumers, before.consumers)
			}
			return nil
		})
	}
	testkit.Eventually(l.t, afterFaults, func() error {
		ours := c.pids()
		if all := family(l.t, ours); len(all) != len(ours) {
			return fmt.Errorf("%d processes run, and %d should: %v", len(all), len(ours), programsOf(all))
		}
		return nil
	})
	testkit.Eventually(l.t, afterFaults, func() error { return l.directories() })
}

func programsOf(list []relative) (all []string) {
	for _, r := range list {
		all = append(all, r.name)
	}
	return all
}

// mostReleases is the largest retention that the crowd sets, the one that is live, and the spare for the next.
const mostReleases = 7

// directories says what lies on disk that should not.
func (l *crowd) directories() error {
	for _, a := range l.apps {
		at := l.c.disk.outside("apps", clusterWorkspace, a.id)
		entries, err := os.ReadDir(filepath.Join(at, "releases"))
		if err != nil {
			return err
		}
		if len(entries) > mostReleases {
			return fmt.Errorf("%s has the releases %v", a.id, entries)
		}
	}
	return nil
}

// noSecrets searches what the processes logged.
func (l *crowd) noSecrets() {
	l.t.Helper()
	look := newSearch(l.t, l.secrets())
	look.in("the log", []byte(l.c.output()))
	look.nothing()
}
