package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"devpilot.io/bitbucket/services/allinone"
)

// What a mail server and receivers must never show.
const (
	mailPassword = "planted-mail-password"
	hookVariable = "planted-variable-of-the-hook"
)

// inbox is what came to a receiver: whole requests and mails.
type inbox struct {
	mu  sync.Mutex
	got []string
	ids map[string]int // of notifications: how often each was taken
}

func (b *inbox) take(id, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ids == nil {
		b.ids = map[string]int{}
	}
	b.got, b.ids[id] = append(b.got, text), b.ids[id]+1
}

func (b *inbox) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.got...)
}

// receiver is a small HTTP server at an address, like those that take webhooks or Slack's format.
func (b *inbox) receiver(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		b.take(r.Header.Get("Devpilot-Notification-Id"), fmt.Sprintf("%s\n%v\n%s", r.URL.Path, r.Header, body))
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }() // ends with Close
	t.Cleanup(func() { _ = server.Close(); <-done })
}

// mailSession is one of a small SMTP server that takes mails of who gave the password only.
type mailSession struct {
	box *inbox
	in  bool
}

func (s *mailSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *mailSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if s.in = user == "devpilot" && password == mailPassword; !s.in {
			return errors.New("who are you?")
		}
		return nil
	}), nil
}

func (s *mailSession) Mail(string, *smtp.MailOptions) error {
	if !s.in {
		return &smtp.SMTPError{Code: 530, Message: "sign in first"}
	}
	return nil
}

func (s *mailSession) Rcpt(string, *smtp.RcptOptions) error { return nil }

func (s *mailSession) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	_, id, _ := strings.Cut(string(raw), "Devpilot-Notification-Id: ")
	id, _, _ = strings.Cut(id, "\r\n")
	s.box.take(id, strings.ReplaceAll(string(raw), "=\r\n", ""))
	return err
}

func (s *mailSession) Reset()        {}
func (s *mailSession) Logout() error { return nil }

// mailServer is a small SMTP server at an address whose every connection is TLS.
func (b *inbox) mailServer(t *testing.T, address string, certificate tls.Certificate) {
	t.Helper()
	l, err := tls.Listen("tcp", address, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &mailSession{box: b}, nil }))
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }() // ends with Close
	t.Cleanup(func() { _ = server.Close(); <-done })
}

// ownCA makes a certificate for 127.0.0.1 and the file of the authority that signed it.
func ownCA(t *testing.T) (certificate tls.Certificate, file string) {
	t.Helper()
	sign := func(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (raw []byte, key *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if parentKey == nil {
			parentKey = key
		}
		if raw, err = x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey); err != nil {
			t.Fatal(err)
		}
		return raw, key
	}
	until := time.Now().Add(24 * time.Hour)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: until, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rawCA, keyCA := sign(ca, ca, nil)
	raw, key := sign(&x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: until, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, ca, keyCA)
	file = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rawCA}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, file
}

