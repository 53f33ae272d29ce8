package servicemain_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log" //nolint:depguard // to see that its output is taken over
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/testkit"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

func TestRun_servesAndStopsInOrder(t *testing.T) {
	i := install(t)
	built := make(chan *probe, 1)
	ctx, cancel := context.WithCancel(t.Context())
	exit := make(chan int, 1)
	go func() { exit <- servicemain.Run(ctx, spec(built), i.process()) }()
	defer cancel()

	ops := i.address("ops")
	awaitReady(t, ops)
	p := <-built
	if code, body, err := httpGet(t, "http://"+i.address("http")); err != nil || code != 200 || body != "hello" {
		t.Errorf("http: %d %q %v", code, body, err)
	}
	if _, body, err := httpGet(t, "http://"+ops+"/metrics"); err != nil || !strings.Contains(body, "devpilot_build_info") {
		t.Errorf("metrics: %v", err)
	}
	raw, err := grpc.NewClient(i.address("grpc"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	testkit.Eventually(t, 10*time.Second, func() error {
		res, err := healthpb.NewHealthClient(raw).Check(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil || res.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			return fmt.Errorf("health %v, %w", res, err)
		}
		return nil
	})
	conn, err := rpc.Dial(rpc.ClientConfig{Service: "gateway", TargetService: "deployer", Target: i.address("grpc"), Keys: i.keys})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	follow, err := deployerv1.NewDeployerServiceClient(conn).ReadLog(t.Context(), &deployerv1.ReadLogRequest{Workspace: "acme-inc", App: "web", Number: 1, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := follow.Recv(); err != nil {
		t.Fatal(err)
	}

	begin := time.Now()
	cancel()
	// The followed log is ended by Drain, not cut by the server's stop.
	last, err := follow.Recv()
	if err != nil || last.GetEnd() == nil {
		t.Errorf("the followed log ended with %v, %v", last, err)
	}
	if code := <-exit; code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("stopping took %s", took)
	}
	<-p.ended
	if !p.env.NC.IsClosed() {
		t.Error("the NATS connection is still open")
	}
	if _, _, err := httpGet(t, "http://"+ops+"/livez"); err == nil {
		t.Error("the ops listener still serves")
	}
	for _, secret := range []string{i.redis.URL(), i.nats.URL()} {
		if strings.Contains(i.stderr.String(), secret) {
			t.Errorf("a store's URL is in the log")
		}
	}
}

func TestRun_waitsForNATSAndDoesWithoutRedis(t *testing.T) {
	i := install(t)
	i.nats.Stop()
	i.redis.Stop()
	built := make(chan *probe, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	exit := make(chan int, 1)
	go func() { exit <- servicemain.Run(ctx, spec(built), i.process()) }()
	testkit.Eventually(t, 20*time.Second, func() error {
		if !strings.Contains(i.stderr.String(), "cannot connect yet") {
			return errors.New("no attempt was logged")
		}
		return nil
	})
	if code, _, err := httpGet(t, "http://"+i.address("ops")+"/livez"); err != nil || code != 200 {
		t.Errorf("not alive while it waits: %d, %v", code, err)
	}
	i.nats.Start()
	awaitReady(t, i.address("ops"))
	if !strings.Contains(i.stderr.String(), "redis does not answer") {
		t.Error("nobody was told that Redis is away")
	}
	tells := func(ready, nats, redis int) {
		t.Helper()
		testkit.Eventually(t, 20*time.Second, func() error {
			_, body, err := httpGet(t, "http://"+i.address("ops")+"/metrics")
			for _, line := range []string{fmt.Sprint("devpilot_ready ", ready), fmt.Sprint("devpilot_nats_up ", nats), fmt.Sprint("devpilot_redis_up ", redis)} {
				if err == nil && !strings.Contains(body, "\n"+line+"\n") {
					err = fmt.Errorf("the metrics do not say %q", line)
				}
			}
			return err
		})
	}
	tells(1, 1, 0)
	i.redis.Start()
	tells(1, 1, 1)
	i.nats.Stop()
	tells(0, 0, 1)
	testkit.Eventually(t, 20*time.Second, func() error {
		code, body, err := httpGet(t, "http://"+i.address("ops")+"/readyz")
		if err != nil || code != http.StatusServiceUnavailable || !strings.Contains(body, "nats: not connected") {
			return fmt.Errorf("%d %s %w", code, body, err)
		}
		return nil
	})
	cancel()
	if code := <-exit; code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestRun_aConnectionClosedForGoodEndsTheProcess(t *testing.T) {
	i := install(t)
	built := make(chan *probe, 1)
	exit := make(chan int, 1)
	go func() { exit <- servicemain.Run(t.Context(), spec(built), i.process()) }()
	p := <-built
	awaitReady(t, i.address("ops"))
	p.env.NC.Close() // as the library does when the server refuses our credentials
	if code := <-exit; code != 1 || !strings.Contains(i.stderr.String(), "nats: the connection was closed for good") {
		t.Errorf("exit code %d", code)
	}
}

func TestAdoptLogs_takesWhatLibrariesWrite(t *testing.T) {
	before := slog.Default()
	t.Cleanup(func() {
		slog.SetDefault(before)
		log.SetOutput(os.Stderr)
	})
	var out syncBuffer
	logger, err := logs.New(&out, logs.FormatJSON, "debug")
	if err != nil {
		t.Fatal(err)
	}
	servicemain.AdoptLogs(logger)
	log.Print("from package log")
	otel.Handle(errors.New("from tracing"))
	for line := range strings.Lines(out.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
	for _, want := range []string{"from package log", "from tracing"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is lost", want)
		}
	}
}

func TestRun_interruptedWhileStarting(t *testing.T) {
	i := install(t)
	i.nats.Stop()
	ctx, cancel := context.WithCancel(t.Context())
	exit := make(chan int, 1)
	go func() { exit <- servicemain.Run(ctx, spec(nil), i.process()) }()
	i.address("ops")
	cancel()
	if code := <-exit; code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestRun_failures(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	i := install(t)
	plain := i.env
	boom := errors.New("buckets are on fire")
	for name, tc := range map[string]struct {
		env    map[string]string
		change func(*servicemain.Spec[flags])
		code   int
		want   string
	}{
		"unknown setting":    {env: map[string]string{"DEVPILOT_NATS_URI": "x"}, code: 2, want: "did you mean DEVPILOT_NATS_URL?"},
		"missing neighbour":  {env: map[string]string{"DEVPILOT_AUTH_ADDR": ""}, code: 2, want: "DEVPILOT_AUTH_ADDR is not set (flag --auth-addr)"},
		"missing stores":     {env: map[string]string{"DEVPILOT_REDIS_URL": ""}, code: 2, want: "DEVPILOT_REDIS_URL is not set"},
		"busy port":          {env: map[string]string{"DEVPILOT_GRPC_LISTEN": taken.Addr().String()}, code: 1, want: "with --grpc-listen (DEVPILOT_GRPC_LISTEN)"},
		"no keyset":          {env: map[string]string{"DEVPILOT_ENCRYPTION_KEYSET_FILE": "/nowhere"}, code: 1, want: "DEVPILOT_ENCRYPTION_KEYSET_FILE"},
		"no identity keys":   {env: map[string]string{"DEVPILOT_IDENTITY_KEY_FILE": "/nowhere"}, code: 1, want: "DEVPILOT_IDENTITY_KEY_FILE"},
		"unknown neighbour":  {change: func(s *servicemain.Spec[flags]) { s.Calls = []string{"billing"} }, code: 2, want: `"billing"`},
		"a method uncovered": {change: func(s *servicemain.Spec[flags]) { delete(s.Policy, deployerv1.DeployerService_ReadLog_FullMethodName) }, code: 1, want: "ReadLog has no rule"},
		"build fails": {change: func(s *servicemain.Spec[flags]) {
			s.Build = func(context.Context, *servicemain.Env, flags) (servicemain.Service, error) { return nil, boom }
		}, code: 1, want: "deployer: start: buckets are on fire"},
		"service dies": {change: func(s *servicemain.Spec[flags]) {
			s.Build = spec(make(chan *probe, 1), func(p *probe) { p.runErr = boom }).Build
		}, code: 1, want: "deployer: buckets are on fire"},
	} {
		t.Run(name, func(t *testing.T) {
			i.t, i.stderr, i.env = t, &syncBuffer{}, map[string]string{}
			for k, v := range plain {
				i.env[k] = v
			}
			for k, v := range tc.env {
				i.env[k] = v
			}
			s := spec(make(chan *probe, 1))
			if tc.change != nil {
				tc.change(&s)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			code := servicemain.Run(ctx, s, i.process())
			if code != tc.code || !strings.Contains(i.stderr.String(), tc.want) || ctx.Err() != nil {
				t.Errorf("exit code %d, printed %s", code, i.stderr.String())
			}
		})
	}
}

func TestRun_helpAndVersionNeedNoSettings(t *testing.T) {
	for arg, want := range map[string]string{"--help": "--grpc-listen", "--version": "deployer " + servicemain.Version} {
		var out bytes.Buffer
		code := servicemain.Run(t.Context(), spec(nil), servicemain.Process{Args: []string{arg}, Stdout: &out, Stderr: io.Discard})
		if code != 0 || !strings.Contains(out.String(), want) {
			t.Errorf("%s: exit code %d, printed %s", arg, code, out.String())
		}
	}
}
