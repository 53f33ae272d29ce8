package e2e

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

// TestAlone_RollingRestarts restarts every process of the services and every server of NATS, one after the other, while
// people push and programs call the API without trying again: no call fails, no delivery is refused, and what was written
// at any moment is read, opened and deployed at all later ones.
//
// make upgrade runs it with programs that were built earlier: everything begins with them and goes over to this tree's, back and
// over again, so that old and new write and read the same stores beside each other.
func TestAlone_RollingRestarts(t *testing.T) {
	seed := seeded(t)
	c := openCluster(t, pair)
	l := c.prepare(t, *clusterRepos)
	before := c.inventory()
	l.begin(seed, *clusterRate, *clusterPushes, 2)
	j := &journal{crowd: l}
	j.write("before all restarts")
	for i := range *clusterRolls {
		c.rollAll(*clusterFrom != "" && i%2 == 1, func() { j.turn(fmt.Sprintf("halfway through roll %d", i+1)) })
		j.turn(fmt.Sprintf("after roll %d", i+1))
		if *clusterFrom == "" { // what an upgrade of ours does not touch stays
			c.rollNATS()
		}
	}
	l.end()
	l.settle("after all restarts", afterFaults)
	sum := l.check()
	for _, call := range l.made() {
		if call.err != nil {
			t.Errorf("%s at %s, after %v: %v", call.what, call.at.Format("15:04:05.000"), call.took.Round(time.Millisecond), call.err)
		}
	}
	// A push may be found as well: a server of NATS that restarts holds up what was taken, and polls look meanwhile.
	if sum.taken != sum.pushes {
		t.Errorf("not every delivery was taken: %v", sum)
	}
	for _, hash := range j.pushed {
		if !l.accepted[hash] {
			t.Errorf("the delivery of %.7s was not taken", hash)
		}
	}
	l.leftNothing(before)
	l.noSecrets()
	l.noSecretsStored()
	t.Logf("%d restarts of everything\n%v\n%v", *clusterRolls, sum, toldOf(l.made()))
}

// rollAll restarts every process, one after the other, each when the one before is ready: the first of each service, then the second. Those
// of before and those of afterwards are beside each other between them, which is when halfway is called.
func (c *cluster) rollAll(earlier bool, halfway func()) {
	c.t.Helper()
	for i := range clusterDeployers {
		for _, service := range testkit.Services {
			if i >= len(c.replicas[service]) {
				continue
			}
			p := seat{service, i}
			c.earlier[p] = earlier
			c.at(p).Terminate()
			c.at(p).Start()
			c.await(c.at(p))
		}
		if i == 0 {
			halfway()
		}
	}
}

// journal is what was written at several moments of an upgrade, for each later one to read.
type journal struct {
	*crowd
	moments []*moment
	pushed  []string // commits
}

// moment is what was written at one of them: a workspace that was connected, a key for its API, and an app with a secret variable.
type moment struct {
	*tenant
	when, variable string
	repo           repository
	program        *api // with the key
}

const momentApp = "web"

// turn reads what was written before, and writes something more.
func (j *journal) turn(when string) {
	j.t.Helper()
	for _, m := range j.moments {
		j.read(m, when)
	}
	j.write(when)
}

func (j *journal) write(when string) {
	j.t.Helper()
	name := fmt.Sprintf("moment-%d", len(j.moments)+1)
	m := &moment{tenant: j.shared.tenant(j.t, name), when: when, variable: name + "-71d2a08b4e65c3f9", repo: j.c.bucket.repository(j.t, name, "site")}
	m.plant("the variable of "+name, m.variable)
	m.program = m.key("OWNER")
	app := object{
		"repository": m.repo.id, "branch": "main", "autoDeploy": true, "serve": object{"directory": "."},
		"variables": []object{{"name": "TOKEN", "value": m.variable, "secret": true}},
	}
	if j.c.disk.asRoot {
		app["hooks"] = []object{{"name": "open", "stage": "POST_SETUP", "command": `printf %s "$TOKEN" | sha256sum | cut -d " " -f 1 > opened.txt`}}
	}
	m.api.must(http.MethodPost, m.path("/apps"), object{"appId": momentApp, "app": app})
	m.hooked(momentApp)
	j.moments = append(j.moments, m)
	j.read(m, when)
}

// read has whoever runs now read what was written at a moment: the key is known, the app is there, the connection's token lists branches, a push is
// taken by the webhook's secret, and its deployment opens the variable. Gateways take turns.
func (j *journal) read(m *moment, when string) {
	j.t.Helper()
	for range pair {
		app := m.program.must(http.MethodGet, m.path("/apps/%s", momentApp), nil)
		if app["repository"] != m.repo.id || len(asList(app["variables"])) != 1 {
			j.t.Errorf("%s the app of %s is %v", when, m.when, app)
		}
		testkit.Eventually(j.t, timeout, func() error {
			list := object{}
			switch p := m.program.do(http.MethodGet, m.path("/repositories/%s/branches", m.repo.id), nil, &list); {
			case p != nil && p.Reason == limitReached:
				return errors.New(p.Detail)
			case p != nil || len(asList(list["branches"])) == 0:
				j.t.Fatalf("%s no branches are there for what is of %s: %+v, %v", when, m.when, p, list)
			}
			return nil
		})
	}
	page := "pushed " + when
	hash := m.site().commit(j.t, m.repo, "main", page)
	j.pushed = append(j.pushed, hash)
	m.live(momentApp, hash)
	shows := map[string]string{"/": page + "\n"}
	if j.c.disk.asRoot {
		shows["/opened.txt"] = fmt.Sprintf("%x\n", sha256.Sum256([]byte(m.variable)))
	}
	for path, want := range shows {
		testkit.Eventually(j.t, timeout, func() error {
			status, body, _ := request(j.c.t, j.c.live.address+path, momentApp+"."+m.workspace+".localhost")
			if status != http.StatusOK || body != want {
				return fmt.Errorf("%s the app of %s shows %d %q at %s, not %q", when, m.when, status, body, path, want)
			}
			return nil
		})
	}
	wholeLog(j.c.t, m.tenant, momentApp, 1) // written by whoever ran then
}

// noSecretsStored searches what NATS holds, and what lies on its disks and on the workers'.
func (l *crowd) noSecretsStored() {
	l.t.Helper()
	look := newSearch(l.t, l.secrets())
	js := l.c.js(l.t)
	for _, info := range streams(l.c.t, js) {
		look.stream(js, info)
	}
	for _, node := range l.c.nodes.Nodes {
		look.files(node.StoreDir(), nil)
	}
	look.files(l.c.disk.outside(), nil)
	look.nothing()
}
