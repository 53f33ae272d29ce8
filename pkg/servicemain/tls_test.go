package servicemain_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/pkg/transport"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// certify gives the process a certificate of a service.
func (i *installation) certify(service string, authority *transport.Authority) transport.Files {
	i.t.Helper()
	f := testkit.Certificate(i.t, i.t.TempDir(), service, time.Hour, authority, authority)
	i.env["DEVPILOT_TLS_CERT_FILE"], i.env["DEVPILOT_TLS_KEY_FILE"], i.env["DEVPILOT_TLS_CA_FILE"] = f.Certificate, f.Key, f.Authorities
	return f
}

func TestRun_withCertificates(t *testing.T) {
	i := install(t)
	authority := testkit.Authority(t)
	files := i.certify("deployer", authority)
	web := testkit.Certificate(t, t.TempDir(), "gateway", time.Hour, authority)
	i.env["DEVPILOT_LISTEN_CERT_FILE"], i.env["DEVPILOT_LISTEN_KEY_FILE"] = web.Certificate, web.Key
	// Beyond this machine nothing goes out or comes in but encrypted, so that it may.
	i.env["DEVPILOT_GRPC_LISTEN"], i.env["DEVPILOT_AUTH_ADDR"] = "0.0.0.0:0", "auth.example.com:7001"
	built := make(chan *probe, 1)
	ctx, cancel := context.WithCancel(t.Context())
	exit := make(chan int, 1)
	go func() { exit <- servicemain.Run(ctx, spec(built), i.process()) }()
	stop := func() {
		cancel()
		if code := <-exit; code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
	defer stop()
	ops := i.address("ops")
	awaitReady(t, ops)
	if p := <-built; !p.env.HTTPS {
		t.Error("the service does not know that it is served over HTTPS")
	}

	own, err := transport.Open(transport.Config{
		Files: testkit.Certificate(t, t.TempDir(), "gateway", time.Hour, authority, authority), Service: "gateway", Logger: testkit.Logger(t).Logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(i.address("grpc"), "]:")
	for name, c := range map[string]*transport.Certificate{"encrypted": own, "plain": nil} {
		conn, err := rpc.Dial(rpc.ClientConfig{Service: "gateway", TargetService: "deployer", Target: "127.0.0.1:" + port, Keys: i.keys, Certificate: c})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		follow, err := deployerv1.NewDeployerServiceClient(conn).ReadLog(t.Context(), &deployerv1.ReadLogRequest{Workspace: "acme-inc", App: "web", Number: 1})
		if err == nil {
			_, err = follow.Recv()
		}
		if (err == nil) != (c != nil) {
			t.Errorf("%s: %v", name, err)
		}
	}

	roots, _, err := transport.Pool(authority.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: transport.NameOf("gateway")}}}
	serial := func() (string, error) {
		res, err := client.Get("https://" + i.address("http"))
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != "hello" {
			return "", fmt.Errorf("%q %w", body, err)
		}
		return res.TLS.PeerCertificates[0].SerialNumber.String(), nil
	}
	first, err := serial()
	if err != nil {
		t.Fatal(err)
	}
	testkit.Certificate(t, filepath.Dir(web.Certificate), "gateway", time.Hour, authority)
	testkit.Eventually(t, time.Minute, func() error {
		now, err := serial()
		if err == nil && now == first {
			err = errors.New("the first certificate is still shown")
		}
		return err
	})
	testkit.Certificate(t, filepath.Dir(files.Certificate), "deployer", -time.Minute, authority, authority)
	testkit.Eventually(t, time.Minute, func() error {
		_, body, err := httpGet(t, "http://"+ops+"/metrics")
		for _, want := range []string{
			`devpilot_tls_reload_failing{use="services"} 1`, `devpilot_tls_reload_failing{use="http"} 0`, `devpilot_tls_reloads_total{result="used",use="http"} 1`,
			`devpilot_tls_authority_days_left{use="services"} `, `devpilot_tls_certificate_days_left{use="http"} 0.04`,
		} {
			if err == nil && !strings.Contains(body, want) {
				err = fmt.Errorf("no %s in the metrics", want)
			}
		}
		return err
	})
}

// Nothing leaves this machine in clear, unless that is said to be meant.
func TestRun_refusesPlaintextBeyondThisMachine(t *testing.T) {
	i := install(t)
	plain, authority := i.env, testkit.Authority(t)
	for name, c := range map[string]struct {
		env  map[string]string
		want string // empty: it is not refused
	}{
		"listening on all addresses":  {map[string]string{"DEVPILOT_GRPC_LISTEN": ":0"}, "--grpc-listen (DEVPILOT_GRPC_LISTEN) is :0, which others on the network reach"},
		"a neighbour elsewhere":       {map[string]string{"DEVPILOT_AUTH_ADDR": "auth:7001"}, "--auth-addr (DEVPILOT_AUTH_ADDR) is at auth:7001, beyond this machine"},
		"one of several elsewhere":    {map[string]string{"DEVPILOT_AUTH_ADDR": "127.0.0.1:7001, 10.0.0.7:7001"}, "10.0.0.7:7001, beyond this machine"},
		"a target elsewhere":          {map[string]string{"DEVPILOT_AUTH_ADDR": "dns:///auth:7001"}, "auth:7001, beyond this machine"},
		"a scheme nobody knows":       {map[string]string{"DEVPILOT_AUTH_ADDR": "consul:///auth"}, "--auth-addr (DEVPILOT_AUTH_ADDR): the address \"consul:///auth\" begins with consul://"},
		"a word nobody knows":         {map[string]string{"DEVPILOT_ALLOW_PLAINTEXT": "all"}, `DEVPILOT_ALLOW_PLAINTEXT) does not know "all"`},
		"two of three files":          {map[string]string{"DEVPILOT_TLS_CERT_FILE": "a", "DEVPILOT_TLS_KEY_FILE": "b"}, "go together: set all three, or none"},
		"one of two files":            {map[string]string{"DEVPILOT_LISTEN_CERT_FILE": "a"}, "go together: set both, or none"},
		"files that are not there":    {map[string]string{"DEVPILOT_TLS_CERT_FILE": "/nowhere", "DEVPILOT_TLS_KEY_FILE": "b", "DEVPILOT_TLS_CA_FILE": "c"}, "DEVPILOT_TLS_CERT_FILE, DEVPILOT_TLS_KEY_FILE, DEVPILOT_TLS_CA_FILE): the certificate: open /nowhere"},
		"NATS elsewhere":              {map[string]string{"DEVPILOT_NATS_URL": "nats://me:s3cr3t@127.0.0.1:4222,nats://me:s3cr3t@nats:4222"}, "the NATS of DEVPILOT_NATS_URL is at nats:4222, beyond this machine"},
		"NATS by its name alone":      {map[string]string{"DEVPILOT_NATS_URL": "nats.example.com"}, "the NATS of DEVPILOT_NATS_URL is at nats.example.com, beyond this machine"},
		"Redis elsewhere":             {map[string]string{"DEVPILOT_REDIS_URL": "redis://me:s3cr3t@redis:6379/0"}, "the Redis of DEVPILOT_REDIS_URL is at redis:6379, beyond this machine"},
		"a socket":                    {map[string]string{"DEVPILOT_AUTH_ADDR": "unix:///run/auth.sock"}, ""},
		"with a word that allows it":  {map[string]string{"DEVPILOT_GRPC_LISTEN": ":0", "DEVPILOT_AUTH_ADDR": "auth:7001", "DEVPILOT_REDIS_URL": "redis://127.0.0.2:1", "DEVPILOT_ALLOW_PLAINTEXT": "services"}, ""},
		"Redis that may be elsewhere": {map[string]string{"DEVPILOT_REDIS_URL": "redis://redis.invalid:1", "DEVPILOT_ALLOW_PLAINTEXT": "redis, nats"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			i.t, i.stderr, i.env = t, &syncBuffer{}, maps.Clone(plain)
			maps.Copy(i.env, c.env)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			s := spec(make(chan *probe, 1))
			if c.want == "" { // it comes as far as to be built
				s.Build = func(context.Context, *servicemain.Env, flags) (servicemain.Service, error) {
					return nil, errors.New("built")
				}
			}
			code := servicemain.Run(ctx, s, i.process())
			said := i.stderr.String()
			if c.want == "" {
				if !strings.Contains(said, "built") {
					t.Errorf("exit code %d, printed %s", code, said)
				}
				return
			}
			if code == 0 || !strings.Contains(said, c.want) || strings.Count(said, "\n") != 1 || strings.Contains(said, "s3cr3t") {
				t.Errorf("exit code %d, printed %s", code, said)
			}
		})
	}
	t.Run("another service's certificate", func(t *testing.T) {
		i.t, i.stderr, i.env = t, &syncBuffer{}, maps.Clone(plain)
		i.certify("repo", authority)
		if code := servicemain.Run(t.Context(), spec(make(chan *probe, 1)), i.process()); code != 1 || !strings.Contains(i.stderr.String(), "service deployer needs one with the DNS name deployer.devpilot.internal") {
			t.Errorf("exit code %d, printed %s", code, i.stderr.String())
		}
	})
}
