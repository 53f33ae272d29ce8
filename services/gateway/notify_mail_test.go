package gateway_test

import (
	"crypto/tls"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/gateway"
	"devpilot.io/bitbucket/services/gateway/internal/notify"
)

// mailbox is a small SMTP server.
type mailbox struct {
	mu       sync.Mutex
	password string // wanted of "devpilot" when not empty
	refuse   bool
	got      []string // whole mails
	to       []string // of the last one
	host     string
	port     int
}

type mailSession struct {
	box *mailbox
	in  bool
	to  []string
}

func (b *mailbox) NewSession(*smtp.Conn) (smtp.Session, error) { return &mailSession{box: b}, nil }

func (s *mailSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *mailSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if s.in = user == "devpilot" && password == s.box.password; !s.in {
			return errors.New("who are you?")
		}
		return nil
	}), nil
}

func (s *mailSession) Mail(string, *smtp.MailOptions) error {
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	if s.box.refuse || s.box.password != "" && !s.in {
		return &smtp.SMTPError{Code: 451, Message: "not now, planted-smtp-words"}
	}
	return nil
}

func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

func (s *mailSession) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	s.box.got, s.box.to = append(s.box.got, string(raw)), s.to
	return err
}

func (s *mailSession) Reset()        { s.to = nil }
func (s *mailSession) Logout() error { return nil }

func (b *mailbox) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.got...)
}

func newMailbox(t *testing.T, certificate *tls.Certificate) *mailbox {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &mailbox{}
	s := smtp.NewServer(b)
	s.AllowInsecureAuth = true
	if certificate != nil {
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*certificate}}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l) // ends with Close
	}()
	t.Cleanup(func() { _ = s.Close(); <-done })
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b.host = host
	if b.port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	return b
}

// partsOf reads a mail: its headers and its parts by type.
func partsOf(t *testing.T, raw string) (mail.Header, map[string]string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]string{}
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return m.Header, parts
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(quotedprintable.NewReader(p))
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := strings.Cut(p.Header.Get("Content-Type"), ";")
		parts[kind] = strings.ReplaceAll(string(text), "\r\n", "\n")
	}
}

// TestNotify_mail: a failed deployment as a mail server gets it, after it had refused it once.
func TestNotify_mail(t *testing.T) {
	box := newMailbox(t, nil)
	box.refuse = true
	g := start(t, func(c *gateway.Config) {
		c.Mail = notify.SMTP{Host: box.host, Port: box.port, From: "Devpilot <devpilot@example.com>", TLS: notify.TLSNone}
	})
	g.workspace("acme")
	made := g.addTarget("EMAIL", "", map[string]any{"recipients": []string{"jane@example.com", "ops@example.com"}}, "DEPLOYMENT_FAILED")
	h := g.history()
	h.logs = lines("build", "src/index.ts(4,1): error <b>TS2304</b>: Cannot find name 'wep'.")
	h.ended("web", 7, failed, "a")
	testkit.Eventually(t, 20*time.Second, func() error {
		if a := g.attempts(made.Target.ID).Attempts; len(a) == 0 || a[0].Delivered || a[0].Message != "The mail server refused the mail with code 451." {
			return errors.New("not refused yet")
		}
		return nil
	})
	box.mu.Lock()
	box.refuse = false
	box.mu.Unlock()
	g.clock.forward(time.Minute)
	testkit.Eventually(t, 20*time.Second, func() error {
		if len(box.all()) == 0 {
			return errors.New("no mail yet")
		}
		return nil
	})
	header, parts := partsOf(t, box.all()[0])
	subject, err := new(mime.WordDecoder).DecodeHeader(header.Get("Subject"))
	if err != nil || subject != "✗ web: deployment #7 failed: hook build, exit 3" {
		t.Errorf("subject %q %v", subject, err)
	}
	if header.Get("From") != `"Devpilot" <devpilot@example.com>` || !strings.Contains(header.Get("Message-Id"), header.Get("Devpilot-Notification-Id")) || header.Get("Devpilot-Notification-Id") == "" || header.Get("Auto-Submitted") != "auto-generated" {
		t.Errorf("%v", header)
	}
	link := g.cfg.PublicURL + "/w/acme/apps/web/deployments/7"
	if p := parts["text/plain"]; !strings.Contains(p, "    src/index.ts(4,1): error <b>TS2304</b>") || !strings.Contains(p, link) || !strings.Contains(p, "Hook build ended with exit code 3. It is branch main at aaaaaaa") {
		t.Error(p)
	}
	if p := parts["text/html"]; !strings.Contains(p, "&lt;b&gt;TS2304&lt;/b&gt;") || !strings.Contains(p, `href="`+link+`"`) {
		t.Error(p)
	}
	if len(box.to) != 2 {
		t.Errorf("to %v", box.to)
	}
}

// TestNotify_mailIsNotSentInClear: a server without STARTTLS, or with a certificate that nobody vouches
// for, gets neither the password nor the mail.
func TestNotify_mailIsNotSentInClear(t *testing.T) {
	certificate := testCertificate(t)
	for name, c := range map[string]*tls.Certificate{"without STARTTLS": nil, "with a certificate of its own": &certificate} {
		t.Run(name, func(t *testing.T) {
			box := newMailbox(t, c)
			box.password = "planted-smtp-password"
			g := start(t, func(cfg *gateway.Config) {
				cfg.Mail = notify.SMTP{Host: box.host, Port: box.port, From: "devpilot@example.com", User: "devpilot", Password: secret(box.password)}
			})
			g.workspace("acme")
			made := g.addTarget("EMAIL", "", map[string]any{"recipients": []string{"jane@example.com"}}, "DEPLOYMENT_FAILED")
			var a struct {
				Delivered bool
				Message   string
			}
			g.withToken(adminToken).post(targetsPath+"/"+made.Target.ID+":test", map[string]any{}).want(200).into(&a)
			if a.Delivered || a.Message == "" || len(box.all()) != 0 {
				t.Errorf("%+v", a)
			}
			g.logs.MustNotContain(t, box.password)
		})
	}
}
