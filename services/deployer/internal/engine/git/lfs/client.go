package lfs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/address"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
)

// Bounds of how LFS is spoken.
const (
	media     = "application/vnd.git-lfs+json"
	BatchSize = 100      // objects of one question
	parallel  = 4        // downloads at a time
	maxAnswer = 4 << 20  // bytes of one answer
	DiskCheck = 16 << 20 // bytes between two checks of the disk
	slowest   = 1000     // bytes per second; slower for Config.Stall is a stall, as for git itself
)

// Config is what a Client needs.
type Config struct {
	Site   *url.URL // scheme, host and port of Bitbucket
	Tokens remote.Tokens
	// Stall is for how long nothing may move.
	Stall time.Duration
	// Temporary is a directory for what is not whole yet, on the disk of the objects.
	Temporary string
	// MostBytes is what a fetch may bring at most, for the words that say so.
	MostBytes int64
}

// Client speaks the part of LFS that fetching needs: the batch API of the configured site, with
// our credential, and plain downloads from wherever that sends us, without it.
type Client struct {
	cfg  Config
	http *http.Client
}

// New makes a client.
func New(cfg Config) *Client {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 30 * time.Second}).DialContext, TLSHandshakeTimeout: 30 * time.Second,
		ResponseHeaderTimeout: cfg.Stall, MaxIdleConnsPerHost: parallel, IdleConnTimeout: 90 * time.Second, DisableCompression: true, ForceAttemptHTTP2: true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	// A redirect would carry headers to where they were not meant for.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{cfg: cfg, http: &http.Client{Transport: transport, CheckRedirect: stay}}
}

// object is an object to be downloaded, and a path that needs it.
type object struct {
	pointer
	path string
}

// action is where an object is to be had, as the batch API says it.
type action struct {
	Href   string            `json:"href"`
	Header map[string]string `json:"header"`
}

type answered struct {
	OID     string `json:"oid"`
	Size    int64  `json:"size"`
	Actions struct {
		Download *action `json:"download"`
	} `json:"actions"`
	Error *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// download brings objects into the directory, verified. What a first answer could not be
// used for any more, because it had expired, is asked for once more.
func (c *Client) download(ctx context.Context, r Repository, disk tree.Disk, missing map[string]*object, all int64, progress func(done, all int64)) error {
	var mu sync.Mutex
	var done int64
	count := func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		if done += n; progress != nil {
			progress(done, all)
		}
	}
	for try := range 2 {
		var late sync.Map
		for batch := range batches(missing) {
			actions, err := c.batch(ctx, r, batch)
			if err != nil {
				return cause(ctx, err)
			}
			g, gctx := errgroup.WithContext(ctx)
			g.SetLimit(parallel)
			for _, w := range batch {
				g.Go(func() error {
					err := c.keep(gctx, w, actions[w.oid], r.Dir, disk, count)
					if errors.Is(err, errExpired) && try == 0 {
						late.Store(w.oid, w)
						return nil
					}
					return err
				})
			}
			if err := g.Wait(); err != nil {
				return cause(ctx, err)
			}
		}
		clear(missing)
		late.Range(func(oid, w any) bool {
			missing[oid.(string)] = w.(*object)
			return true
		})
		if len(missing) == 0 {
			break
		}
	}
	return nil
}

// cause prefers why a context ended over that it ended.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return fmt.Errorf("lfs: %w", c)
	}
	return err
}

func batches(missing map[string]*object) func(yield func([]*object) bool) {
	return func(yield func([]*object) bool) {
		var batch []*object
		for _, w := range missing {
			if batch = append(batch, w); len(batch) == BatchSize {
				if !yield(batch) {
					return
				}
				batch = nil
			}
		}
		if len(batch) > 0 {
			yield(batch)
		}
	}
}