// TestNotify_aFailedHookIsToldOnceOverAKill: a hook really fails, and nobody takes what is told of it until the
// product was killed and started again. Then a webhook's receiver, one of Slack's format and a mail server,
// over TLS with a password, each get it once: with the hook's last lines and the link, and nothing secret.
func TestNotify_aFailedHookIsToldOnceOverAKill(t *testing.T) {
	t.Parallel()
	bucket := openSite(t)
	bucket.inProcess(t)
	certificate, ca := ownCA(t)
	mailAddress, hookAddress, slackAddress := loopback(t), loopback(t), loopback(t)
	_, mailPort, _ := net.SplitHostPort(mailAddress)
	password := filepath.Join(t.TempDir(), "mail.password")
	if err := os.WriteFile(password, []byte(mailPassword), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "data") // no hook runs below /dev
	d, address := startDaemon(t, dir,
		"DEVPILOT_BITBUCKET_CLIENT_ID="+consumer.Key, "DEVPILOT_BITBUCKET_CLIENT_SECRET_FILE="+secretFile(t),
		"DEVPILOT_BITBUCKET_SITE_URL="+bucket.address, "DEVPILOT_BITBUCKET_API_URL="+bucket.address+"/2.0",
		"DEVPILOT_NOTIFY_ALLOW=127.0.0.1", "DEVPILOT_SMTP_HOST=127.0.0.1", "DEVPILOT_SMTP_PORT="+mailPort, "DEVPILOT_SMTP_TLS=tls",
		"DEVPILOT_SMTP_USER=devpilot", "DEVPILOT_SMTP_PASSWORD_FILE="+password, "DEVPILOT_SMTP_FROM=Devpilot <devpilot@example.com>",
		"SSL_CERT_FILE="+ca)
	if err := bucket.SetCallbackURL(t.Context(), address+"/oauth/bitbucket/callback"); err != nil {
		t.Fatal(err)
	}
	token, err := allinone.ReadAdminToken(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := &shared{stack: &outside{daemon: d, bucket: bucket, address: address, token: token.Reveal()}, planted: map[string]string{}}
	s.owner = newBrowser(t, address).signIn(token.Reveal())
	repo := bucket.repository(t, "notify", "site")
	n := s.tenant(t, "notify")
	targets := map[string]string{}
	for kind, target := range map[string]object{
		"WEBHOOK": {"url": "http://" + hookAddress + "/hook"},
		"SLACK":   {"url": "http://" + slackAddress + "/services/slack"},
		"EMAIL":   {"recipients": []string{"team@example.com"}},
	} {
		target["kind"], target["label"], target["events"] = kind, "the team", []string{"DEPLOYMENT_FAILED"}
		made := n.api.must("POST", n.path("/notificationTargets"), object{"target": target})
		targets[kind] = fmt.Sprint(dig(made, "target", "id"))
	}
	n.app("web", repo, "main")
	n.api.must("PATCH", n.path("/apps/web"), object{
		"variables": []any{object{"name": "API_TOKEN", "value": hookVariable, "secret": true}},
		"hooks": []any{object{
			"name": "build", "stage": "POST_SOURCE_CONTROL", "command": "echo compiling; echo the token is $API_TOKEN; echo 'main.c:7: it is broken'; exit 3",
		}},
	})
	bucket.commit(t, repo, "main", "breaks the build")
	// Nobody takes it yet.
	for kind, id := range targets {
		n.await(n.path("/notificationTargets/%s/attempts", id), func(got object) error {
			if list := objects(got["attempts"]); len(list) == 0 || list[0]["delivered"] == true {
				return fmt.Errorf("%s: %v", kind, got)
			}
			return nil
		})
	}
	d.kill()
	boxes := map[string]*inbox{"WEBHOOK": {}, "SLACK": {}, "EMAIL": {}}
	boxes["WEBHOOK"].receiver(t, hookAddress)
	boxes["SLACK"].receiver(t, slackAddress)
	boxes["EMAIL"].mailServer(t, mailAddress, certificate)
	d.start()
	for kind, id := range targets {
		n.await(n.path("/notificationTargets/%s/attempts", id), func(got object) error {
			if list := objects(got["attempts"]); len(list) == 0 || list[0]["delivered"] != true || got["waiting"] != float64(0) {
				return fmt.Errorf("%s: %v", kind, got)
			}
			return nil
		})
		got := boxes[kind].all()
		if len(got) != 1 {
			t.Fatalf("%s got %d messages: %q", kind, len(got), got)
		}
		for _, want := range []string{"web: deployment #1 failed: hook build, exit 3", "main.c:7: it is broken", "/w/" + n.workspace + "/apps/web/deployments/1"} {
			if !strings.Contains(got[0], want) {
				t.Errorf("%s got no %q:\n%s", kind, want, got[0])
			}
		}
		for _, secret := range []string{hookVariable, mailPassword, token.Reveal(), consumer.Secret} {
			if strings.Contains(got[0], secret) {
				t.Errorf("%s got a secret", kind)
			}
		}
	}
	n.told(d, map[string]string{"WEBHOOK": "1", "SLACK": "1", "EMAIL": "1"})
	if strings.Contains(d.log.String(), mailPassword) || strings.Contains(d.log.String(), hookVariable) {
		t.Error("a secret is in the log")
	}
	d.terminate()
}

// told holds how many notifications the product says to have sent since its start, by the targets' kinds.
func (n *tenant) told(d *daemon, want map[string]string) {
	n.t.Helper()
	resp, err := http.Get(d.ops + "/metrics")
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	for kind, number := range want {
		if line := fmt.Sprintf("devpilot_notifications_total{kind=%q,result=\"sent\"", kind); !strings.Contains(string(raw), line) || !strings.Contains(between(string(raw), line, "\n"), "} "+number) {
			n.t.Errorf("the metrics do not say that %s %s was sent", number, kind)
		}
	}
}

// between is what stands after a text up to another.
func between(s, after, upTo string) string {
	_, s, _ = strings.Cut(s, after)
	s, _, _ = strings.Cut(s, upTo)
	return s
}
