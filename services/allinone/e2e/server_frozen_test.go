package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/testkit"
)

// A server's worker stands still in the middle of a deployment, as where its machine hangs. Its apps are moved, and then it
// goes on: the deployment was taken back and runs elsewhere, and the worker that wakes up can neither make its release
// live nor write anything down.
func TestServers_aFrozenWorkerWakesUpAfterItsAppsWereMoved(t *testing.T) {
	t.Parallel()
	x := startTwoServers(t, 1)
	repo := x.site().repository(t, "frozen-server", "site")
	first := x.site().commit(t, repo, "main", "one")
	x.serve("web", "far", repo, first, nil)
	// The hook begins, and goes on when the file "go" is in the app's shared directory: on the new server at once.
	x.api.must("PATCH", x.path("/apps/web"), object{"sharedPaths": []any{"gate/"}, "hooks": []any{object{
		"name": "wait", "stage": "POST_SETUP", "command": "touch gate/began; while [ ! -e gate/go ]; do sleep 0.05; done",
	}}})
	gate := func(dir string) string { return filepath.Join(dir, "apps", "fleet", "web", "shared", "gate") }
	open := func(dir string) {
		if err := os.MkdirAll(gate(dir), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(gate(dir), "go"), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	second := x.site().commit(t, repo, "main", "two")
	testkit.Eventually(t, timeout, func() error {
		_, err := os.Stat(filepath.Join(gate(x.far), "began"))
		return err
	})
	before := x.links()
	worker := x.running.replicas["deployer"][1]
	worker.Stop()

	if out, err := x.devpilot("servers", "move", "far", "--to", "default"); err == nil || !strings.Contains(out, "--even-if-alive") {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := x.devpilot("servers", "move", "far", "--to", "default", "--even-if-alive")
	if err != nil || !strings.Contains(out, "what was live is deployed again as #3; #2, which ran, is taken back") {
		t.Fatalf("%v\n%s", err, out)
	}
	// What is live again has no hook that waits: the app's hooks are those of now, so that the gate is opened there.
	open(x.running.dir)
	x.live("web", second)
	x.want(0, "web", 200, "two\n")

	open(x.far)
	worker.Continue()
	awaitReady(t, worker.ops)
	testkit.Eventually(t, timeout, func() error { // its hook was ended while it stood still, or it has learnt that the run is not its own any more
		if said := x.running.output(); !strings.Contains(said, "deployment is another worker's by now") && !strings.Contains(said, "worker stood still during a hook") {
			return fmt.Errorf("the worker has not given up its run")
		}
		return nil
	})
	x.want(1, "web", 200, "two\n")
	third := x.site().commit(t, repo, "main", "three")
	if d := x.live("web", third); d["server"] != "default" {
		t.Errorf("%v", d)
	}
	x.want(1, "web", 200, "three\n")
	if after := x.links(); !slices.Equal(before, after) {
		t.Errorf("the worker that woke up made a release live: %v, then %v", before, after)
	}
	list := x.once("web")
	if got := brief(list); len(list) != 4 {
		t.Errorf("%s", got)
	}
	taken := list[slices.IndexFunc(list, func(d object) bool { return d["number"] == float64(2) })]
	if taken["state"] != "COMPLETED" || taken["server"] != "default" || !strings.Contains(fmt.Sprint(taken["notes"]), "It ran on server far, which died") {
		t.Errorf("the deployment that ran there: %v", taken)
	}
}
