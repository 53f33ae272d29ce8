package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/seal"
)

// Headers of what a receiver gets.
const (
	HeaderID        = "Devpilot-Notification-Id"
	HeaderSignature = "Devpilot-Signature"
)

// Limits of one attempt.
const (
	sendTimeout    = 15 * time.Second // all of it
	connectTimeout = 5 * time.Second  // to connect, and again for TLS
	maxHeaders     = 16 << 10         // of an answer; its body is not read
	maxRetryAfter  = time.Hour        // that a receiver may ask for
)

// outcome is what came of an attempt.
type outcome struct {
	status     int
	problem    string // empty when it arrived
	retryAfter time.Duration
}

// poster sends what goes by HTTP. It is safe for concurrent use.
type poster struct{ client *http.Client }

// newPoster makes a poster. A proxy of the environment is not used: it would connect to what we must
// not. Connections are not kept, so that each is checked.
func newPoster(a Addresses) poster {
	dialer := &net.Dialer{Timeout: connectTimeout, Control: a.control}
	return poster{client: &http.Client{
		Timeout: sendTimeout,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSHandshakeTimeout: connectTimeout, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true, MaxResponseHeaderBytes: maxHeaders, DisableCompression: true, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// post sends a body, signed when there are secrets.
func (p poster) post(ctx context.Context, to seal.Secret, id string, body []byte, at time.Time, secrets []seal.Secret) outcome {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.Reveal(), bytes.NewReader(body))
	if err != nil {
		return outcome{problem: "The URL cannot be used."}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Devpilot-Notifications/1")
	req.Header.Set(HeaderID, id)
	if len(secrets) > 0 {
		req.Header.Set(HeaderSignature, sign(at, body, secrets))
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return outcome{problem: inWords(err)}
	}
	_ = resp.Body.Close() // nothing in it is of use, and it may be endless
	o := outcome{status: resp.StatusCode}
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		o.problem = fmt.Sprintf("The receiver answered %d: redirects are not followed. Change the target's URL.", resp.StatusCode)
	default:
		o.problem = fmt.Sprintf("The receiver answered %d.", resp.StatusCode)
		if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
			o.retryAfter = min(time.Duration(min(s, int(maxRetryAfter/time.Second)))*time.Second, maxRetryAfter)
		}
	}
	return o
}

// sign makes the header by which a receiver knows that a body is ours and new: HMAC-SHA256 over the
// time, a dot and the body. While a secret is being rotated there is one v1 for each.
func sign(at time.Time, body []byte, secrets []seal.Secret) string {
	t := strconv.FormatInt(at.Unix(), 10)
	parts := []string{"t=" + t}
	for _, s := range secrets {
		mac := hmac.New(sha256.New, []byte(s.Reveal()))
		_, _ = mac.Write([]byte(t + ".")) // never fails (hash.Hash)
		_, _ = mac.Write(body)
		parts = append(parts, "v1="+hex.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(parts, ",")
}

// inWords says why a request failed, without its URL.
func inWords(err error) string {
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var timeout net.Error
	switch {
	case errors.Is(err, errPrivate):
		return "Not sent: " + errPrivate.Error() + "."
	case errors.As(err, &dns):
		return "The host name could not be looked up."
	case errors.As(err, &cert):
		return "The receiver's certificate is not valid."
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("The receiver did not answer within %d seconds.", int(sendTimeout/time.Second))
	}
	return "The connection to the receiver failed."
}