// batch asks where objects are to be had.
func (c *Client) batch(ctx context.Context, r Repository, batch []*object) (map[string]action, error) {
	type item struct {
		OID  string `json:"oid"`
		Size int64  `json:"size"`
	}
	ask := struct {
		Operation string            `json:"operation"`
		Transfers []string          `json:"transfers"`
		Ref       map[string]string `json:"ref,omitempty"`
		Objects   []item            `json:"objects"`
		HashAlgo  string            `json:"hash_algo"`
	}{Operation: "download", Transfers: []string{"basic"}, HashAlgo: "sha256"}
	if r.Ref != "" {
		ask.Ref = map[string]string{"name": r.Ref}
	}
	wants := map[string]*object{}
	for _, w := range batch {
		ask.Objects = append(ask.Objects, item{w.oid, w.size})
		wants[w.oid] = w
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, fmt.Errorf("lfs: %w", err)
	}
	cloneURL, err := address.CloneURL(c.cfg.Site, r.FullName)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Objects []answered `json:"objects"`
	}
	err = remote.WithToken(ctx, c.cfg.Tokens, r.Workspace, r.FullName, func(token seal.Secret) error {
		answer.Objects = nil
		return c.post(ctx, cloneURL+"/info/lfs/objects/batch", body, token, r.FullName, &answer)
	})
	if err != nil {
		return nil, err
	}
	actions := map[string]action{}
	for _, o := range answer.Objects {
		w := wants[o.OID]
		switch {
		case w == nil:
			continue
		case o.Error != nil:
			return nil, failed(w, "Bitbucket does not give its content (%d). %s", o.Error.Code, remote.OneLine(o.Error.Message))
		case o.Actions.Download != nil:
			actions[o.OID] = *o.Actions.Download
		}
	}
	for _, w := range batch {
		if _, ok := actions[w.oid]; !ok {
			return nil, failed(w, "Bitbucket does not say where its content is.")
		}
	}
	return actions, nil
}

func failed(w *object, format string, args ...any) error {
	return &remote.Error{Reason: remote.ReasonLFSFailed, Message: strings.TrimSpace(fmt.Sprintf("%q is kept by LFS, and could not be fetched: %s", w.path, fmt.Sprintf(format, args...)))}
}

// post asks the site, with our credential.
func (c *Client) post(ctx context.Context, address string, body []byte, token seal.Secret, fullName string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Stall+30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("lfs: %w", err)
	}
	req.SetBasicAuth(remote.UserName, token.Reveal())
	req.Header.Set("Accept", media)
	req.Header.Set("Content-Type", media)
	req.Header.Set("User-Agent", remote.UserAgent)
	res, err := c.http.Do(req)
	if err != nil {
		return remote.Unreachable("Bitbucket's LFS", err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return remote.Unreachable("Bitbucket's LFS", err)
	case res.StatusCode != http.StatusOK:
		return batchRefused(res, remote.Mask(string(b), token), fullName)
	case len(b) > maxAnswer:
		return &remote.Error{Reason: remote.ReasonLFSFailed, Message: "Bitbucket's LFS answers with more than was asked for."}
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return remote.Unreachable("Bitbucket's LFS", err)
	}
	return nil
}

// batchRefused says what a status of the batch API means.
func batchRefused(res *http.Response, body, fullName string) error {
	var said struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal([]byte(body), &said) // anything else is no word for people
	e := &remote.Error{Reason: remote.ReasonLFSFailed, Doubtful: true, Err: fmt.Errorf("status %d", res.StatusCode)}
	switch status := res.StatusCode; {
	case status == http.StatusUnauthorized:
		e.Reason, e.Temporary, e.Message = string(apierr.ReasonTokenExpired), true, "Bitbucket's LFS did not accept the connection's token."
		e.Err, e.About = errors.Join(remote.ErrRejected, e.Err), "the LFS of "+fullName
	case status == http.StatusTooManyRequests:
		e.Reason, e.Temporary, e.Message = string(apierr.ReasonBitbucketRateLimited), true, remote.RateLimited
		e.RetryAfter = bitbucket.RetryAfter(res.Header, time.Now())
	case status >= 500:
		e.Reason, e.Temporary, e.Message = string(apierr.ReasonBitbucketUnavailable), true, "Bitbucket's LFS does not answer as it should; Devpilot tries again."
	case status == http.StatusForbidden || status == http.StatusNotFound:
		e.Message = strings.TrimSpace(fmt.Sprintf("The connected account cannot reach the LFS of %s. %s", fullName, remote.OneLine(said.Message)))
	default:
		e.Message = strings.TrimSpace(fmt.Sprintf("Bitbucket's LFS refuses the question (%d). %s", status, remote.OneLine(said.Message)))
	}
	return e
}
