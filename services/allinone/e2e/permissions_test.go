package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/allinone"
)

// guarded is a nats-server that knows a user for each process, with the permissions that we ship.
type guarded struct {
	url   string
	store string            // its directory
	seeds map[string]string // files, by user
}

// guard starts one, configured as deploy/nats/nats.conf is. lacking are users that are left without a subject.
func guard(t *testing.T, installation string, lacking map[string]string) guarded {
	t.Helper()
	dir := t.TempDir()
	g := guarded{store: filepath.Join(testkit.FastDir(t), "store"), seeds: map[string]string{}}
	var printed strings.Builder
	settings := allinone.PermissionSettings{InstallationFlags: servicemain.InstallationFlags{Installation: installation}}
	for _, user := range allinone.NATSUsers("") {
		settings.Users = append(settings.Users, user.Name)
	}
	if err := allinone.PrintPermissions(&printed, settings); err != nil {
		t.Fatal(err)
	}
	text := printed.String()
	var users strings.Builder
	for _, user := range allinone.NATSUsers(stream.Installation(installation)) {
		pair, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		seed, err := pair.Seed()
		if err != nil {
			t.Fatal(err)
		}
		public, err := pair.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		g.seeds[user.Name] = filepath.Join(dir, user.Name+".nk")
		write(t, g.seeds[user.Name], string(seed))
		variable := allinone.PermissionVariable(stream.Installation(installation), user.Name)
		fmt.Fprintf(&users, "    { nkey: %s, permissions: $%s }\n", public, variable)
		if subject := lacking[user.Name]; subject != "" {
			before, own, _ := strings.Cut(text, "\n"+variable+": {")
			text = before + "\n" + variable + ": {" + strings.Replace(own, fmt.Sprintf("    %q\n", subject), "", 1)
		}
	}
	write(t, filepath.Join(dir, "permissions.conf"), text)
	conf := filepath.Join(dir, "nats.conf")
	write(t, conf, fmt.Sprintf("listen: \"127.0.0.1:%d\"\nmax_payload: 8MB\njetstream { store_dir: %q, sync_interval: always, max_file_store: 8GB }\nauthorization {\n  include \"permissions.conf\"\n  users: [\n%s  ]\n}\n",
		testkit.FreePort(t), g.store, users.String()))
	g.url = serveNATS(t, conf)
	return g
}

