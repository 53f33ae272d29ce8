package bitbucket

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"devpilot.io/bitbucket/pkg/seal"
)

// UserAgent is sent with every request, so that Bitbucket's people can tell whose calls they see.
const UserAgent = "Devpilot-Bitbucket/1.0"

// DefaultTimeout bounds one request, from dialling to the last byte of the answer.
const DefaultTimeout = 30 * time.Second

// TokenSource hands out the access token of one account.
//
// Token is called before every request with the zero Secret, and must be cheap then. rejected is
// non-zero when Bitbucket has just answered 401 for that very token. The source then finds out
// whether Bitbucket accepts it elsewhere: it returns the same token if so, for the 401 was about what
// was asked for. Else it renews it, once for all who ask, and hands out another one, or returns an
// error that says why it cannot (an *apierr.Error, which is passed on as it is). It must be safe for
// concurrent use.
type TokenSource interface {
	Token(ctx context.Context, rejected seal.Secret) (seal.Secret, error)
}

// TokenSourceFunc makes a function a TokenSource.
type TokenSourceFunc func(ctx context.Context, rejected seal.Secret) (seal.Secret, error)

// Token calls f.
func (f TokenSourceFunc) Token(ctx context.Context, rejected seal.Secret) (seal.Secret, error) {
	return f(ctx, rejected)
}

// StaticToken is a TokenSource of a token that cannot be renewed, as right after a connect. A 401 is
// the call's error then.
func StaticToken(token seal.Secret) TokenSource {
	return TokenSourceFunc(func(_ context.Context, rejected seal.Secret) (seal.Secret, error) {
		if !rejected.IsZero() {
			return seal.Secret{}, errStatic
		}
		return token, nil
	})
}

var errStatic = errors.New("bitbucket: the token cannot be renewed")

// ClientOptions are what the parts around a Client may hand it. The zero value works.
type ClientOptions struct {
	HTTPClient     *http.Client          // its Transport is used; redirects and time limits are ours. nil: NewTransport
	Budget         Budget                // nil: no limit of our own
	Logger         *slog.Logger          // one debug line per request; nil: none
	Registerer     prometheus.Registerer // nil: no metrics. Several clients may share one
	TracerProvider trace.TracerProvider  // nil: no spans
	Timeout        time.Duration         // per request; 0: DefaultTimeout
	Now            func() time.Time      // nil: time.Now
}

// Client is what all accounts of one Bitbucket site share. It is safe for concurrent use.
type Client struct {
	site    Site
	api     *url.URL
	broken  error // why the site cannot be used; every call returns it
	http    *http.Client
	budget  Budget
	log     *slog.Logger
	metrics *metrics
	tracer  trace.Tracer
	timeout time.Duration
	now     func() time.Time
}

// NewClient makes a client for a site made by [NewSite]. It does no I/O. With a Site that NewSite
// would refuse every call returns an error.
func NewClient(site Site, o ClientOptions) *Client {
	c := &Client{
		budget:  o.Budget,
		log:     o.Logger,
		metrics: newMetrics(o.Registerer),
		timeout: o.Timeout,
		now:     o.Now,
	}
	if c.budget == nil {
		c.budget = noBudget{}
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.timeout <= 0 {
		c.timeout = DefaultTimeout
	}
	if c.now == nil {
		c.now = time.Now
	}
	tp := o.TracerProvider
	if tp == nil {
		tp = noop.NewTracerProvider()
	}
	c.tracer = tp.Tracer("devpilot.io/bitbucket/pkg/bitbucket")
	c.http = plainClient(o.HTTPClient)
	c.site, c.broken = NewSite(site.SiteURL, site.APIURL)
	if c.broken == nil {
		c.api, c.broken = url.Parse(c.site.APIURL)
	}
	return c
}

// Site is the site the client talks to.
func (c *Client) Site() Site { return c.site }

// As returns the calls of one account.
func (c *Client) As(ts TokenSource) *Account { return &Account{client: c, tokens: ts} }

// Account makes calls with one account's tokens. It is safe for concurrent use and cheap to make.
// All calls return an *Error for whatever Bitbucket answered, and the TokenSource's own error as it
// is.
type Account struct {
	client   *Client
	tokens   TokenSource
	priority Priority
	owner    string // the workspace whose connection it is, for the count of calls
	slots    chan struct{}
}

// Of returns the account with calls that are counted as those of a workspace's connection.
func (a *Account) Of(workspace string) *Account {
	b := *a
	b.owner = workspace
	return &b
}

// Background returns the account with calls that leave budget to people: for sweeps and
// reconcilers.
func (a *Account) Background() *Account {
	b := *a
	b.priority = Background
	return &b
}

// Parallel returns the account with at most n of its requests in flight at once, counted over all
// goroutines that use the returned Account. Listings fetch later pages in parallel only on such an
// account (see [Account.Repositories]).
func (a *Account) Parallel(n int) *Account {
	b := *a
	b.slots = make(chan struct{}, max(n, 1))
	return &b
}

// parallelism is how many requests may be in flight at once; 1 where Parallel was not called.
func (a *Account) parallelism() int { return max(cap(a.slots), 1) }

// acquire waits for a slot of Parallel.
func (a *Account) acquire(ctx context.Context) (release func(), err error) {
	if a.slots == nil {
		return func() {}, nil
	}
	select {
	case a.slots <- struct{}{}:
		return func() { <-a.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// NewTransport makes the transport of Bitbucket's REST and OAuth calls: many idle connections, as a
// listing makes many requests to one host, a time limit per step and room for long headers (tokens
// of 2,600 characters and more are normal, BITBUCKET.md#token-endpoint).
func NewTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns = 64
	t.MaxIdleConnsPerHost = 32
	t.IdleConnTimeout = 90 * time.Second
	t.TLSHandshakeTimeout = 10 * time.Second
	t.ResponseHeaderTimeout = 25 * time.Second
	t.MaxResponseHeaderBytes = 256 << 10
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	return t
}

// plainClient is an HTTP client that never follows a redirect by itself (it would carry the token
// along) and keeps no cookies.
func plainClient(base *http.Client) *http.Client {
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if base != nil && base.Transport != nil {
		c.Transport = base.Transport
	} else {
		c.Transport = NewTransport()
	}
	return c
}

// metrics are labelled by route class, never by path: cardinality stays small and no name leaks.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	refused  *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_bitbucket_requests_total",
			Help: "Requests to Bitbucket by route class and outcome (ok or the kind of error).",
		}, []string{"route", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "devpilot_bitbucket_request_duration_seconds",
			Help:    "Time from sending a request to Bitbucket to the last byte of its answer.",
			Buckets: []float64{.025, .05, .1, .2, .4, .8, 1.5, 3, 6, 15, 30},
		}, []string{"route"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_bitbucket_budget_refused_total",
			Help: "Calls to Bitbucket that our own budget held back.",
		}, []string{"route", "priority"}),
	}
	m.requests = register(reg, m.requests)
	m.duration = register(reg, m.duration)
	m.refused = register(reg, m.refused)
	return m
}

// register adds a collector, or returns the one that another client added to the same registry:
// all-in-one runs four services with one registry.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	var dup prometheus.AlreadyRegisteredError
	if err := reg.Register(c); errors.As(err, &dup) {
		if there, ok := dup.ExistingCollector.(C); ok {
			return there
		}
	}
	return c
}
