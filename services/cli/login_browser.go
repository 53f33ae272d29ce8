package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"devpilot.io/bitbucket/services/gateway/client/devpilot"
)

const (
	// maxHost is the longest name of a machine that the API takes, in characters.
	maxHost = 64
	// mostWait is how long a login is waited for: a little longer than any Devpilot keeps one.
	mostWait = 15 * time.Minute
	// The pauses between two questions of whether somebody approved; Devpilot names one between them.
	leastPause, mostPause = time.Second, time.Minute
)

// unfinished is a login in a browser that came to nothing.
type unfinished struct {
	code int
	text string
}

func (u unfinished) Error() string { return u.text }

// browserLogin has a person approve this login in a browser, and keeps the key that comes of it.
func (a *app) browserLogin(ctx context.Context, address string) error {
	api, err := a.client(address, "")
	if err != nil {
		return err
	}
	asked, err := api.CreateLoginRequest(ctx, devpilot.CreateLoginRequestJSONRequestBody{ClientName: some(a.host())})
	if devpilot.Is(err, devpilot.ReasonNotFound) {
		return usage{errors.New("this Devpilot is older than this command and has no login in a browser: run devpilot login --with-key")}
	}
	if err != nil {
		return err
	}
	if u, err := url.Parse(asked.VerificationURL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("%s did not name a page to approve the login on: run devpilot login --with-key", address)
	}
	a.note("Compare this code with the one on the page, and approve it there:\n\n  %s\n\n  %s\n", clean(asked.UserCode), clean(asked.VerificationURL))
	if err := a.p.Browser(ctx, asked.VerificationURL); err != nil {
		a.note("Open the page in any browser. Waiting; Ctrl-C ends it.")
	} else {
		a.note("The page is being opened in a browser. If nothing opens, open it yourself. Waiting; Ctrl-C ends it.")
	}
	got, err := a.redeem(ctx, api, asked)
	if err != nil {
		return err
	}
	kept, err := a.readCredentials() // it may be long since they were read
	if err != nil {
		return err
	}
	kept.Current, kept.Servers[address] = address, account{Key: *got.Secret, Workspace: *got.Workspace, KeyID: got.APIKey.ID}
	if err := a.writeCredentials(kept); err != nil {
		return fmt.Errorf("the login was approved, and its key cannot be kept, so revoke it on the page of API keys: %w", err)
	}
	a.say("Signed in at %s, in workspace %s, with the scope %s.", address, clean(*got.Workspace), got.APIKey.Scope)
	return nil
}

// host is what this machine calls itself.
func (a *app) host() string {
	if a.p.Hostname == nil {
		return ""
	}
	name, err := a.p.Hostname()
	if err != nil {
		return ""
	}
	short := []rune(strings.TrimSpace(clean(name)))
	return string(short[:min(len(short), maxHost)])
}

// redeem asks until somebody decided. While Devpilot is away, as when it is restarted, it goes on.
func (a *app) redeem(ctx context.Context, api *devpilot.Client, asked *devpilot.CreateLoginRequestResult) (*devpilot.RedeemLoginRequestResult, error) {
	end := time.Now().Add(mostWait)
	interval := min(max(time.Duration(asked.IntervalSeconds)*time.Second, leastPause), mostPause)
	pause, away := interval, false
	for {
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
		got, err := api.RedeemLoginRequest(ctx, devpilot.RedeemLoginRequestJSONRequestBody{DeviceCode: asked.DeviceCode})
		var refused *devpilot.Error
		pause = interval
		switch {
		case err == nil && got.State == devpilot.LoginRequestStateDENIED:
			return nil, unfinished{CodeNotAllowed, "the login was denied on the page"}
		case err == nil && got.Secret != nil && got.Workspace != nil && got.APIKey != nil:
			return got, nil
		case err == nil:
			away = false
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case devpilot.Is(err, devpilot.ReasonLoginRequestNotFound):
			return nil, unfinished{CodeNotSignedIn, "nobody approved the login in time, or Devpilot lost it: it has to begin anew"}
		case devpilot.Unanswered(err), errors.As(err, &refused) && comesBack(refused.Problem):
			if refused != nil && refused.Problem.RetryAfterSeconds != nil {
				pause = min(max(time.Duration(*refused.Problem.RetryAfterSeconds)*time.Second, interval), mostPause)
			}
			if !away && devpilot.Unanswered(err) {
				a.note("Devpilot does not answer just now. Still waiting.")
			}
			away = devpilot.Unanswered(err)
		default:
			return nil, err
		}
		if time.Now().After(end) {
			if err != nil {
				return nil, err
			}
			return nil, unfinished{CodeNotSignedIn, "nobody approved the login in time"}
		}
	}
}

// comesBack tells a refusal that may be another one soon.
func comesBack(p devpilot.Problem) bool {
	return p.Status == http.StatusTooManyRequests || p.Status >= http.StatusInternalServerError
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
