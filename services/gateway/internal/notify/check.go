package notify

import (
	"fmt"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"devpilot.io/bitbucket/pkg/apierr"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
)

// Limits of a target.
const (
	maxLabel         = 100     // characters
	maxURL           = 2000    // characters
	maxRecipients    = 20      // of a mail
	maxApps          = 200     // that a target names
	maxAddress       = 254     // characters (RFC 5321)
	defaultBehind    = 30      // minutes before APP_BEHIND
	maxBehind        = 24 * 60 // minutes before APP_BEHIND
	quietLayout      = "15:04"
	fieldURL         = "target.url"
	fieldEvents      = "target.events"
	fieldRecipients  = "target.recipients"
	fieldQuietHours  = "target.quietHours"
	mailUnavailable  = "this installation has no mail server: its operator sets DEVPILOT_SMTP_HOST"
	plainHTTPRefused = "must begin with https://: it is a secret, and so is what is sent there"
)

// Checks are what this installation can do.
type Checks struct {
	Addresses Addresses
	Mail      bool // whether there is a mail server
}

// Check puts the defaults into a new or changed target and says all that is wrong with it. hasURL is
// whether one is stored that a target without a URL keeps.
func (c Checks) Check(t *gatewayv1.NotificationTarget, hasURL bool) error {
	var faults apierr.Faults
	switch n := utf8.RuneCountInString(t.GetLabel()); {
	case strings.TrimSpace(t.GetLabel()) == "":
		faults.Add("target.label", "say who or what gets the notifications")
	case n > maxLabel:
		faults.Add("target.label", fmt.Sprintf("at most %d characters", maxLabel))
	default:
		faults.OneLine("target.label", t.GetLabel())
	}
	if t.Active == nil {
		on := true
		t.Active = &on
	}
	switch t.GetKind() {
	case gatewayv1.NotificationTarget_WEBHOOK, gatewayv1.NotificationTarget_SLACK:
		c.checkURL(t, hasURL, &faults)
		if len(t.GetRecipients()) > 0 {
			faults.Add(fieldRecipients, "only of a target of kind EMAIL")
		}
	case gatewayv1.NotificationTarget_EMAIL:
		c.checkMail(t, &faults)
	case gatewayv1.NotificationTarget_KIND_UNSPECIFIED:
		faults.Add("target.kind", "WEBHOOK, SLACK or EMAIL")
	default:
		faults.Add("target.kind", "WEBHOOK, SLACK or EMAIL")
	}
	checkEvents(t, &faults)
	checkApps(t, &faults)
	checkQuiet(t, &faults)
	switch n := t.GetBehindMinutes(); {
	case n == 0:
		t.BehindMinutes = defaultBehind
	case n < 0 || n > maxBehind:
		faults.Add("target.behindMinutes", fmt.Sprintf("1 to %d", maxBehind))
	}
	return faults.Err()
}

func (c Checks) checkURL(t *gatewayv1.NotificationTarget, hasURL bool, faults *apierr.Faults) {
	if t.GetUrl() == "" {
		if !hasURL {
			faults.Add(fieldURL, "say where to send them: https://…")
		}
		return
	}
	u, err := url.Parse(t.GetUrl())
	switch {
	case len(t.GetUrl()) > maxURL:
		faults.Add(fieldURL, fmt.Sprintf("at most %d characters", maxURL))
		return
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		faults.Add(fieldURL, "must be like https://hooks.example.com/path")
		return
	case u.User != nil:
		faults.Add(fieldURL, "must not hold a user or password: put what is secret into its path or query")
	case !isPort(u.Port()):
		faults.Add(fieldURL, "its port must be from 1 to 65535")
	case u.Fragment != "":
		faults.Add(fieldURL, "must not hold a fragment (#…): it is never sent")
	}
	literal, err := netip.ParseAddr(strings.Trim(u.Hostname(), "[]"))
	isLiteral := err == nil
	if isLiteral {
		if err := c.Addresses.Check(literal); err != nil {
			faults.Add(fieldURL, err.Error())
		}
	}
	if u.Scheme == "http" && (!isLiteral || !c.Addresses.allowed(literal)) {
		faults.Add(fieldURL, plainHTTPRefused)
	}
}

