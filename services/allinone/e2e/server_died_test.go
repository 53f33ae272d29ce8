package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"devpilot.io/bitbucket/pkg/testkit"
)

// twoServers is an installation whose worker 0 is of the server "default" and has the role api too; the others are of
// "far".
type twoServers struct {
	*tenant
	t       *testing.T
	running *processes
	far     string // the data directory of that server
	env     []string
}

func startTwoServers(t *testing.T, workers int) *twoServers {
	t.Helper()
	far := filepath.Join(t.TempDir(), "far")
	running := startTopology(t, topology{count: 1, deployers: 1 + workers, of: func(service string, i int) []string {
		if service != "deployer" || i == 0 {
			return nil
		}
		return []string{workerOnly, "DEVPILOT_SERVER=far", "DEVPILOT_DATA_DIR=" + far}
	}})
	s := &shared{stack: running, planted: map[string]string{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the product's log:\n%s", tail(running.output(), 20_000))
		}
	})
	s.owner = newBrowser(t, running.url()).signIn(running.adminToken())
	env := append(cleanEnviron(), "DEVPILOT_NATS_URL="+running.nats.URL(), "PATH="+filepath.Dir(program(t, "devpilot"))+":"+os.Getenv("PATH"))
	return &twoServers{tenant: s.tenant(t, "fleet"), t: t, running: running, far: far, env: env}
}

// serve makes an app that serves its repository's root, and waits until it is live; more are its settings.
func (x *twoServers) serve(app, server string, repo repository, hash string, more object) {
	x.t.Helper()
	settings := object{"repository": repo.id, "branch": "main", "autoDeploy": true, "server": server, "serve": object{"directory": "."}}
	for k, v := range more {
		settings[k] = v
	}
	x.api.must("POST", x.path("/apps"), object{"appId": app, "deployNow": true, "app": settings})
	x.hooked(app)
	x.live(app, hash)
}

// want waits until a worker answers so for an app.
func (x *twoServers) want(worker int, app string, status int, words string) {
	x.t.Helper()
	testkit.Eventually(x.t, timeout, func() error {
		got, body, _ := request(x.t, "http://"+x.running.live.targets["live"][worker]+"/", app+".fleet.localhost")
		if got != status || !strings.Contains(body, words) {
			return fmt.Errorf("worker %d of %s: %d %q, want %d %q", worker, app, got, body, status, words)
		}
		return nil
	})
}

func (x *twoServers) command(args ...string) *exec.Cmd {
	cmd := exec.Command(program(x.t, "devpilot"), args...) // our own program
	cmd.Env = x.env
	return cmd
}

// devpilot runs the operator's command.
func (x *twoServers) devpilot(args ...string) (string, error) {
	out, err := x.command(args...).CombinedOutput()
	return string(out), err
}

// diedPage are the blocks of "A server died" in deploy/OPERATIONS.md.
func diedPage(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "deploy", "OPERATIONS.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(string(page), "\n## A server died\n")
	part, _, _ = strings.Cut(part, "\n## ")
	var blocks []string
	for _, b := range shellBlock.FindAllStringSubmatch(part, -1) {
		blocks = append(blocks, b[1])
	}
	if len(blocks) != 3 {
		t.Fatalf("the page has %d blocks", len(blocks))
	}
	return blocks
}

// byThePage runs a block of the page, with the servers of this installation for those of the page.
func (x *twoServers) byThePage(block string) (string, error) {
	shell := exec.Command("bash", "-euo", "pipefail")
	shell.Stdin = strings.NewReader(strings.NewReplacer("eu-1", "far", "eu-2", "default").Replace(block))
	shell.Env = x.env
	out, err := shell.CombinedOutput()
	return string(out), err
}

