package notify

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	gomail "github.com/wneessen/go-mail"

	"devpilot.io/bitbucket/pkg/seal"
)

// SMTP is the installation's mail server; without a host there is none.
type SMTP struct {
	Host     string
	Port     int
	User     string
	Password seal.Secret
	From     string // such as Devpilot <devpilot@example.com>
	TLS      string // how the connection is protected: one of the constants below
}

// How a connection to a mail server is protected.
const (
	TLSStart = "starttls" // by STARTTLS, or it is not used
	TLSFirst = "tls"      // from its first byte
	TLSNone  = "none"     // not at all: for a server on the same machine
)

// Check refuses settings that cannot work.
func (s SMTP) Check() error {
	if s.Host == "" {
		return nil
	}
	m := gomail.NewMsg()
	if err := m.From(s.From); err != nil {
		return errors.New("the sender of mails (DEVPILOT_SMTP_FROM) must be like Devpilot <devpilot@example.com>")
	}
	if s.TLS == TLSNone && s.User != "" {
		return errors.New("a password is not sent without TLS: set DEVPILOT_SMTP_TLS to starttls or tls, or no DEVPILOT_SMTP_USER")
	}
	return nil
}

// mailer sends mails. It is safe for concurrent use.
type mailer struct{ cfg SMTP }

// send sends one mail to all recipients. The server takes it for all or for none.
func (m mailer) send(ctx context.Context, r rendering, recipients []string) outcome {
	if m.cfg.Host == "" {
		return outcome{problem: "Not sent: " + mailUnavailable + "."}
	}
	msg, err := m.compose(r, recipients)
	if err != nil {
		return outcome{problem: "The mail could not be written."}
	}
	options := []gomail.Option{gomail.WithPort(m.cfg.Port), gomail.WithTimeout(connectTimeout), gomail.WithHELO(helo(r.publicURL))}
	switch m.cfg.TLS {
	case TLSFirst:
		options = append(options, gomail.WithSSL())
	case TLSNone:
		options = append(options, gomail.WithTLSPolicy(gomail.NoTLS))
	default:
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory))
	}
	if m.cfg.User != "" {
		options = append(options, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover), gomail.WithUsername(m.cfg.User), gomail.WithPassword(m.cfg.Password.Reveal()))
	}
	client, err := gomail.NewClient(m.cfg.Host, options...)
	if err != nil {
		return outcome{problem: "The settings of the mail server cannot be used."}
	}
	if err := client.DialAndSendWithContext(ctx, msg); err != nil {
		return outcome{problem: mailTrouble(err)}
	}
	return outcome{}
}

func (m mailer) compose(r rendering, recipients []string) (*gomail.Msg, error) {
	html, err := r.html()
	if err != nil {
		return nil, err
	}
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	if err := errors.Join(msg.From(m.cfg.From), msg.To(recipients...)); err != nil {
		return nil, err
	}
	msg.Subject(clip(r.title(), 200))
	msg.SetGenHeader(HeaderID, r.msg.GetId())
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no out-of-office answers, please
	msg.SetMessageIDWithValue(r.msg.GetId() + "@" + helo(r.publicURL))
	msg.SetDate()
	msg.SetBodyString(gomail.TypeTextPlain, r.text())
	msg.AddAlternativeString(gomail.TypeTextHTML, html)
	return msg, nil
}

// helo is the name that we greet a mail server with.
func helo(publicURL string) string {
	if u, err := url.Parse(publicURL); err == nil && u.Hostname() != "" {
		return u.Hostname()
	}
	return "localhost"
}

// mailTrouble says what a mail server had against a mail; its own words may hold anything.
func mailTrouble(err error) string {
	var sent *gomail.SendError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("The mail server did not answer within %d seconds.", int(sendTimeout.Seconds()))
	case errors.As(err, &sent) && sent.ErrorCode() > 0:
		return fmt.Sprintf("The mail server refused the mail with code %d.", sent.ErrorCode())
	case errors.As(err, &sent):
		return "The mail server did not take the mail."
	}
	return "The mail server could not be reached, or did not let us in."
}
