package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/when"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
)

const (
	// certificateWithin is how long before its end the certificate of the public URL is told of: what
	// renews certificates by itself does so a month before.
	certificateWithin = 14 * 24 * time.Hour
	// certificateEvery is how often the certificate is read.
	certificateEvery = time.Hour
	// certificateTimeout bounds one reading.
	certificateTimeout = 10 * time.Second
)

// certificate reads when the certificate at the public URL ends: the one that Bitbucket's deliveries and
// people's browsers meet, whoever serves it. It is safe for concurrent use.
type certificate struct {
	address string // host:port; empty where the public URL has no certificate
	name    string // of the host
	now     func() time.Time

	mu   sync.Mutex
	read time.Time // when it was last tried
	end  time.Time // zero while it could not be read
}

func newCertificate(publicURL string, now func() time.Time) *certificate {
	c := &certificate{now: now}
	if u, err := url.Parse(publicURL); err == nil && u.Scheme == "https" {
		port := u.Port()
		if port == "" {
			port = "443"
		}
		c.name, c.address = u.Hostname(), net.JoinHostPort(u.Hostname(), port)
	}
	return c
}

// ends returns when the certificate ends, as read within the last certificateEvery; zero is not known. The
// error says why, once for each reading.
func (c *certificate) ends(ctx context.Context) (end time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); c.read.IsZero() || now.Sub(c.read) >= certificateEvery {
		c.end, err = c.ask(ctx)
		c.read = now
	}
	return c.end, err
}

func (c *certificate) ask(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, certificateTimeout)
	defer cancel()
	var leaf *x509.Certificate
	dialer := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: c.name,
		// Only its dates are read and nothing is sent: one that ended, or whose issuer is not known here,
		// is read all the same.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("no certificate was shown")
			}
			leaf = s.PeerCertificates[0]
			return nil
		},
	}}
	conn, err := dialer.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return time.Time{}, fmt.Errorf("the certificate of %s was not read: %w", c.address, err)
	}
	_ = conn.Close()
	return leaf.NotAfter, nil
}

// certificate tells that the certificate of the public URL ends soon, ended, or was renewed. One that
// could not be read is as it was.
func (w *Watcher) certificate(ctx context.Context, workspace string) error {
	c := w.cert
	if c.address == "" {
		return nil
	}
	end, err := c.ends(ctx)
	if err != nil || end.IsZero() {
		return err
	}
	return w.trouble(ctx, workspace, streakKey(workspace, "certificate"), func() (look, error) {
		now := w.cfg.Now()
		notification := func(title, text string) *gatewaystorev1.Notification {
			return &gatewaystorev1.Notification{
				Event: gatewayv1.NotificationTarget_CERTIFICATE_EXPIRING, Title: title, Text: text,
				Path: pathOf(workspace, "settings", "integrations"), Time: timestamppb.New(now),
			}
		}
		until := when.UTC(end)
		l := look{ends: notification("The certificate of "+c.name+" was renewed", "It is valid until "+until+".")}
		switch left := end.Sub(now); {
		case left <= 0:
			l.trouble = "ended " + until
			l.begins = notification("The certificate of "+c.name+" has expired",
				"It ended "+until+". Bitbucket does not deliver pushes to it and browsers warn of it: have it renewed by whoever serves that address.")
		case left <= certificateWithin:
			l.trouble = "ends " + until
			l.begins = notification("The certificate of "+c.name+" expires soon",
				"It ends "+until+". After that Bitbucket delivers no pushes: have it renewed by whoever serves that address.")
		}
		return l, nil
	})
}
