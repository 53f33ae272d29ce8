package deployer_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// doubting has the reconciler look often, and everything be doubted for a short while only.
func doubting(c *deployer.Config) {
	c.ReconcileInterval, c.ReconcileGrace, c.Doubt = 500*time.Millisecond, 100*time.Millisecond, time.Second
}

// lie is a wrong answer of git's.
type lie func(w http.ResponseWriter, r *http.Request) bool

func refuses(code int, body string) lie {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
		return true
	}
}

// answers replaces the answers of git's second step, the one that lists refs or sends a pack.
func answers(body string) lie {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/git-upload-pack") {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
		_, _ = io.WriteString(w, body)
		return true
	}
}

// advertises replaces the answers of git's first step.
func advertises(kind, body string) lie {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/info/refs") {
			return false
		}
		w.Header().Set("Content-Type", kind)
		_, _ = io.WriteString(w, body)
		return true
	}
}

const (
	noAccess      = "You may not have access to this repository or it no longer exists in this workspace."
	advertisement = "application/x-git-upload-pack-advertisement"
)

var lies = map[string]lie{
	"404":                        refuses(http.StatusNotFound, noAccess),
	"403":                        refuses(http.StatusForbidden, noAccess),
	"410":                        refuses(http.StatusGone, ""),
	"500":                        refuses(http.StatusInternalServerError, "oops"),
	"429":                        refuses(http.StatusTooManyRequests, "Rate limit for this resource has been exceeded"),
	"refs: flush":                answers("0000"),
	"refs: nothing":              answers(""),
	"refs: JSON":                 answers(`{"type":"error","error":{"message":"Something went wrong"}}`),
	"refs: HTML":                 answers("<!DOCTYPE html><html><body>Bitbucket is down for maintenance</body></html>"),
	"refs: cut":                  answers("003d0000000000000000000000000000000000000000 refs/he"),
	"advertisement: JSON":        advertises("application/json", `{"type":"error"}`),
	"advertisement: JSON as git": advertises(advertisement, `{"type":"error"}`),
	"advertisement: HTML":        advertises("text/html", "<html>down</html>"),
	"advertisement: flush":       advertises(advertisement, "0000"),
	"advertisement: nothing":     advertises(advertisement, ""),
	"advertisement: cut":         advertises(advertisement, "001e# service=git-upload-pack\n0000000eversion"),
}

// TestTrouble_aPassingUntruthIsNotTakenForGood: whatever git answers for a while, the push waits with a
// reason and is live when it ends.
func TestTrouble_aPassingUntruthIsNotTakenForGood(t *testing.T) {
	for name, lie := range lies {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, doubting)
			b.repo.Commit("main", "before", map[string]string{"index.html": "before"})
			b.create("web", web(true))
			b.push("one")
			b.await("web", 1, deployerv1.Deployment_COMPLETED)
			b.git.Intercept(lie)
			_, delivery := b.push("two")
			b.awaitSaid(delivery, "Deployed as #2")
			asked := len(b.git.Requests())
			begin := time.Now()
			testkit.Eventually(t, timeout, func() error { // for longer than anything is doubted
				if n := len(b.git.Requests()) - asked; n < 12 || time.Since(begin) < 3*time.Second {
					return fmt.Errorf("asked %d times", n)
				}
				return nil
			})
			d, err := b.deployment("web", 2)
			if err != nil || d.GetState() != deployerv1.Deployment_PENDING && d.GetState() != deployerv1.Deployment_PROCESSING {
				t.Fatalf("%v %v: %v", err, d.GetState(), d.GetError())
			}
			t.Logf("%v", d.GetWaitingFor())
			b.git.Intercept(nil)
			b.await("web", 2, deployerv1.Deployment_COMPLETED)
			b.polls()
			if live, latest := b.live("web"), b.latest("web"); live != "two" || latest != 2 {
				t.Errorf("live %q, latest %d", live, latest)
			}
		})
	}
}

// requests waits until git was asked so often again, and for so long.
func (b *bench) requests(n int, d time.Duration) {
	b.t.Helper()
	before, begin := len(b.git.Requests()), time.Now()
	testkit.Eventually(b.t, timeout, func() error {
		if have := len(b.git.Requests()) - before; have < n || time.Since(begin) < d {
			return fmt.Errorf("asked %d times", have)
		}
		return nil
	})
}

// retried waits for the deployment that tries again what another one failed of.
func (b *bench) retried(number, failed int32) *deployerv1.Deployment {
	b.t.Helper()
	d := b.await("web", number, deployerv1.Deployment_COMPLETED)
	if d.GetTrigger() != deployerv1.Deployment_RECONCILED || d.GetSourceNumber() != failed || len(d.GetNotes()) != 1 {
		b.t.Errorf("%v", d)
	}
	return d
}

