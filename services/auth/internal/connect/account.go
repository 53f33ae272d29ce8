package connect

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/seal"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
)

// Accounts reads whose token it is, and the scopes that Bitbucket says it has: nil when it does not
// say. Errors are those of pkg/bitbucket.
type Accounts interface {
	Account(ctx context.Context, token seal.Secret) (bitbucket.User, []string, error)
	// Unreached are those of the repositories that the account cannot read.
	Unreached(ctx context.Context, token seal.Secret, used []*authv1.UsedRepository) ([]*authv1.UsedRepository, error)
}

// RESTAccounts asks Bitbucket's REST API. It is safe for concurrent use.
type RESTAccounts struct {
	site bitbucket.Site
	opts bitbucket.ClientOptions
	base http.RoundTripper
}

// NewRESTAccounts asks the site's API; opts.HTTPClient may be nil.
func NewRESTAccounts(site bitbucket.Site, opts bitbucket.ClientOptions) *RESTAccounts {
	a := &RESTAccounts{site: site, opts: opts, base: bitbucket.NewTransport()}
	if opts.HTTPClient != nil && opts.HTTPClient.Transport != nil {
		a.base = opts.HTTPClient.Transport
	}
	return a
}

// tries and pause bound the repeats: the code is spent, and a person waits.
const (
	accountTries = 3
	accountPause = 300 * time.Millisecond
)

// Account implements Accounts. Temporary trouble is tried again, because the authorization code is
// spent by now.
func (a *RESTAccounts) Account(ctx context.Context, token seal.Secret) (bitbucket.User, []string, error) {
	capture := &scopeCapture{base: a.base}
	opts := a.opts
	opts.HTTPClient = &http.Client{Transport: capture}
	account := bitbucket.NewClient(a.site, opts).As(bitbucket.StaticToken(token))
	for try := 1; ; try++ {
		user, err := account.User(ctx)
		if err == nil {
			return user, capture.scopes(), nil
		}
		var e *bitbucket.Error
		if !errors.As(err, &e) || try == accountTries || e.Kind != bitbucket.KindUnavailable && e.Kind != bitbucket.KindNetwork {
			return bitbucket.User{}, grantedBy(e), err
		}
		timer := time.NewTimer(accountPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return bitbucket.User{}, nil, err
		}
	}
}

// grantedBy is what a refusal for want of a scope says was granted (BITBUCKET.md#presenting-a-token).
func grantedBy(e *bitbucket.Error) []string {
	if e == nil || e.Kind != bitbucket.KindScopeMissing {
		return nil
	}
	return slices.Clone(e.Granted)
}

// scopeCapture keeps the X-OAuth-Scopes header, which is the way to learn a token's scopes when its
// answer did not tell (BITBUCKET.md#presenting-a-token).
type scopeCapture struct {
	base http.RoundTripper

	mu   sync.Mutex
	seen string
}

// RoundTrip implements http.RoundTripper.
func (c *scopeCapture) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := c.base.RoundTrip(req)
	if err == nil {
		c.mu.Lock()
		c.seen = res.Header.Get("X-OAuth-Scopes")
		c.mu.Unlock()
	}
	return res, err
}

func (c *scopeCapture) scopes() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := strings.FieldsFunc(c.seen, func(r rune) bool { return r == ',' || r == ' ' })
	slices.Sort(list)
	return slices.Compact(list)
}
