package e2e

import (
	"context"
	"os/exec"
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