// serveNATS starts a nats-server with a configuration, and returns its address.
func serveNATS(t *testing.T, conf string) string {
	t.Helper()
	opts, err := server.ProcessConfigFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	opts.NoSigs, opts.NoLog = true, true
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(timeout) {
		t.Fatal("the server does not start")
	}
	return s.ClientURL()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// as is the environment of a process that is a user.
func (g guarded) as(user string) []string {
	return []string{"DEVPILOT_NATS_URL=" + g.url, "DEVPILOT_NATS_NKEY_FILE=" + g.seeds[user]}
}

// js looks at what is stored as the operator.
func (g guarded) js(t testing.TB) jetstream.JetStream {
	t.Helper()
	nkey, err := nats.NkeyOptionFromSeed(g.seeds[allinone.Operator])
	if err != nil {
		t.Fatal(err)
	}
	nc, js, err := stream.Connect(g.url, "test", nkey)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return js
}

// composed is the NATS of deploy/compose/compose.yaml, with the users that the page has made.
func composed(t *testing.T) guarded {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "..", "deploy", "compose", "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(raw), "\nconfigs:\n  nats:\n    content: |\n")
	if !found {
		t.Fatal("compose.yaml has no configuration of NATS")
	}
	var conf string
	for line := range strings.Lines(text) {
		own, inside := strings.CutPrefix(line, "      ")
		if !inside {
			break
		}
		conf += own
	}
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	for _, args := range [][]string{{"make-keys", keys}, {"nats-permissions", "--keys", keys}} {
		cmd := exec.CommandContext(t.Context(), program(t, "devpilot"), args...) // our own program
		cmd.Env = cleanEnviron()
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		write(t, filepath.Join(dir, "users.conf"), string(out)) // the last one's
	}
	g := guarded{store: filepath.Join(testkit.FastDir(t), "store"), seeds: map[string]string{}}
	for _, user := range []string{"auth", "webhook", "deployer", "gateway", allinone.Operator} {
		g.seeds[user] = allinone.SeedFile(keys, user)
	}
	for from, to := range map[string]string{"port: 4222": fmt.Sprintf("listen: \"127.0.0.1:%d\"", testkit.FreePort(t)), "store_dir: /data": fmt.Sprintf("store_dir: %q", g.store), "max_file_store: 20GB": "max_file_store: 8GB"} {
		if !strings.Contains(conf, from) {
			t.Fatalf("NATS' configuration has no %q", from)
		}
		conf = strings.Replace(conf, from, to, 1)
	}
	write(t, filepath.Join(dir, "nats.conf"), conf)
	g.url = serveNATS(t, filepath.Join(dir, "nats.conf"))
	return g
}

// With what compose.yaml tells NATS and its services the product runs, each service is its own user, and nobody else is let in.
func TestPermissions_ofComposeAreEnough(t *testing.T) {
	t.Parallel()
	g := composed(t)
	if nc, err := nats.Connect(g.url); err == nil {
		nc.Close()
		t.Fatal("NATS takes everybody")
	}
	s := &shared{planted: map[string]string{}, stack: startTopology(t, topology{count: 1, guarded: &g, of: func(service string, _ int) []string {
		if service == "repo" {
			return nil
		}
		return g.as(service)
	}})}
	s.owner = newBrowser(t, s.url()).signIn(s.adminToken())
	mainPath(t, s)
	if out := s.output(); strings.Contains(out, "Permissions Violation") {
		t.Error("NATS refused something")
	}
}

// of is the environment of one replica: the first deployer has the role api, the second is a worker.
func (g guarded) of(service string, i int) []string {
	if service != "deployer" {
		return g.as(service)
	}
	role := []string{"api", "worker"}[i]
	return append(g.as("deployer-"+role), "DEVPILOT_ROLES="+role)
}

// Each service as its own user, and each role of the deployer, does all that the product does, and NATS refuses nothing.
func TestPermissions_areEnoughForAllThatServicesDo(t *testing.T) {
	t.Parallel()
	for _, installation := range []string{"", "acme"} {
		t.Run("installation "+installation, func(t *testing.T) {
			t.Parallel()
			g := guard(t, installation, nil)
			s := &shared{planted: map[string]string{}, stack: startTopology(t, topology{count: 1, deployers: 2, env: []string{"DEVPILOT_INSTALLATION=" + installation}, of: g.of, guarded: &g})}
			s.owner = newBrowser(t, s.url()).signIn(s.adminToken())
			stories := []scenario{{"main path", mainPath}}
			if installation == "" { // the other stories look for bare names
				stories = append(stories, scenario{"disconnect", disconnect}, scenario{"one push of many changes", manyChanges}, scenario{"live streams", liveStreams},
					scenario{"deployments in depth", inDepth}, scenario{"rules of pushes", rulesOfPushes}, scenario{"a workspace is deleted", deletedWorkspace})
			}
			for _, one := range stories {
				t.Run(one.name, func(t *testing.T) { one.run(t, s) })
			}
			seen := map[string]bool{}
			for line := range strings.Lines(s.output()) {
				if _, what, found := strings.Cut(line, "Permissions Violation for "); found && !seen[what] {
					seen[what] = true
					t.Errorf("NATS refused: %s", what)
				}
			}
		})
	}
}

// What an installation keeps is saved and comes back in another NATS as the operator, and a service may do neither.
func TestPermissions_theOperatorsBackup(t *testing.T) {
	t.Parallel()
	const name = "acme"
	from, to := guard(t, name, nil), guard(t, name, nil)
	s := startTopology(t, topology{count: 1, env: []string{"DEVPILOT_INSTALLATION=" + name}, of: func(service string, _ int) []string { return from.as(service) }, guarded: &from})
	keyset := "DEVPILOT_ENCRYPTION_KEYSET_FILE=" + s.secrets
	run := func(g guarded, user string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), program(t, "devpilot"), args...) // our own program
		cmd.Env = slices.Concat(cleanEnviron(), g.as(user), []string{"DEVPILOT_INSTALLATION=" + name, keyset})
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	backup := filepath.Join(t.TempDir(), "backup")
	for _, user := range []string{"gateway", "devpilot"} {
		if out, err := run(from, user, "backup", filepath.Join(t.TempDir(), "refused")); err == nil || !strings.Contains(out, "operator") {
			t.Errorf("a backup as %s: %v\n%s", user, err, out)
		}
	}
	if out, err := run(from, allinone.Operator, "backup", backup); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := run(to, allinone.Operator, "restore", backup); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, step := range []string{"add", "promote", "reseal", "check", "retire"} {
		if out, err := run(from, allinone.Operator, "keyset", step); err != nil {
			t.Errorf("keyset %s: %v\n%s", step, err, out)
		}
	}
}

