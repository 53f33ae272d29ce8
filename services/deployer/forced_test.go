package deployer_test

import (
	"slices"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/testkit"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
)

func forced(e *eventsv1.PushEvent) { e.Forced = true }

// saysLost looks for the sentence about the commit that was live, in the record and in the log; lost is
// empty where nothing is to be said.
func (b *bench) saysLost(number int32, hash, lost string) {
	b.t.Helper()
	d := b.await("web", number, deployerv1.Deployment_COMPLETED)
	text, _ := b.log("web", number, &deployerv1.ReadLogRequest{})
	if d.GetCommit().GetHash() != hash {
		b.t.Fatalf("deployment %d has %s, want %s", number, d.GetCommit().GetHash(), hash)
	}
	if lost == "" {
		if len(d.GetNotes()) > 0 || strings.Contains(text, "does not contain") {
			b.t.Errorf("deployment %d: notes %q, log:\n%s", number, d.GetNotes(), text)
		}
		return
	}
	want := "The history of " + hash[:7] + " does not contain " + lost[:7] + ", which was live: the branch was forced to another history, or the repository was replaced."
	if !slices.Equal(d.GetNotes(), []string{want}) || strings.Count(text, want) != 1 {
		b.t.Errorf("deployment %d: notes %q, log:\n%s", number, d.GetNotes(), text)
	}
}

// forcedTo has the branch begin again at a commit, with a new one on it.
func (b *bench) forcedTo(base, content string) (old, hash string) {
	b.t.Helper()
	old = b.repo.Head("main")
	if base == "" {
		b.repo.Delete("main")
	} else {
		b.repo.Set("main", base)
	}
	return old, b.repo.Commit("main", content, map[string]string{"index.html": content})
}

// TestForced_saysThatWhatWasLiveIsNotInItsHistory: where it is known, by the delivery or by the mirror; an
// ordinary push, and one after a rollback, says nothing.
func TestForced_saysThatWhatWasLiveIsNotInItsHistory(t *testing.T) {
	b := newBench(t)
	zero := b.repo.Commit("main", "zero", map[string]string{"index.html": "zero"})
	start := b.repo.Commit("main", "start", map[string]string{"index.html": "start"})
	b.create("web", web(true))
	_, one, delivery := b.moved("one")
	b.deploysAs(delivery, 1)
	b.saysLost(1, one, "")
	b.repo.Commit("main", "between", map[string]string{"index.html": "between"})
	two := b.repo.Commit("main", "two", map[string]string{"index.html": "two"})
	b.deploysAs(b.pushed("main", one, two, "two"), 2) // several commits at once: where it began is beyond the mirror
	b.saysLost(2, two, "")

	old, amended := b.forcedTo(start, "amended")
	b.deploysAs(b.pushed("main", old, amended, "amended", forced), 3)
	b.saysLost(3, amended, two)
	// Back to where it was: the delivery is another's, and nobody says that it was forced.
	b.goBack(2)
	_, three, delivery := b.moved("three")
	b.deploysAs(delivery, 5)
	b.saysLost(5, three, "") // two's own history is not known here, so it is not known of three's
	_, four, delivery := b.moved("four")
	b.deploysAs(delivery, 6)
	b.goBack(5)
	_, five, delivery := b.moved("five")
	b.deploysAs(delivery, 8)
	b.saysLost(8, five, "") // three is below four
	b.goBack(5)
	// Forced from five, of which three that is live is a part.
	old, six := b.forcedTo(four, "six")
	b.deploysAs(b.pushed("main", old, six, "six", forced), 10)
	b.saysLost(10, six, "")
	// A person goes back to a commit on purpose.
	resp, err := b.client.RedeployDeployment(b.member, &deployerv1.RedeployDeploymentRequest{Workspace: workspace, App: "web", Number: 8})
	if err != nil {
		t.Fatal(err)
	}
	b.saysLost(resp.GetDeployment().GetNumber(), five, "")

	// Another history, which the delivery does not say was forced.
	old, anew := b.forcedTo("", "anew")
	b.deploysAs(b.pushed("main", old, anew, "anew"), 12)
	b.saysLost(12, anew, five)
	b.repo.Set("main", zero)
	b.deploysAs(b.pushed("main", anew, zero, "zero", forced), 13)
	b.saysLost(13, zero, anew)
}

// TestForced_saysItOnceAfterATry that failed.
func TestForced_saysItOnceAfterATry(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "start", map[string]string{"index.html": "start"})
	b.create("web", web(true))
	_, one, delivery := b.moved("one")
	b.deploysAs(delivery, 1)
	old, anew := b.forcedTo("", "anew")
	b.git.Fail(away)
	b.pushed("main", old, anew, "anew", forced)
	testkit.Eventually(t, timeout, func() error {
		_, err := b.deployment("web", 2)
		return err
	})
	b.await("web", 2, deployerv1.Deployment_PENDING)
	b.git.Fail(nil)
	b.saysLost(2, anew, one)
}
