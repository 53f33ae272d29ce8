package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/testkit"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

// tokensBucket is where auth keeps its integrations.
const tokensBucket = "DEVPILOT_AUTH_INTEGRATIONS"

// sealedTokens are the integrations as they stand in the bucket, by their keys.
func sealedTokens(t *testing.T, js jetstream.JetStream) map[string]*authstorev1.Integration {
	t.Helper()
	bucket, err := js.KeyValue(t.Context(), tokensBucket)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := bucket.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*authstorev1.Integration{}
	for _, key := range keys {
		entry, err := bucket.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		rec := &authstorev1.Integration{}
		if err := proto.Unmarshal(entry.Value(), rec); err != nil {
			t.Fatal(err)
		}
		all[key] = rec
	}
	return all
}

// The product runs with a keyset for each service. Of what auth has stored, only auth's keyset opens the tokens; a service with
// another's keyset ends with a sentence.
func TestKeysets_onlyAuthOpensTokens(t *testing.T) {
	t.Parallel()
	top := startTopology(t, topology{count: 1})
	s := &shared{planted: map[string]string{}, stack: top}
	s.owner = newBrowser(t, s.url()).signIn(s.adminToken())
	mainPath(t, s)
	keysets, err := seal.LoadKeysets(top.secrets, testkit.Services...)
	if err != nil {
		t.Fatal(err)
	}
	opened := 0
	for key, rec := range sealedTokens(t, s.js(t)) {
		for kind, sealed := range map[string][]byte{"access": rec.GetAccess().GetSealed(), "refresh": rec.GetRefresh().GetSealed()} {
			for service, keyset := range keysets {
				_, err := keyset.Open(sealed, []byte(tokensBucket+"/"+key+"/"+kind))
				if (err == nil) != (service == "auth") {
					t.Errorf("%s opens the %s token: %v", service, kind, err)
				}
			}
			opened++
		}
	}
	if opened == 0 {
		t.Fatal("there are no tokens")
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout) // for a process that does not refuse
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t, "auth"))
	cmd.Env = slices.Concat(top.env, []string{"DEVPILOT_GRPC_LISTEN=" + loopback(t), "DEVPILOT_OPS_LISTEN=" + loopback(t), "DEVPILOT_ENCRYPTION_KEYSET_FILE=" + seal.KeysetFileOf(top.secrets, "deployer")})
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "give this process the keyset that its service began with") {
		t.Errorf("auth with the deployer's keyset: %v\n%s", err, out)
	}
}