// The operator's user of NATS may move apps, in an installation with a name too; that of a service may not.
func TestPermissions_theOperatorMovesApps(t *testing.T) {
	t.Parallel()
	const name = "acme"
	g, far := guard(t, name, nil), filepath.Join(t.TempDir(), "far")
	running := startTopology(t, topology{count: 1, deployers: 2, env: []string{"DEVPILOT_INSTALLATION=" + name}, guarded: &g, of: func(service string, i int) []string {
		if service == "deployer" && i == 1 {
			return append(g.as("deployer-worker"), workerOnly, "DEVPILOT_SERVER=far", "DEVPILOT_DATA_DIR="+far)
		}
		return g.as(service)
	}})
	s := &shared{planted: map[string]string{}, stack: running}
	s.owner = newBrowser(t, running.url()).signIn(running.adminToken())
	n := s.tenant(t, "moves")
	repo := s.site().repository(t, "moves", "site")
	hash := s.site().commit(t, repo, "main", "one")
	n.api.must("POST", n.path("/apps"), object{"appId": "web", "deployNow": true, "app": object{"repository": repo.id, "branch": "main", "autoDeploy": true, "server": "far"}})
	n.live("web", hash)
	run := func(user string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), program(t, "devpilot"), args...) // our own program
		cmd.Env = slices.Concat(cleanEnviron(), g.as(user), []string{"DEVPILOT_INSTALLATION=" + name})
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	move := []string{"servers", "move", "far", "--to", "default", "--even-if-alive", "--output", "json"}
	if out, err := run("gateway", move...); err == nil || !strings.Contains(out, "user operator") {
		t.Errorf("a move as gateway: %v\n%s", err, out)
	}
	if out, err := run(allinone.Operator, move...); err != nil || !strings.Contains(out, `"again": 2`) {
		t.Fatalf("%v\n%s", err, out)
	}
	if d := n.live("web", hash); d["server"] != "default" || d["trigger"] != "MOVED" {
		t.Errorf("%v", d)
	}
	if out, err := run(allinone.Operator, "servers", "list", "--output", "json"); err != nil || !strings.Contains(out, `"name": "far"`) {
		t.Errorf("%v\n%s", err, out)
	}
	// One workspace alone, and back to the server that lives after all.
	back := []string{"servers", "move", "default", "--to", "far", "--even-if-alive", "--workspace"}
	if out, err := run(allinone.Operator, append(back, "another")...); err != nil || !strings.Contains(out, "No app of workspace another is on server default") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := run(allinone.Operator, append(back, n.workspace)...); err != nil || !strings.Contains(out, "what was live is deployed again as #3") {
		t.Errorf("%v\n%s", err, out)
	}
	if d := n.live("web", hash); d["server"] != "far" || d["number"] != float64(3) {
		t.Errorf("%v", d)
	}
	for line := range strings.Lines(s.output()) {
		if strings.Contains(line, "Permissions Violation for Publish") && strings.Contains(line, "devpilot.work") {
			t.Error(line)
		}
	}
}

