package bitbucket

import (
	"fmt"
	"regexp"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
)

// invalid words a refusal of the request as such. What Bitbucket has against a webhook has a remedy:
// another address (BITBUCKET.md#webhook-fields), fewer webhooks, or a person who adds it by hand. The rest
// is our own mistake.
func (e *Error) invalid() *apierr.Error {
	switch {
	case e.Route != RouteHooks:
		return e.api(apierr.ReasonInternal, fmt.Sprintf("Bitbucket refused the request (HTTP %d)%s.", e.Status, e.quoted()))
	case e.aboutLimit():
		return e.hookLimit()
	case e.aboutURL():
		return e.api(apierr.ReasonNoPublicURL, fmt.Sprintf(
			"Bitbucket refused the webhook's address%s: it must be a public URL that Bitbucket can reach. Set DEVPILOT_PUBLIC_URL.", e.quotedAll()))
	}
	return e.api(apierr.ReasonWebhookRefused, fmt.Sprintf(
		"Bitbucket refused the webhook on %s (HTTP %d)%s. Add it by hand with the URL and secret shown, or register it again once what Bitbucket complains about is fixed.",
		e.subject("the repository"), e.Status, e.quotedAll()))
}

func (e *Error) hookLimit() *apierr.Error {
	return e.api(apierr.ReasonWebhookLimit, fmt.Sprintf(
		"Bitbucket takes no more webhooks on %s%s. Delete one there that is no longer needed, then register again.", e.subject("the repository"), e.quotedAll()))
}

// The words by which a refusal is told: no sample of the limit's is recorded (BITBUCKET.md#webhook-errors),
// so they are read generously, and only to choose the remedy.
var (
	limitWords = regexp.MustCompile(`(?i)\b(limit|maximum|max|too many|at most|exceed\w*|quota|no more)\b.*\b(web)?hooks?\b|\b(web)?hooks?\b.*\b(limit|maximum|too many|exceed\w*|quota)\b`)
	urlWords   = regexp.MustCompile(`(?i)\b(url|address|host|hostname|domain)\b`)
)

func (e *Error) aboutLimit() bool {
	for _, text := range e.texts() {
		if limitWords.MatchString(text) {
			return true
		}
	}
	return false
}

func (e *Error) aboutURL() bool {
	if _, ok := e.Fields["url"]; ok {
		return true
	}
	for _, text := range e.texts() {
		if urlWords.MatchString(text) {
			return true
		}
	}
	return false
}

// texts are all words of the answer.
func (e *Error) texts() []string {
	texts := []string{e.Message, e.Detail}
	for _, field := range sortedKeys(e.Fields) {
		texts = append(texts, e.Fields[field]...)
	}
	return texts
}

// quotedAll is quoted with what the answer says of its fields, which is often all that it says.
func (e *Error) quotedAll() string {
	var said []string
	for _, text := range append([]string{e.Message}, e.texts()[2:]...) {
		if text = strings.TrimRight(text, "."); text != "" {
			said = append(said, text)
		}
	}
	if len(said) == 0 {
		return ""
	}
	return fmt.Sprintf(" (it said: %q)", oneLine(strings.Join(said, "; ")))
}
