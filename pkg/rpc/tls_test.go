package rpc_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/pkg/transport"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
)

const aDay = 24 * time.Hour

// certificate opens one of a service, made by issuer, that trusts the same.
func certificate(t *testing.T, logs *testkit.Logs, service string, issuer *transport.Authority) *transport.Certificate {
	t.Helper()
	c, err := transport.Open(transport.Config{
		Files: testkit.Certificate(t, t.TempDir(), service, aDay, issuer, issuer), Service: service, Logger: logs.Logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// encrypted is the service auth on a port of this machine, which the gateway and repo may call.
type encrypted struct {
	authority *transport.Authority
	keys      *identity.Keys
	address   string
	logs      *testkit.Logs
}

func encrypt(t *testing.T) *encrypted {
	t.Helper()
	e := &encrypted{authority: testkit.Authority(t), keys: testkit.Keys(t), logs: testkit.Logger(t)}
	server, err := rpc.NewServer(rpc.ServerConfig{
		Service: "auth", Keys: e.keys, Logger: e.logs.Logger, Certificate: certificate(t, e.logs, "auth", e.authority),
		Policy: rpc.Policy{issueToken: {Callers: []string{"gateway", "repo"}}, connect: {Callers: []string{"gateway"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	authv1.RegisterAuthServiceServer(server, &fakeAuth{
		issue: func(context.Context, *authv1.IssueTokenRequest) (*authv1.IssueTokenResponse, error) {
			return &authv1.IssueTokenResponse{}, nil
		},
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.address = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		rpc.Stop(server, 5*time.Second)
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return e
}

// call calls as a service that shows a certificate; nil shows none and encrypts nothing.
func (e *encrypted) call(t *testing.T, service string, c *transport.Certificate, change ...func(*rpc.ClientConfig)) error {
	t.Helper()
	cfg := rpc.ClientConfig{Service: service, TargetService: "auth", Target: e.address, Keys: e.keys, Certificate: c}
	for _, f := range change {
		f(&cfg)
	}
	conn, err := rpc.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return issue(t.Context(), conn, "acme")
}

func TestTLS_aServiceWithItsCertificateIsServed(t *testing.T) {
	t.Parallel()
	e := encrypt(t)
	for _, service := range []string{"gateway", "repo"} {
		if err := e.call(t, service, certificate(t, e.logs, service, e.authority)); err != nil {
			t.Errorf("%s: %v", service, err)
		}
	}
}

// Each of these is refused before any call is read, and the server's log says why.
func TestTLS_strangersDoNotGetIn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config func(t *testing.T, e *encrypted) *tls.Config
		want   string // in the log
	}{
		"without a certificate": {
			func(t *testing.T, e *encrypted) *tls.Config { return e.trusting(t) }, "client didn't provide a certificate",
		},
		"of another authority": {func(t *testing.T, e *encrypted) *tls.Config {
			return e.showing(t, "gateway", aDay, testkit.Authority(t))
		}, "certificate signed by unknown authority"},
		"expired": {func(t *testing.T, e *encrypted) *tls.Config {
			return e.showing(t, "gateway", -time.Minute, e.authority)
		}, "certificate has expired"},
		"of a service that calls nothing here": {func(t *testing.T, e *encrypted) *tls.Config {
			return e.showing(t, "webhook", aDay, e.authority)
		}, "the service webhook calls nothing here"},
		"with TLS 1.2": {func(t *testing.T, e *encrypted) *tls.Config {
			c := e.showing(t, "gateway", aDay, e.authority)
			c.MaxVersion = tls.VersionTLS12
			return c
		}, "client offered only unsupported versions"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := encrypt(t)
			conn, err := grpc.NewClient(e.address, grpc.WithTransportCredentials(credentials.NewTLS(c.config(t, e))))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// Not even whether it serves is told.
			if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err == nil {
				t.Error("it was served")
			}
			testkit.Eventually(t, time.Minute, func() error {
				if !e.logs.Contains("a connection was refused") || !e.logs.Contains(c.want) {
					return errors.New("not logged: " + c.want)
				}
				return nil
			})
		})
	}
}

// trusting is a client's that knows the authority and shows nothing.
func (e *encrypted) trusting(t *testing.T) *tls.Config {
	t.Helper()
	roots, _, err := transport.Pool(e.authority.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{RootCAs: roots, ServerName: transport.NameOf("auth")}
}

func (e *encrypted) showing(t *testing.T, service string, life time.Duration, issuer *transport.Authority) *tls.Config {
	t.Helper()
	f := testkit.Certificate(t, t.TempDir(), service, life, issuer, issuer)
	pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	config := e.trusting(t)
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	return config
}

func TestTLS_plainCallersDoNotGetIn(t *testing.T) {
	t.Parallel()
	e := encrypt(t)
	if err := e.call(t, "gateway", nil); !errors.Is(err, apierr.Unavailable) {
		t.Errorf("%v", err)
	}
	conn, err := grpc.NewClient(e.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err == nil {
		t.Error("a plain caller was served")
	}
}

// A key of one service and the certificate of another are both needed to be either, in vain.
func TestTLS_whoSignsMustHaveTheCertificate(t *testing.T) {
	t.Parallel()
	e := encrypt(t)
	err := e.call(t, "gateway", certificate(t, e.logs, "repo", e.authority))
	if err == nil || status.Code(err).String() != "Internal" {
		t.Fatalf("%v", err)
	}
	if want := "the call is signed by the service gateway and came with the certificate of repo"; !e.logs.Contains(want) {
		t.Errorf("not logged: %s", want)
	}
}

// Who answers at an address must be the service that is called: by its authority, and by its name.
func TestTLS_callersKnowWhomTheyCall(t *testing.T) {
	t.Parallel()
	e := encrypt(t)
	for name, c := range map[string]struct {
		certificate *transport.Certificate
		change      func(*rpc.ClientConfig)
		want        string
	}{
		"another service answers": {
			certificate(t, e.logs, "gateway", e.authority), func(c *rpc.ClientConfig) { c.TargetService = "webhook" },
			"certificate is valid for auth.devpilot.internal, not webhook.devpilot.internal",
		},
		"another authority's": {
			certificate(t, e.logs, "gateway", testkit.Authority(t)), func(*rpc.ClientConfig) {}, "certificate signed by unknown authority",
		},
	} {
		err := e.call(t, "gateway", c.certificate, c.change)
		if !errors.Is(err, apierr.Unavailable) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A new certificate, of a new authority even, is used by the next connection. One that cannot be used is not.
func TestTLS_newFilesAreUsedByNewConnections(t *testing.T) {
	t.Parallel()
	e := encrypt(t)
	second, dir, logs := testkit.Authority(t), t.TempDir(), testkit.Logger(t)
	files := testkit.Certificate(t, dir, "repo", aDay, second, e.authority)
	// It is not by the authorities that it comes with: what would be refused by others is not begun with.
	if _, err := transport.Open(transport.Config{Files: files, Service: "repo", Logger: logs.Logger}); err == nil || !strings.Contains(err.Error(), files.Certificate) {
		t.Fatalf("%v", err)
	}
	testkit.Certificate(t, dir, "repo", aDay, second, second, e.authority)
	c, err := transport.Open(transport.Config{Files: files, Service: "repo", Logger: logs.Logger})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.call(t, "repo", c); !errors.Is(err, apierr.Unavailable) {
		t.Fatalf("by an authority that the server does not know: %v", err)
	}
	testkit.Certificate(t, dir, "repo", aDay, e.authority, second, e.authority)
	c.Reload(t.Context())
	if err := e.call(t, "repo", c); err != nil {
		t.Fatalf("the new certificate: %v", err)
	}
	if err := os.WriteFile(files.Key, []byte("half of a k"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Reload(t.Context())
	if err := e.call(t, "repo", c); err != nil {
		t.Errorf("with a broken key file: %v", err)
	}
	logs.MustNotContain(t, "half of a k")
}

func TestHosts(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]string{
		"auth:7001": "auth:7001", "10.0.0.1:7001,10.0.0.2:7001": "10.0.0.1:7001 10.0.0.2:7001", "[::1]:7001": "[::1]:7001",
		"dns:///auth:7001": "auth:7001", "dns://10.0.0.53/auth:7001": "auth:7001", "dns:auth:7001": "auth:7001", "passthrough:///auth:7001": "auth:7001",
		"unix:///run/auth.sock": "", "unix:auth.sock": "", "unix-abstract:auth": "", "dns:7001": "dns:7001",
	} {
		if got, err := rpc.Hosts(target); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %v, %v", target, got, err)
		}
	}
	for target, want := range map[string]string{
		"consul://10.0.0.1/auth": "consul://", "xds:///auth": "xds://", "https://auth:7001": "https://", "auth": "host:port", ":7001": "host:port", "auth:grpc": "host:port",
		"auth:70010": "host:port", "dns:///auth": "host:port", "a:1,dns:///b:2": "host:port", ",": "host:port", "ipv4:10.0.0.1:7001": "host:port",
	} {
		_, err := rpc.Hosts(target)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", target, err)
		}
		if _, err := rpc.Dial(rpc.ClientConfig{Service: "gateway", TargetService: "auth", Target: target, Keys: testkit.Keys(t)}); err == nil {
			t.Errorf("%s is dialled", target)
		}
	}
}
