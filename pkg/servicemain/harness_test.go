package servicemain_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/testkit"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// probe is a service with everything a service can have.
type probe struct {
	deployerv1.UnimplementedDeployerServiceServer
	env     *servicemain.Env
	drained chan struct{}
	once    sync.Once
	ended   chan struct{} // closed when Run has returned
	runErr  error
}

func (p *probe) Run(ctx context.Context) error {
	defer close(p.ended)
	if p.runErr != nil {
		return p.runErr
	}
	<-ctx.Done()
	return nil
}

func (*probe) Ready(context.Context) error { return nil }

func (p *probe) Register(s grpc.ServiceRegistrar) { deployerv1.RegisterDeployerServiceServer(s, p) }

func (p *probe) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
}

func (p *probe) Drain() { p.once.Do(func() { close(p.drained) }) }

// ReadLog follows until the service drains.
func (p *probe) ReadLog(_ *deployerv1.ReadLogRequest, s grpc.ServerStreamingServer[deployerv1.ReadLogResponse]) error {
	if err := s.Send(&deployerv1.ReadLogResponse{}); err != nil {
		return err
	}
	select {
	case <-p.drained:
		return s.Send(&deployerv1.ReadLogResponse{End: &deployerv1.LogEnd{}})
	case <-s.Context().Done():
		return s.Context().Err()
	}
}

type flags struct {
	servicemain.WorkerFlags `embed:""`
}

// syncBuffer is a writer for a process's output.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// installation is what is around a process: stores and keys.
type installation struct {
	t      *testing.T
	nats   *testkit.NATSServer
	redis  *testkit.RedisServer
	keys   *identity.Keys
	dir    string
	stderr *syncBuffer
	env    map[string]string
}

func install(t *testing.T) *installation {
	t.Helper()
	i := &installation{t: t, nats: testkit.NATS(t), redis: testkit.Redis(t), dir: t.TempDir(), stderr: &syncBuffer{}}
	var err error
	if i.keys, err = identity.CreateKeysFile(filepath.Join(i.dir, "identity.json"), testkit.Services...); err != nil {
		t.Fatal(err)
	}
	if _, err = seal.CreateKeysetFile(filepath.Join(i.dir, "keyset.json")); err != nil {
		t.Fatal(err)
	}
	i.env = map[string]string{
		"DEVPILOT_NATS_URL": i.nats.URL(), "DEVPILOT_REDIS_URL": i.redis.URL(),
		"DEVPILOT_ENCRYPTION_KEYSET_FILE": filepath.Join(i.dir, "keyset.json"), "DEVPILOT_IDENTITY_KEY_FILE": filepath.Join(i.dir, "identity.json"),
		"DEVPILOT_AUTH_ADDR": "127.0.0.1:1", "DEVPILOT_DRAIN_DELAY": "10ms",
		"DEVPILOT_LISTEN": "127.0.0.1:0", "DEVPILOT_GRPC_LISTEN": "127.0.0.1:0", "DEVPILOT_OPS_LISTEN": "127.0.0.1:0",
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(i.stderr.String())
		}
	})
	return i
}

func (i *installation) process() servicemain.Process {
	p := servicemain.Process{Args: []string{"--workers=3"}, Stdout: io.Discard, Stderr: i.stderr}
	for k, v := range i.env {
		p.Environ = append(p.Environ, k+"="+v)
	}
	return p
}

// spec describes the probe; built receives it.
func spec(built chan<- *probe, change ...func(*probe)) servicemain.Spec[flags] {
	policy := rpc.Policy{}
	for _, m := range deployerv1.DeployerService_ServiceDesc.Methods {
		policy["/devpilot.deployer.v1.DeployerService/"+m.MethodName] = rpc.Rule{Callers: []string{"gateway"}}
	}
	policy[deployerv1.DeployerService_ReadLog_FullMethodName] = rpc.Rule{Callers: []string{"gateway"}}
	return servicemain.Spec[flags]{
		Name: "deployer", Description: "Runs deployments.", Listen: ":8080", GRPCListen: ":7004", OpsListen: ":7104",
		Policy: policy, Calls: []string{"auth"},
		Build: func(_ context.Context, env *servicemain.Env, cfg flags) (servicemain.Service, error) {
			if cfg.Slots() != 3 {
				return nil, fmt.Errorf("%d slots", cfg.Slots())
			}
			if env.Logger == nil || env.NC == nil || env.JS == nil || env.Redis == nil || env.Keyset == nil || env.Keys == nil ||
				env.Registerer == nil || env.TracerProvider == nil || env.Now == nil || env.HTTPAddr == nil {
				return nil, fmt.Errorf("the environment is not complete: %+v", env)
			}
			if _, err := env.Dial("auth"); err != nil {
				return nil, err
			}
			if _, err := env.Dial("webhook"); err == nil {
				return nil, errors.New("dialed a service that is not among Calls")
			}
			p := &probe{env: env, drained: make(chan struct{}), ended: make(chan struct{})}
			for _, f := range change {
				f(p)
			}
			built <- p
			return p, nil
		},
	}
}

// address finds in the log where something is served.
func (i *installation) address(what string) string {
	i.t.Helper()
	var found string
	testkit.Eventually(i.t, 20*time.Second, func() error {
		for line := range strings.Lines(i.stderr.String()) {
			var m struct{ Msg, Addr string }
			if json.Unmarshal([]byte(line), &m) == nil && m.Msg == "serving "+what {
				found = m.Addr
				return nil
			}
		}
		return fmt.Errorf("nothing serves %s", what)
	})
	return found
}

func httpGet(t *testing.T, url string) (int, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, string(body), err
}

func awaitReady(t *testing.T, ops string) {
	t.Helper()
	testkit.Eventually(t, 20*time.Second, func() error {
		code, body, err := httpGet(t, "http://"+ops+"/readyz")
		if err != nil || code != http.StatusOK {
			return fmt.Errorf("%d %s %w", code, body, err)
		}
		return nil
	})
}