// isPort tells whether a URL's port, empty for the usual one, is one that can be connected to.
func isPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

func (c Checks) checkMail(t *gatewayv1.NotificationTarget, faults *apierr.Faults) {
	if !c.Mail {
		faults.Add("target.kind", mailUnavailable)
	}
	if t.GetUrl() != "" {
		faults.Add(fieldURL, "not of a target of kind EMAIL")
	}
	switch n := len(t.GetRecipients()); {
	case n == 0:
		faults.Add(fieldRecipients, "name at least one address")
	case n > maxRecipients:
		faults.Add(fieldRecipients, fmt.Sprintf("at most %d", maxRecipients))
		return
	}
	seen := map[string]bool{}
	for i, text := range t.GetRecipients() {
		name := fmt.Sprintf("%s[%d]", fieldRecipients, i)
		a, err := mail.ParseAddress(text)
		switch {
		case err != nil || a.Address != text || len(text) > maxAddress || strings.ContainsAny(text, "\r\n\""):
			faults.Add(name, "must be an address like jane@example.com")
		case seen[strings.ToLower(text)]:
			faults.Add(name, "is there twice")
		}
		seen[strings.ToLower(text)] = true
	}
}

func checkEvents(t *gatewayv1.NotificationTarget, faults *apierr.Faults) {
	if len(t.GetEvents()) == 0 {
		faults.Add(fieldEvents, "choose at least one")
	}
	for i, e := range t.GetEvents() {
		name := fmt.Sprintf("%s[%d]", fieldEvents, i)
		switch {
		case e == gatewayv1.NotificationTarget_EVENT_UNSPECIFIED || gatewayv1.NotificationTarget_Event_name[int32(e)] == "":
			faults.Add(name, "not one of those that there are")
		case slices.Index(t.GetEvents(), e) < i:
			faults.Add(name, "is there twice")
		}
	}
}

func checkApps(t *gatewayv1.NotificationTarget, faults *apierr.Faults) {
	if len(t.GetApps()) > maxApps {
		faults.Add("target.apps", fmt.Sprintf("at most %d; leave it empty for all", maxApps))
		return
	}
	for i, a := range t.GetApps() {
		name := fmt.Sprintf("target.apps[%d]", i)
		switch {
		case a == "" || len(a) > maxLabel || strings.ContainsFunc(a, func(r rune) bool { return r <= ' ' || r == '/' }):
			faults.Add(name, "must be an app's id")
		case slices.Index(t.GetApps(), a) < i:
			faults.Add(name, "is there twice")
		}
	}
}

func checkQuiet(t *gatewayv1.NotificationTarget, faults *apierr.Faults) {
	q := t.GetQuietHours()
	if q == nil {
		return
	}
	if q.GetStart() == "" && q.GetEnd() == "" {
		t.QuietHours = nil
		return
	}
	ok := true
	for name, text := range map[string]string{".start": q.GetStart(), ".end": q.GetEnd()} {
		if at, err := time.Parse(quietLayout, text); err != nil || at.Format(quietLayout) != text {
			faults.Add(fieldQuietHours+name, "must be a time of day like 22:00")
			ok = false
		}
	}
	if ok && q.GetStart() == q.GetEnd() {
		faults.Add(fieldQuietHours+".end", "must differ from start: a target that is never to hear anything is switched off with active")
	}
	if q.GetTimeZone() == "" {
		q.TimeZone = time.UTC.String()
	}
	if _, err := time.LoadLocation(q.GetTimeZone()); err != nil || q.GetTimeZone() == "Local" {
		faults.Add(fieldQuietHours+".timeZone", "must be a time zone like Europe/Berlin or UTC")
	}
}
