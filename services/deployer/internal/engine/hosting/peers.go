package hosting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"devpilot.io/bitbucket/pkg/logs"
)

const (
	// dialTimeout is for two machines of one network, and for the handshake of an encrypted connection.
	dialTimeout = 2 * time.Second
	// answerTimeout is until an answer begins: a large file is read for its ETag first.
	answerTimeout = 10 * time.Second
	// maxPeerConns bounds the connections to one worker, and maxIdlePeerConns those that wait for a request.
	maxPeerConns, maxIdlePeerConns = 512, 64
	// idlePeerTimeout is shorter than the IdleTimeout of HTTPServer: who may close a connection must not
	// be the one who sends.
	idlePeerTimeout = 30 * time.Second
	// maxTries is how many workers of a server are tried for one request.
	maxTries = 3
	// silence is how long a worker that did not answer is asked after all others.
	silence = 5 * time.Second
)

// Between workers. A visitor may send forwardedTo as well: it makes the worker answer for itself alone.
const (
	// forwardedTo names, in a request, the server that is expected to answer. It is never forwarded again.
	forwardedTo = "X-Devpilot-Forwarded-To"
	// answeredBy repeats that name in the answer, which proves that a worker of that server gave it: an
	// address may be another program's by now.
	answeredBy = "X-Devpilot-Answered-By"
)

// Why a request could not be forwarded; see forward for what visitors are told.
var (
	errNoAddress = errors.New("live: no worker of the server has told an address")
	errSilent    = errors.New("live: no worker of the server answers")
	errStranger  = errors.New("live: the address is not that of a worker of the server")
)

// peers sends requests to workers of other servers: an http.RoundTripper that takes the server from the
// header forwardedTo, and the addresses from what workers announced, never from the request.
type peers struct {
	addresses func(server string) []string // as Config has it
	transport http.RoundTripper
	encrypts  bool // there is a certificate to show
	logger    *slog.Logger
	now       func() time.Time

	mu     sync.Mutex
	silent map[string]time.Time // addresses that did not answer, until when they are asked last
	turn   int
}

func newPeers(cfg Config, encrypted dial) *peers {
	return &peers{addresses: cfg.Addresses, transport: newTransport(encrypted), encrypts: cfg.Certificate != nil, logger: cfg.Logger, now: cfg.Now, silent: map[string]time.Time{}}
}

type dial func(ctx context.Context, network, address string) (net.Conn, error)

var peerDialer = &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}

// newTransport makes the connections to other workers. No proxy of the environment's, no compression of
// its own: what a worker answers reaches the visitor as it is.
func newTransport(encrypted dial) *http.Transport {
	return &http.Transport{
		DialContext:            peerDialer.DialContext,
		DialTLSContext:         encrypted,
		DisableCompression:     true,
		MaxConnsPerHost:        maxPeerConns,
		MaxIdleConnsPerHost:    maxIdlePeerConns,
		IdleConnTimeout:        idlePeerTimeout,
		ResponseHeaderTimeout:  answerTimeout,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// RoundTrip implements http.RoundTripper for requests without a body, which may be sent again: it tries
// the server's workers until one answers.
func (p *peers) RoundTrip(req *http.Request) (*http.Response, error) {
	server := req.Header.Get(forwardedTo)
	err := errNoAddress
	for _, address := range p.order(server) {
		attempt := req.Clone(req.Context())
		if attempt.URL.Scheme, attempt.URL.Host, _ = strings.Cut(address, "://"); !p.encrypts {
			attempt.URL.Scheme = "http" // who has a certificate answers those without one as well
		}
		var resp *http.Response
		if resp, err = p.ask(attempt, server); err == nil {
			return resp, nil
		}
		if ctxErr := context.Cause(req.Context()); ctxErr != nil {
			return nil, ctxErr // the visitor left: nobody is to blame
		}
		p.failed(req.Context(), server, address, err)
	}
	return nil, err
}

func (p *peers) ask(req *http.Request, server string) (*http.Response, error) {
	resp, err := p.transport.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSilent, err)
	}
	if resp.Header.Get(answeredBy) != server {
		_ = resp.Body.Close() // somebody else's answer
		return nil, errStranger
	}
	return resp, nil
}

// order is in which order to ask the workers of a server: each is the first in turn, and who was silent
// lately is asked last.
func (p *peers) order(server string) []string {
	all := p.addresses(server)
	if len(all) == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn = (p.turn + 1) % (1 << 16)
	first := p.turn % len(all)
	order := slices.Concat(all[first:], all[:first])
	now := p.now()
	slices.SortStableFunc(order, func(a, b string) int {
		return boolCompare(p.silent[a].After(now), p.silent[b].After(now))
	})
	return order[:min(len(order), maxTries)]
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// failed has others asked first for a while. Of each silence one line is logged.
func (p *peers) failed(ctx context.Context, server, address string, err error) {
	p.mu.Lock()
	now := p.now()
	for a, until := range p.silent {
		if !until.After(now) {
			delete(p.silent, a)
		}
	}
	_, known := p.silent[address]
	p.silent[address] = now.Add(silence)
	p.mu.Unlock()
	if !known {
		p.logger.WarnContext(ctx, "a worker of another server cannot be asked for its releases: what it announces is its --live-advertise",
			slog.String(logs.KeyServer, server), slog.String(logs.KeyAddr, address), logs.Err(err))
	}
}