// TestTrouble_whatIsGoneFailsAndComesBack: a repository that both of Bitbucket's interfaces do not have for
// a while, while the account is well, is gone; when it is back, the newest push is deployed.
func TestTrouble_whatIsGoneFailsAndComesBack(t *testing.T) {
	b := newBench(t, doubting)
	b.repo.Commit("main", "before", map[string]string{"index.html": "before"})
	b.create("web", web(true))
	b.push("one")
	b.await("web", 1, deployerv1.Deployment_COMPLETED)

	// All is away: nothing is known of the repository.
	b.git.Intercept(lies["404"])
	b.world.do(func() { b.world.restDown = true })
	_, delivery := b.push("two")
	b.awaitSaid(delivery, "Deployed as #2")
	b.requests(12, 3*time.Second)
	if d, _ := b.deployment("web", 2); d.GetState() == deployerv1.Deployment_FAILED || hasWarning(b.get("web"), "REPOSITORY_NOT_FOUND") {
		t.Fatalf("while all is away: %v", d)
	}

	b.world.do(func() { b.world.restDown, b.world.unreachable[repoID] = false, true })
	testkit.Eventually(t, 2*timeout, func() error {
		if d, err := b.deployment("web", 2); err != nil || d.GetState() != deployerv1.Deployment_FAILED {
			return fmt.Errorf("%w %v", err, d)
		}
		if a := b.get("web"); !hasWarning(a, "REPOSITORY_NOT_FOUND") {
			return fmt.Errorf("%v", a.GetWarnings())
		}
		return nil
	})
	if d, _ := b.deployment("web", 2); d.GetError().GetReason() != "REPOSITORY_NOT_FOUND" || !strings.Contains(d.GetError().GetMessage(), "acme/web") {
		t.Errorf("%v", d.GetError())
	}
	b.requests(6, 2*time.Second)
	if n := b.latest("web"); n != 2 {
		t.Fatalf("tried again without its end: %d", n)
	}
	b.stopOne() // a restart forgets nothing
	b.start()
	b.start() // two deployers look
	b.git.Intercept(nil)
	b.world.do(func() { b.world.unreachable[repoID] = false })
	b.retried(3, 2)
	b.polls()
	if a := b.get("web"); b.live("web") != "two" || b.latest("web") != 3 || hasWarning(a, "REPOSITORY_NOT_FOUND") {
		t.Errorf("live %q, %v", b.live("web"), a)
	}
}

// TestTrouble_aPersonsDecisionStands: what was rolled back, cancelled or switched off is not tried again.
func TestTrouble_aPersonsDecisionStands(t *testing.T) {
	for name, decide := range map[string]func(b *bench){
		"rolled back": func(b *bench) {
			if _, err := b.client.RollBackApp(b.member, &deployerv1.RollBackAppRequest{Workspace: workspace, App: "web", Deployment: 1}); err != nil {
				b.t.Fatal(err)
			}
			b.await("web", 4, deployerv1.Deployment_COMPLETED)
		},
		"off": func(b *bench) { b.update("web", &deployerv1.App{}, "auto_deploy") },
		"off and on": func(b *bench) {
			b.update("web", &deployerv1.App{}, "auto_deploy")
			b.update("web", &deployerv1.App{AutoDeploy: true}, "auto_deploy")
		},
		"another branch": func(b *bench) { b.update("web", &deployerv1.App{Branch: "other"}, "branch") },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, doubting)
			b.repo.Commit("main", "before", map[string]string{"index.html": "before"})
			b.repo.Set("other", b.repo.Head("main"))
			b.create("web", web(true))
			b.push("one")
			b.await("web", 1, deployerv1.Deployment_COMPLETED)
			b.push("two")
			b.await("web", 2, deployerv1.Deployment_COMPLETED)
			b.git.Intercept(lies["404"])
			b.world.do(func() { b.world.unreachable[repoID] = true })
			b.push("three")
			b.await("web", 3, deployerv1.Deployment_FAILED)
			decide(b)
			latest, live := b.latest("web"), b.live("web")
			b.git.Intercept(nil)
			b.world.do(func() { b.world.unreachable[repoID] = false })
			if name == "off" {
				b.create("witness", web(true)) // so that the repository is polled
			}
			b.polls()
			if b.latest("web") != latest || b.live("web") != live {
				t.Errorf("live %q, latest %v", b.live("web"), b.get("web").GetLatest())
			}
		})
	}
}

// TestTrouble_anEmptyAnswerForgetsNothing: an answer that lists nothing makes no branch new, and undoes no
// rollback, however long it lasts.
func TestTrouble_anEmptyAnswerForgetsNothing(t *testing.T) {
	b := newBench(t, doubting)
	base := b.repo.Commit("main", "base", map[string]string{"index.html": "base"})
	for i := range 30 {
		b.repo.Set(fmt.Sprintf("feature/%d", i), base)
		b.tag(fmt.Sprintf("v%d", i), base)
	}
	a := taggers()
	a.Branch = "{main,feature/*}"
	b.create("web", a)
	b.create("single", web(true))
	b.noted(b.stores(), "web")
	b.push("one")
	b.await("single", 1, deployerv1.Deployment_COMPLETED)
	b.push("two")
	b.await("single", 2, deployerv1.Deployment_COMPLETED)
	b.await("web", 2, deployerv1.Deployment_COMPLETED)
	if _, err := b.client.RollBackApp(b.member, &deployerv1.RollBackAppRequest{Workspace: workspace, App: "single", Deployment: 1}); err != nil {
		t.Fatal(err)
	}
	b.await("single", 3, deployerv1.Deployment_COMPLETED)
	for _, lie := range []string{"refs: flush", "advertisement: flush", "404"} {
		b.git.Intercept(lies[lie])
		b.requests(8, 4*time.Second)
		b.git.Intercept(nil)
		b.polls()
		if w, s := b.latest("web"), b.latest("single"); w != 2 || s != 3 || b.live("single") != "one" {
			t.Fatalf("%s: latest %d and %d, live %q", lie, w, s, b.live("single"))
		}
	}
	// Nor is a first look believed that finds nothing where there is something.
	b.git.Intercept(lies["refs: flush"])
	b.create("late", a)
	b.requests(6, 3*time.Second)
	b.git.Intercept(nil)
	b.noted(b.stores(), "late")
	b.polls()
	if n := b.latest("late"); n != 0 {
		t.Errorf("what was there before deployed: %v", b.get("late").GetLatest())
	}
}