// An installation with one keyset for all goes on with one for each that was split from it, while old and new processes run beside
// each other.
func TestKeysets_splitBesideProcessesWithTheOneBefore(t *testing.T) {
	t.Parallel()
	top := startTopology(t, topology{count: pair, sharedKeyset: true})
	s := &shared{planted: map[string]string{}, stack: top}
	s.owner = newBrowser(t, s.url()).signIn(s.adminToken())
	n := s.tenant(t, "split")
	repo := s.site().repository(t, "split-web", "site")
	n.app("web", repo, "main")
	n.live("web", s.site().commit(t, repo, "main", "with one keyset"))
	for range 2 { // it may be run again
		cmd := exec.CommandContext(t.Context(), program(t, "devpilot"), "keyset", "split", top.secrets) // our own program
		cmd.Env = cleanEnviron()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for _, service := range testkit.Services {
		top.replicas[service][0].Terminate()
		top.keysets[service] = seal.KeysetFileOf(top.secrets, service)
		top.replicas[service][0].Start()
		awaitReady(t, top.replicas[service][0].ops)
	}
	n.live("web", s.site().commit(t, repo, "main", "with both"))
}

// keysByThePage runs the blocks of the part Keys of deploy/OPERATIONS.md one after the other, with a restart of all processes between them.
func keysByThePage(t *testing.T, env []string, restart func()) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "deploy", "OPERATIONS.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(string(page), "\n## Keys\n")
	part, _, _ = strings.Cut(part, "\n## ")
	blocks := shellBlock.FindAllStringSubmatch(part, -1)
	if len(blocks) != 3 {
		t.Fatalf("the page has %d blocks about keys", len(blocks))
	}
	run := func(script string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		shell := exec.CommandContext(ctx, "bash", "-euo", "pipefail")
		shell.Stdin = strings.NewReader(script)
		shell.Env = append(slices.Concat(cleanEnviron(), env), "PATH="+filepath.Dir(program(t, "devpilot"))+":"+os.Getenv("PATH"))
		out, err := shell.CombinedOutput()
		if err != nil {
			t.Fatalf("%s ended with %v:\n%s", script, err, out)
		}
		t.Logf("%s%s", script, out)
	}
	run(blocks[0][1])
	restart()
	run(blocks[1][1])
	restart()
	if out, err := devpilot(t, env, "keyset", "retire"); err == nil || !strings.Contains(out, "stays, for with it are sealed") {
		t.Fatalf("a key that seals what is stored was dropped: %v\n%s", err, out)
	}
	if out, err := devpilot(t, env, "keyset", "check"); err == nil || !strings.Contains(out, "sealed with earlier keys") {
		t.Fatalf("before all is sealed anew: %v\n%s", err, out)
	}
	killed := exec.CommandContext(t.Context(), program(t, "devpilot"), "keyset", "reseal") // our own program
	killed.Env = slices.Concat(cleanEnviron(), env)
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	_ = killed.Process.Kill()
	_ = killed.Wait() // it was killed, wherever it was
	run(blocks[2][1])
	restart()
	if out, err := devpilot(t, env, "keyset", "check"); err != nil || strings.Contains(out, "earlier") {
		t.Errorf("afterwards: %v\n%s", err, out)
	}
}

// devpilot runs a command of the program.
func devpilot(t *testing.T, env []string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t, "devpilot"), args...) // our own program
	cmd.Env = slices.Concat(cleanEnviron(), env)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// secretive is an app with what the deployer and auth seal.
func secretive(n *tenant, app string) {
	n.t.Helper()
	n.api.must("PATCH", n.path("/apps/%s", app), object{"variables": []any{object{"name": "TOKEN", "value": "s3cr3t", "secret": true}}})
}

// By the page's words a new key takes the place of the one before, under pushes: all of them are deployed, nobody is signed out, and
// the key that seals afterwards is alone.
func TestOperations_keysAreChangedByThePage(t *testing.T) {
	t.Parallel()
	t.Run("in one process", func(t *testing.T) {
		t.Parallel()
		r := startRestorable(t)
		secretive(r.tenant, "web")
		stop := r.pushing()
		keysByThePage(t, r.daemon.env, func() {
			r.daemon.terminate()
			r.daemon.start()
			r.api.get("/v1/me") // the session lives, and has a cookie of today's key
		})
		stop()
		if err := r.site().WaitIdle(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.live("web", r.site().commit(t, r.repo, "main", "afterwards"))
		r.onceEach()
	})
	t.Run("in a process per service", func(t *testing.T) {
		t.Parallel()
		top := startTopology(t, topology{count: pair})
		s := &shared{planted: map[string]string{}, stack: top}
		s.owner = newBrowser(t, s.url()).signIn(s.adminToken())
		n := s.tenant(t, "rolling")
		repo := s.site().repository(t, "rolling-web", "site")
		n.app("web", repo, "main")
		secretive(n, "web")
		pushes := 0
		keysByThePage(t, append(slices.Clone(top.env), "DEVPILOT_ENCRYPTION_KEYSET_FILE="+top.secrets), func() {
			for _, service := range testkit.Services {
				for _, r := range top.replicas[service] {
					r.Terminate()
					pushes++
					s.site().commit(t, repo, "main", fmt.Sprintf("push %d", pushes))
					r.Start()
					awaitReady(t, r.ops)
				}
			}
			n.api.get("/v1/me")
		})
		n.live("web", s.site().commit(t, repo, "main", "afterwards"))
	})
}