// killedInTheMiddle starts a move and kills it after its second app. What it prints goes into a pipe that has
// room for one line: it stands at the second one until it dies.
func (x *twoServers) killedInTheMiddle(block string) {
	t := x.t
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = read.Close() }()
	size, err := unix.FcntlInt(write.Fd(), unix.F_SETPIPE_SZ, os.Getpagesize())
	if err != nil {
		t.Fatal(err)
	}
	const room = 160
	if _, err := write.Write(bytes.Repeat([]byte("x"), size-room)); err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(strings.NewReplacer("eu-1", "far", "eu-2", "default").Replace(block))
	cmd := x.command(words[1:]...)
	cmd.Stdout = write
	var stderr recorder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	testkit.Eventually(t, timeout, func() error {
		if n := x.movedApps(); n != 2 {
			return fmt.Errorf("%d apps are moved, want 2: %s", n, stderr.String())
		}
		return nil
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL { //nolint:forcetypeassert // on Linux it is
		t.Fatalf("the command was not killed: %v", err)
	}
	line, err := bufio.NewReader(read).ReadString('\n')
	if err != nil || !strings.Contains(line, "1 of 4: ") {
		t.Fatalf("%q %v", line[max(0, len(line)-room):], err)
	}
}

// movedApps is how many apps are of the server "default", but for the one that always was.
func (x *twoServers) movedApps() (n int) {
	for _, a := range objects(x.api.get(x.path("/apps"))["apps"]) {
		if a["server"] == "default" && a["id"] != "home" {
			n++
		}
	}
	return n
}

// once fails where a number of deployments was made for the same reason twice: a commit by two pushes, or what was live by
// two moves.
func (x *twoServers) once(app string) []object {
	x.t.Helper()
	list, seen := x.settled(app), map[string]any{}
	for _, d := range list {
		key := fmt.Sprint(d["trigger"], dig(d, "commit", "hash"))
		if other, twice := seen[key]; twice && d["state"] == "COMPLETED" {
			x.t.Errorf("%s: %v and %v are both %s", app, other, d["number"], key)
		}
		if d["state"] == "COMPLETED" {
			seen[key] = d["number"]
		}
	}
	return list
}

// A server dies with all of its workers. By the page's words its apps go to another one, although the command is
// killed in the middle and pushes come meanwhile: every site is served again, pushes deploy there, history says
// what ran where, and the dead server, once back, changes nothing.
func TestOperations_aServerDied(t *testing.T) {
	t.Parallel()
	blocks := diedPage(t)
	x := startTwoServers(t, 2)
	repo, calm := x.site().repository(t, "fleet-web", "site"), x.site().repository(t, "fleet-quiet", "site")
	first, quiet := x.site().commit(t, repo, "main", "one"), x.site().commit(t, calm, "main", "one")
	apps := []string{"a", "b", "c"}
	x.serve("home", "default", repo, first, nil)
	for _, app := range apps {
		x.serve(app, "far", repo, first, nil)
	}
	x.serve("d", "far", calm, quiet, nil)
	far := x.running.replicas["deployer"][1:]
	for _, worker := range far {
		worker.Kill()
	}
	if out, err := x.devpilot("servers", "move", "far", "--to", "default"); err == nil || !strings.Contains(out, "its workers are heard") {
		t.Fatalf("a move away from a server that has just been heard: %v\n%s", err, out)
	}
	for server, words := range map[string]string{"nowhere": "no such server", "far": "name another one"} {
		if out, err := x.devpilot("servers", "move", "far", "--to", server); err == nil || !strings.Contains(out, words) {
			t.Errorf("a move to %s: %v\n%s", server, err, out)
		}
	}
	waits := x.site().commit(t, repo, "main", "two") // while nobody has the apps
	x.live("home", waits)

	offline := x.await(x.path("/apps/a"), func(a object) error {
		if dig(a, "sync", "reason") != "SERVER_OFFLINE" || !strings.Contains(fmt.Sprint(a["warnings"]), "SERVER_OFFLINE") {
			return fmt.Errorf("nobody says that the server is away: %v %v", a["sync"], a["warnings"])
		}
		return nil
	})
	if message := fmt.Sprint(dig(offline, "sync", "message")); !strings.Contains(message, "Its server far has not been heard of for") || !strings.Contains(message, "move its apps to another server") {
		t.Error(message)
	}
	told := x.api.get(x.path("/apps/d")) // nothing waits there: it is only not served
	if !strings.Contains(fmt.Sprint(told["warnings"]), "Its server far has not been heard of for") {
		t.Error(told["warnings"])
	}
	why := x.api.get(x.path("/why?app=d&commit=%s", quiet))
	if !strings.Contains(fmt.Sprint(why), "Its server far has not been heard of for") {
		t.Errorf("why: %v", why)
	}
	x.want(0, "a", 503, "does not answer")

	out, err := x.byThePage(blocks[0])
	if row := strings.Fields(lineOf(out, "far")); err != nil || !slices.Equal(row[:2], []string{"far", "0"}) || !slices.Contains(row, "4") {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err = x.byThePage(blocks[1]); err != nil || !strings.Contains(out, "4 apps would be moved") || x.movedApps() != 0 {
		t.Fatalf("%v\n%s", err, out)
	}
	stop := x.pushing(repo)
	x.killedInTheMiddle(blocks[2])
	if out, err = x.byThePage(blocks[2]); err != nil || !strings.Contains(out, "2 apps are moved from far to default") {
		t.Fatalf("%v\n%s", err, out)
	}
	last := stop()
	for _, app := range append(apps, "home") {
		x.live(app, last)
		x.want(0, app, 200, "under way")
	}
	x.want(0, "d", 200, "one\n")
	for _, app := range append(apps, "d") {
		x.movedOnce(app)
	}
	if out, err = x.byThePage(blocks[2]); err != nil || !strings.Contains(out, "nothing is to be moved") {
		t.Errorf("%v\n%s", err, out)
	}

	before := x.links()
	for _, worker := range far {
		worker.Start()
	}
	for _, worker := range far {
		awaitReady(t, worker.ops)
	}
	for worker := range x.running.live.targets["live"] {
		x.want(worker, "a", 200, "under way")
		x.want(worker, "d", 200, "one\n")
	}
	end := x.site().commit(t, repo, "main", "the end")
	for _, app := range append(apps, "home") {
		if d := x.live(app, end); d["server"] != "default" {
			t.Errorf("%s is deployed on %v", app, d["server"])
		}
		x.once(app)
	}
	if after := x.links(); !slices.Equal(before, after) {
		t.Errorf("the server that came back changed its releases: %v, then %v", before, after)
	}
	x.serve("new", "far", repo, end, nil) // it is a server like any other
	x.want(0, "new", 200, "the end\n")
}

// movedOnce looks at an app's history: what ran on the dead server is told as that, and what was live was deployed
// again once, elsewhere.
func (x *twoServers) movedOnce(app string) {
	x.t.Helper()
	list := x.once(app)
	moved := 0
	for _, d := range list {
		want := "default"
		if d["number"] == float64(1) {
			want = "far"
		}
		if d["trigger"] == "MOVED" {
			moved++
			if d["sourceNumber"] != float64(1) || !strings.Contains(fmt.Sprint(d["notes"]), "Deployment #1 was live on server far, which died") {
				x.t.Errorf("%s: %v", app, d)
			}
		}
		if d["server"] != want && d["startTime"] != nil { // else it waited there until a newer one came
			x.t.Errorf("deployment %v of %s is told to be of %v", d["number"], app, d["server"])
		}
	}
	if moved != 1 {
		x.t.Errorf("%s was deployed again %d times: %s", app, moved, brief(list))
	}
}

// links are the current releases in the data directory of the server that died.
func (x *twoServers) links() (links []string) {
	paths, err := filepath.Glob(filepath.Join(x.far, "apps", "*", "*", "current"))
	if err != nil || len(paths) == 0 {
		x.t.Fatal(err, paths)
	}
	for _, path := range paths {
		to, err := os.Readlink(path)
		if err != nil {
			x.t.Fatal(err)
		}
		links = append(links, path+" "+to)
	}
	return links
}

// pushing pushes until it is stopped, and returns the last commit.
func (x *twoServers) pushing(repo repository) (stop func() (last string)) {
	ctx, cancel := context.WithCancel(x.t.Context())
	done, last := make(chan struct{}), ""
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			last = x.site().commit(x.t, repo, "main", fmt.Sprintf("under way %d", i))
		}
	}()
	return func() string {
		cancel()
		<-done
		return last
	}
}

func lineOf(text, first string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, first) {
			return line
		}
	}
	return ""
}
