package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

// clusterApp is an app of the crowd and what was pushed to its branch.
type clusterApp struct {
	id, branch string
	webhook    string
	repo       repository
	clone      *checkout // of who pushes with the git program; nil for who pushes in Bitbucket's editor

	mu     sync.Mutex
	pushes []clusterPush
}

// clusterPush is a push that was made.
type clusterPush struct {
	hash, page string
	at         time.Time
}

func (a *clusterApp) all() []clusterPush {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.pushes)
}

func (a *clusterApp) last() clusterPush {
	all := a.all()
	return all[len(all)-1]
}

// crowd is people who push to a cluster and programs that call its API, and what both saw.
type crowd struct {
	*tenant
	c    *cluster
	apps []*clusterApp

	wrong []error // what the last check found

	pushed atomic.Int64
	stop   context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex
	calls    []clusterCall
	accepted map[string]bool // commits of which a delivery was answered 2xx
	seen     int64           // of the emulator's deliveries
	began    time.Time       // when programs began to call
	asked    int             // how often they asked what Bitbucket answers
	errs     []error
}

// clusterCall is a call of the API by who does not try again.
type clusterCall struct {
	what string
	at   time.Time
	took time.Duration
	err  error
}

const clusterWorkspace = "cluster"

// prepare makes so many repositories with an app for each of two branches, and has each deploy once.
func (c *cluster) prepare(t *testing.T, repositories int) *crowd {
	t.Helper()
	s := &shared{stack: c, planted: map[string]string{}}
	s.owner = newBrowser(t, c.url()).signIn(c.adminToken())
	// A connection for each call: none is found dead when it is used again, and nothing tries again.
	s.owner.http.Transport = &http.Transport{DisableKeepAlives: true}
	l := &crowd{tenant: s.tenant(t, clusterWorkspace), c: c, accepted: map[string]bool{}}
	for i := range repositories {
		repo := c.bucket.repository(t, fmt.Sprintf("cluster-%d", i+1), "site")
		for _, branch := range chaosBranches {
			a := &clusterApp{id: fmt.Sprintf("app-%d-%s", i+1, branch), branch: branch, repo: repo}
			app := object{"repository": repo.id, "branch": branch, "autoDeploy": true, "serve": object{"directory": "."}}
			if i == 0 && c.disk.asRoot {
				app["hooks"] = []object{{"name": "build", "stage": "POST_SETUP", "command": "echo built"}}
			}
			if len(l.apps)%4 == 3 {
				a.clone = c.bucket.clone(t, repo)
				a.clone.git("checkout", "--quiet", branch)
			}
			l.api.must("POST", l.path("/apps"), object{"appId": a.id, "app": app})
			a.webhook = fmt.Sprint(dig(l.hooked(a.id), "webhook", "id"))
			l.apps = append(l.apps, a)
			if err := l.push(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.settle("before all trouble", afterFaults)
	return l
}

// push changes the page of an app.
func (l *crowd) push(ctx context.Context, a *clusterApp) (err error) {
	n := l.pushed.Add(1)
	p := clusterPush{page: fmt.Sprintf("push %d", n), at: time.Now()}
	if a.clone != nil {
		p.hash = a.clone.commit("index.html", p.page+"\n")
		a.clone.git("push", "--quiet", "origin", a.branch)
	} else {
		p.hash, err = l.c.bucket.Commit(ctx, a.repo.name, a.branch, p.page, map[string]string{"index.html": p.page + "\n"})
	}
	if err != nil {
		return fmt.Errorf("push to %s: %w", a.id, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pushes = append(a.pushes, p)
	return nil
}

// begin has people push to all apps, about so often in a second, until so many pushes were made or end is called, and so many
// programs call the API.
func (l *crowd) begin(seed uint64, perSecond float64, pushes int64, programs int) {
	ctx, cancel := context.WithCancel(l.t.Context())
	l.stop, l.calls, l.began, l.asked = cancel, nil, time.Now(), 0
	l.programs(ctx, seed, programs)
	for i, a := range l.apps {
		rnd := rand.New(rand.NewPCG(seed, uint64(1000+i)))
		l.done.Go(func() {
			for l.pushed.Load() < pushes {
				pause := time.Duration(rnd.ExpFloat64() * float64(len(l.apps)) / perSecond * float64(time.Second))
				select {
				case <-ctx.Done():
					return
				case <-time.After(min(pause, time.Minute)): // people push when they do
				}
				if err := l.push(l.t.Context(), a); err != nil {
					l.fail(err)
					return
				}
			}
		})
	}
	l.done.Go(func() {
		for every := time.NewTicker(2 * time.Second); ; {
			l.collect()
			select {
			case <-ctx.Done():
				every.Stop()
				return
			case <-every.C:
			}
		}
	})
}

// programs have so many programs call the API until ctx ends.
func (l *crowd) programs(ctx context.Context, seed uint64, many int) {
	for i := range many {
		rnd := rand.New(rand.NewPCG(seed, uint64(2000+i)))
		l.done.Go(func() {
			for ctx.Err() == nil {
				l.call(rnd)
			}
		})
	}
}

// end waits until nobody pushes and nobody calls any more.
func (l *crowd) end() {
	l.t.Helper()
	l.stop()
	l.done.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, err := range l.errs {
		l.t.Error(err)
	}
	if len(l.errs) > 0 {
		l.t.FailNow()
	}
}

func (l *crowd) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, err)
}

// limitReached is what Bitbucket's hourly limit of calls has a question answered with. Load that lasts reaches it, whatever else happens.
const limitReached = "BITBUCKET_RATE_LIMITED"

// call makes one call of the API, of several kinds.
func (l *crowd) call(rnd *rand.Rand) {
	a := l.apps[rnd.IntN(len(l.apps))]
	method, path, body := http.MethodGet, "", any(nil)
	switch rnd.IntN(8) {
	case 0:
		path = l.path("/apps?pageSize=20")
	case 1:
		path = l.path("/apps/%s", a.id)
	case 2:
		path = l.path("/apps/%s/deployments?pageSize=10", a.id)
	case 3:
		path = l.path("/webhooks/%s/deliveries?pageSize=10", a.webhook)
	case 4:
		if path = l.path("/repositories/%s/branches", a.repo.id); !l.mayAskBitbucket() {
			path = l.path("/apps/%s", a.id)
		}
	case 5:
		path = l.path("/integrations/bitbucket")
	case 6:
		path = l.path("/webhooks")
	case 7:
		method, path, body = http.MethodPatch, l.path("/apps/%s", a.id), object{"retention": 3 + rnd.IntN(3)}
	}
	made := clusterCall{what: method + " " + path, at: time.Now()}
	p, err := l.api.try(method, path, body, nil)
	made.took = time.Since(made.at)
	if made.err = err; p != nil && p.Reason != limitReached {
		made.err = fmt.Errorf("%d %s: %s", p.Status, p.Reason, p.Detail)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, made)
}

// mayAskBitbucket tells whether a call may be made that Bitbucket answers: of the 1,000 in an hour that there are for everybody, 100
// at once and 360 in each hour.
func (l *crowd) mayAskBitbucket() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked >= 100+int(time.Since(l.began)/(10*time.Second)) {
		return false
	}
	l.asked++
	return true
}

// made are the calls that have ended since programs began.
func (l *crowd) made() []clusterCall {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.calls)
}

// between are those of them that began between two times.
func (l *crowd) between(from, to time.Time) []clusterCall {
	return slices.DeleteFunc(l.made(), func(call clusterCall) bool { return call.at.Before(from) || call.at.After(to) })
}

// collect notes which deliveries were taken. The emulator keeps only the newest ones.
func (l *crowd) collect() {
	l.mu.Lock()
	defer l.mu.Unlock()
	attempts, err := l.c.bucket.Deliveries(context.WithoutCancel(l.t.Context()), "", l.seen)
	if err != nil {
		l.errs = append(l.errs, err)
		return
	}
	for _, attempt := range attempts {
		l.seen = attempt.ID
		var body struct {
			Push struct {
				Changes []struct {
					New struct{ Target struct{ Hash string } }
				}
			}
		}
		if err := json.Unmarshal([]byte(attempt.Body), &body); err != nil {
			l.errs = append(l.errs, err)
			return
		}
		for _, change := range body.Push.Changes {
			l.accepted[change.New.Target.Hash] = l.accepted[change.New.Target.Hash] || attempt.Status/100 == 2
		}
	}
}

// settle waits until what was pushed last is live and served in every app, and the app says that it is in sync.
func (l *crowd) settle(when string, within time.Duration) {
	l.t.Helper()
	for _, a := range l.apps {
		testkit.Eventually(l.t, within, func() error {
			if err := l.stands(a); err != nil {
				return fmt.Errorf("%s: %w", when, err)
			}
			return nil
		})
	}
}

// stands says what of an app is not as it should be in the end.
func (l *crowd) stands(a *clusterApp) error {
	app, want := object{}, a.last()
	if p, err := l.api.try(http.MethodGet, l.path("/apps/%s", a.id), nil, &app); err != nil || p != nil {
		return fmt.Errorf("%s: %+v, %w", a.id, p, err)
	}
	if hash := dig(app, "live", "commit", "hash"); hash != want.hash {
		return fmt.Errorf("%s has %v live, not %s (%s): %v; %s", a.id, hash, want.hash, want.page, app["sync"], brief(l.recent(a)))
	}
	if state := dig(app, "sync", "state"); state != "IN_SYNC" {
		return fmt.Errorf("%s is %v: %v", a.id, state, app["sync"])
	}
	status, body, _ := request(l.c.t, l.c.live.address+"/", a.id+"."+clusterWorkspace+".localhost")
	if status != http.StatusOK || body != want.page+"\n" {
		return fmt.Errorf("%s shows %d %q, not %q", a.id, status, body, want.page)
	}
	return nil
}

// recent are the newest deployments, as far as the API answers.
func (l *crowd) recent(a *clusterApp) []object {
	out := object{}
	_, _ = l.api.try(http.MethodGet, l.path("/apps/%s/deployments?pageSize=5", a.id), nil, &out) // for words only
	return objects(out["deployments"])
}