// A service reaches nothing of another's: none of its buckets, by whichever way, and no answers to it.
func TestPermissions_eachBucketIsItsOwners(t *testing.T) {
	t.Parallel()
	const name = stream.Installation("acme")
	g := guard(t, string(name), nil)
	users := allinone.NATSUsers(name)
	owners := []string{"auth", "webhook", "deployer", "gateway"}
	for _, user := range users {
		if !slices.Contains(owners, user.Name) {
			continue
		}
		refused := make(chan error, 1)
		nkey, err := nats.NkeyOptionFromSeed(g.seeds[user.Name])
		if err != nil {
			t.Fatal(err)
		}
		nc, err := nats.Connect(g.url, nkey, nats.CustomInboxPrefix(name.Inbox(user.Name)), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		reaches := func(what string, err error) {
			t.Helper()
			if err == nil {
				err = nc.FlushTimeout(timeout)
			}
			if err != nil {
				t.Fatalf("%s as %s: %v", what, user.Name, err)
			}
			select {
			case err := <-refused:
				if !errors.Is(err, nats.ErrPermissionViolation) {
					t.Errorf("%s as %s: %v", what, user.Name, err)
				}
			case <-time.After(timeout):
				t.Errorf("%s as %s is not refused", what, user.Name)
			}
		}
		tried := 0
		for _, other := range users {
			if !slices.Contains(owners, other.Name) || other.Name == user.Name {
				continue
			}
			reaches("listening to answers", sub(nc, name.Inbox(other.Name)+".>"))
			for _, subject := range other.Publish {
				bucket, isBucket := strings.CutPrefix(subject, "$KV.")
				bucket = strings.TrimSuffix(bucket, ".>")
				if !isBucket || bucket == "acme_installation-records" {
					continue
				}
				tried++
				reaches("following "+bucket, sub(nc, "$KV."+bucket+".>"))
				for _, way := range []string{
					"$KV." + bucket + ".key", "$JS.API.STREAM.INFO.KV_" + bucket, "$JS.API.STREAM.MSG.GET.KV_" + bucket, "$JS.API.DIRECT.GET.KV_" + bucket + ".$KV." + bucket + ".key",
					"$JS.API.STREAM.CREATE.KV_" + bucket, "$JS.API.STREAM.UPDATE.KV_" + bucket, "$JS.API.STREAM.DELETE.KV_" + bucket, "$JS.API.STREAM.PURGE.KV_" + bucket,
					"$JS.API.STREAM.SNAPSHOT.KV_" + bucket, "$JS.API.CONSUMER.CREATE.KV_" + bucket + ".mine", "$JS.API.CONSUMER.MSG.NEXT.KV_" + bucket + ".changes",
				} {
					reaches(way, nc.Publish(way, nil))
				}
			}
		}
		if tried < 20 {
			t.Errorf("%d buckets of others were tried as %s", tried, user.Name)
		}
	}
}

func sub(nc *nats.Conn, subject string) error {
	_, err := nc.SubscribeSync(subject)
	return err
}

// A process whose user lacks a permission says so, and which, in its log and where it is asked whether it is ready.
func TestPermissions_aLackIsSaid(t *testing.T) {
	t.Parallel()
	const subject = "$JS.API.STREAM.CREATE.KV_DEVPILOT_AUTH_SCHEDULES"
	g := guard(t, "", map[string]string{"auth": subject})

	s := startTopology(t, topology{count: 1, unready: true, of: func(service string, i int) []string {
		if service == "deployer" {
			return g.as(service)
		}
		return g.of(service, i)
	}})
	testkit.Eventually(t, timeout, func() error {
		answer, err := http.Get(s.replicas["auth"][0].ops + "/readyz")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		said, err := io.ReadAll(answer.Body)
		body := string(said)
		if err == nil && (!strings.Contains(body, `Publish to "`+subject+`"`) || !strings.Contains(body, "devpilot nats-permissions")) {
			err = fmt.Errorf("auth says %s", body)
		}
		return err
	})
	if !strings.Contains(s.output(), "nats refuses") {
		t.Errorf("the log says nothing of it")
	}
}
