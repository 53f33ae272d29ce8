package auth_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/auth"
)

// The tests of this file kill and stop real processes: the test binary runs itself as an auth
// process, against the stores and the emulator of the test.

const childVariable = "AUTH_TEST_CHILD"

type childConfig struct {
	Name, NATS, Redis, Keyset, Keys, SiteURL, APIURL string
}

func TestMain(m *testing.M) {
	if raw := os.Getenv(childVariable); raw != "" {
		if err := runChild(raw); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1) //nolint:forbidigo // this is the main of a process
		}
		os.Exit(0) //nolint:forbidigo // this is the main of a process
	}
	os.Exit(m.Run()) //nolint:forbidigo // this is the main of a process
}

// runChild is an auth process that serves gRPC on a free port, which it prints.
func runChild(raw string) error {
	var c childConfig
	if err := json.Unmarshal([]byte(raw), &c); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	keyset, err := seal.LoadKeysetFile(c.Keyset)
	if err != nil {
		return err
	}
	keys, err := identity.LoadKeysFile(c.Keys)
	if err != nil {
		return err
	}
	nc, js, err := stream.Connect(c.NATS, c.Name)
	if err != nil {
		return err
	}
	defer nc.Close()
	rc, err := redisx.ConnectWithin(c.Redis, 30*time.Second)
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	consumer := emulator.DefaultConsumer()
	svc, err := auth.New(auth.Config{
		PublicURL: publicURL, Site: bitbucket.Site{SiteURL: c.SiteURL, APIURL: c.APIURL},
		ClientID: consumer.Key, ClientSecret: seal.NewSecret(consumer.Secret),
		Timing: auth.Timing{TakeOver: time.Second, Scan: time.Hour},
	}, auth.Deps{
		Logger: logger, JS: js, Redis: rc, Keyset: keyset,
		HTTPClient: &http.Client{Transport: named{c.Name, bitbucket.NewTransport()}},
	})
	if err != nil {
		return err
	}
	server, err := rpc.NewServer(rpc.ServerConfig{Service: "auth", Keys: keys, Policy: auth.Policy, Logger: logger})
	if err != nil {
		return err
	}
	svc.Register(server)
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = server.Serve(listener) }()
	fmt.Println(listener.Addr())
	err = svc.Run(ctx)
	rpc.Stop(server, time.Second)
	return err
}

// child is an auth process of its own.
type child struct {
	cmd  *exec.Cmd
	repo authv1.AuthServiceClient
}

func (s *stack) spawn(name string) *child {
	s.t.Helper()
	dir := s.t.TempDir()
	c := childConfig{
		Name: name, NATS: s.nats.URL(), Redis: s.redis.URL(), SiteURL: s.site.SiteURL, APIURL: s.site.APIURL,
		Keyset: filepath.Join(dir, "keyset.json"), Keys: filepath.Join(dir, "keys.json"),
	}
	if err := s.keyset.SaveFile(c.Keyset); err != nil {
		s.t.Fatal(err)
	}
	if err := s.keys.WriteFile(c.Keys); err != nil {
		s.t.Fatal(err)
	}
	raw, err := json.Marshal(c)
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+string(raw))
	cmd.Stderr = s.logs.Writer()
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		s.t.Fatalf("process %s did not start: %v", name, err)
	}
	conn, err := rpc.Dial(rpc.ClientConfig{Service: "repo", TargetService: "auth", Target: strings.TrimSpace(addr), Keys: s.keys, Logger: s.logs.Logger})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	p := &child{cmd: cmd, repo: authv1.NewAuthServiceClient(conn)}
	testkit.Eventually(s.t, timeout, func() error {
		_, err := p.repo.GetIntegration(s.t.Context(), &authv1.GetIntegrationRequest{Workspace: "acme-inc"}, grpc.WaitForReady(true))
		return err
	})
	return p
}

// connectAndLeave connects through a process that is gone then: its keeper would take part.
func (s *stack) connectAndLeave() {
	s.t.Helper()
	i := s.start("connecting")
	s.connect(i, "acme-inc", "jane-dev")
	if err := i.stop(); err != nil {
		s.t.Fatal(err)
	}
}

// With grace at Bitbucket: the holder is killed, or stopped for longer than the others wait, when
// Bitbucket has rotated the token and its answer has not been stored. Still connected.
func TestProcess_holderKilledOrStopped(t *testing.T) {
	for _, kill := range []bool{true, false} {
		t.Run(fmt.Sprint("killed ", kill), func(t *testing.T) {
			s := newStack(t, emulator.Options{})
			s.switches(func(sw *emulator.Switches) { withGrace(&sw.Tokens); sw.Tokens.AccessTTL = time.Minute })
			s.connectAndLeave()
			holder, other := s.spawn("holder"), s.spawn("other")
			answered, release := make(chan struct{}), make(chan struct{})
			s.gate.set(func(g *gate) {
				g.onRefresh = func(process string) bool {
					if process == "holder" {
						close(answered)
						<-release
						s.gate.set(func(g *gate) { g.onRefresh = nil })
					}
					return true
				}
			})
			go func() {
				_, _ = issue(t, holder.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"}) // asks for more than the minute that is left
			}()
			<-answered
			if kill {
				if err := holder.cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			} else if err := holder.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			close(release) // the answer arrives at a process that cannot take it
			begin := time.Now()
			r, err := issue(t, other.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
			if err != nil || s.works(r.GetAccessToken()) != nil {
				t.Fatalf("the other process, after %v: %v", time.Since(begin), err)
			}
			if took := time.Since(begin); took < time.Second {
				t.Errorf("the lease was taken over after %v", took)
			}
			survivors := []*child{other}
			if !kill {
				if err := holder.cmd.Process.Signal(syscall.SIGCONT); err != nil {
					t.Fatal(err)
				}
				survivors = append(survivors, holder)
				// Its late answer is kept until it is known which of the two is good.
				eventually(t, func() bool { return len(s.stored("acme-inc").GetSpares()) == 2 })
			}
			for range 3 {
				for _, p := range survivors {
					r, err := issue(t, p.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
					if err != nil || s.works(r.GetAccessToken()) != nil {
						t.Fatalf("afterwards: %v", err)
					}
				}
			}
			if rec := s.stored("acme-inc"); rec.GetFailure() != nil || rec.GetReconnectRequired() || rec.GetVerify() {
				t.Errorf("failure %v, given up %v, verify %v", rec.GetFailure(), rec.GetReconnectRequired(), rec.GetVerify())
			}
		})
	}
}

// SIGTERM in the middle of a refresh: the process ends only after the answer is stored.
func TestProcess_terminationWaitsForTheRefresh(t *testing.T) {
	s := newStack(t, emulator.Options{})
	s.switches(func(sw *emulator.Switches) { noGrace(&sw.Tokens); sw.Tokens.AccessTTL = time.Minute })
	s.connectAndLeave()
	p := s.spawn("holder")
	answered, release := make(chan struct{}), make(chan struct{})
	s.gate.set(func(g *gate) {
		g.onRefresh = func(string) bool {
			close(answered)
			<-release
			return true
		}
	})
	go func() { _, _ = issue(t, p.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"}) }()
	<-answered
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	select {
	case <-ended:
		t.Fatal("ended with an answer on its way")
	case <-time.After(300 * time.Millisecond):
	}
	close(release)
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(timeout):
		t.Fatal("did not end")
	}
	if rec := s.stored("acme-inc"); rec.GetGeneration() != 1 || rec.GetLease() != nil {
		t.Errorf("generation %d, lease %v", rec.GetGeneration(), rec.GetLease())
	}
}
