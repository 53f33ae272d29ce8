package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/allinone"
)

// concerns tells whether the program has to do with something; c says that it has not.
func (x *exam) concerns(what string, services ...string) (c Check, does bool) {
	if x.flags.Service == whole || slices.Contains(services, x.flags.Service) {
		return Check{}, true
	}
	return skipped("%s has nothing to do with %s.", x.flags.Service, what), false
}

// public is the public URL; where none is set it follows from the address that is listened on.
func (x *exam) public() (string, error) {
	at, err := net.ResolveTCPAddr("tcp", x.flags.Listen)
	if err != nil || x.flags.Listen == "" {
		return x.flags.URL(nil, false)
	}
	return x.flags.URL(at, x.flags.ListenCertFile != "")
}

// unreachable is why Bitbucket cannot reach the public URL; empty where it can.
func (x *exam) unreachable(public string) string {
	u, err := url.Parse(public)
	if err != nil {
		return "is no URL"
	}
	site, err := url.Parse(x.flags.BitbucketSiteURL)
	if err != nil {
		site = nil
	}
	return bitbucket.Unreachable(u, site)
}

// notStarted tells whether the program, which would answer, does not run on this machine.
func (x *exam) notStarted() bool {
	if x.flags.Service != whole {
		return false
	}
	running, _ := x.running()
	return !running
}

// clock holds this machine's clock against Bitbucket's.
func (x *exam) clock(ctx context.Context) Check {
	if x.flags.Emulator && x.notStarted() {
		return skipped("The emulator does not run, so there is no other clock.")
	}
	site := x.flags.BitbucketSiteURL
	at, err := bitbucket.Clock(ctx, x.client, site)
	const remedy = "Check that this machine reaches Bitbucket, and DEVPILOT_BITBUCKET_SITE_URL."
	switch {
	case errors.Is(err, bitbucket.ErrNoTime):
		return failed(site+" answers without a time.", remedy)
	case err != nil:
		return failed(site+" does not answer: "+hook.Cause(err)+".", remedy)
	}
	skew := time.Since(at).Round(time.Second)
	if skew.Abs() > bitbucket.MaxSkew {
		side := "ahead of"
		if skew < 0 {
			side = "behind"
		}
		return failed(fmt.Sprintf("This machine's clock is %s %s Bitbucket's, and no more than %s are allowed.", skew.Abs(), side, bitbucket.MaxSkew), "Set this machine's clock, best by NTP.")
	}
	return ok("This machine's clock and Bitbucket's differ by no more than %s.", max(skew.Abs(), time.Second))
}

// info is what a Devpilot tells anybody about itself.
type info struct {
	Version          string `json:"version"`
	BitbucketSiteURL string `json:"bitbucketSiteUrl"`
	Emulator         bool   `json:"emulator"`
}

// notDevpilot is an answer of something else.
type notDevpilot struct{ status int }

func (e *notDevpilot) Error() string {
	return fmt.Sprintf("what answers is not Devpilot (status %d)", e.status)
}

// askInfo asks the Devpilot at an address about itself.
func (x *exam) askInfo(ctx context.Context, at string) (i info, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at+"/v1/info", http.NoBody)
	if err != nil {
		return i, err
	}
	answer, err := x.client.Do(req)
	if err != nil {
		return i, err
	}
	defer answer.Body.Close()
	if json.NewDecoder(io.LimitReader(answer.Body, 64<<10)).Decode(&i) != nil || answer.StatusCode != http.StatusOK || i.Version == "" || i.BitbucketSiteURL == "" {
		return i, &notDevpilot{answer.StatusCode}
	}
	return i, nil
}

// publicURL asks the public URL as a browser would, and whether it is this product that answers.
func (x *exam) publicURL(ctx context.Context) Check {
	if c, does := x.concerns("the public URL", "auth", "webhook", "gateway"); !does {
		return c
	}
	public, err := x.public()
	if err != nil {
		return failed(err.Error()+".", "Set DEVPILOT_PUBLIC_URL to the address that people and Bitbucket use.")
	}
	if x.notStarted() {
		return skipped("%s was not asked: the program does not run.", public)
	}
	const remedy = "Point the name at Devpilot, or at the proxy before it, and have that pass everything on (deploy/README.md)."
	info, err := x.askInfo(ctx, public)
	var other *notDevpilot
	switch {
	case errors.As(err, &other):
		return failed(fmt.Sprintf("What answers at %s is not Devpilot (status %d).", public, other.status), remedy)
	case err != nil:
		return failed(public+" does not answer: "+hook.Cause(err)+".", remedy)
	}
	if why := x.unreachable(public); why != "" {
		return warning(fmt.Sprintf("Devpilot %s answers at %s, which Bitbucket cannot reach: it %s. No webhook is registered; pushes are found by polling.", info.Version, public, why),
			"For pushes that deploy at once, set DEVPILOT_PUBLIC_URL to an https address that the internet reaches.")
	}
	return ok("Devpilot %s answers at %s.", info.Version, public)
}

// oauth checks the consumer's key and secret. A code that nobody was given is exchanged: Bitbucket looks at
// the consumer first. It is no refresh, which would lock others out when it fails (BITBUCKET.md#lock-out).
func (x *exam) oauth(ctx context.Context) Check {
	if c, does := x.concerns("the OAuth consumer", "auth"); !does {
		return c
	}
	const remedy = "Take key and secret from the OAuth consumer in the workspace's settings at Bitbucket: DEVPILOT_BITBUCKET_CLIENT_ID and DEVPILOT_BITBUCKET_CLIENT_SECRET_FILE."
	if x.flags.BitbucketClientID == "" || x.flags.BitbucketClientSecret.IsZero() {
		return warning("No OAuth consumer is set: nobody can connect Bitbucket.", remedy)
	}
	public, err := x.public()
	if err != nil {
		return skipped("Without a public URL there is no callback URL.")
	}
	if x.flags.Emulator && x.notStarted() {
		return skipped("The emulator does not run; its consumer is set by itself.")
	}
	site, err := bitbucket.NewSite(x.flags.BitbucketSiteURL, x.flags.BitbucketAPIURL)
	if err != nil {
		return failed(err.Error()+".", "Put DEVPILOT_BITBUCKET_SITE_URL and DEVPILOT_BITBUCKET_API_URL right, or leave them out.")
	}
	callback := public + "/oauth/bitbucket/callback"
	consumer := bitbucket.NewOAuth(site, x.flags.BitbucketClientID, x.flags.BitbucketClientSecret, callback, bitbucket.WithHTTPClient(x.client))
	_, err = consumer.Exchange(ctx, "devpilot-doctor", bitbucket.NewVerifier())
	var refused *bitbucket.OAuthError
	switch {
	case errors.As(err, &refused) && refused.Class == bitbucket.OAuthConsumerMisconfigured:
		return failed("Bitbucket does not accept the OAuth consumer: its key, secret or callback URL is wrong.", remedy+" Its callback URL has to be "+callback+".")
	case errors.As(err, &refused) && refused.Class == bitbucket.OAuthCodeRefused:
		return ok("Bitbucket takes the key and the secret. Callback URL and permissions show when somebody connects: they have to be %s, and account, email, repositories (read) and webhooks.", callback)
	case err != nil:
		return warning("Bitbucket does not say whether it takes the OAuth consumer: "+hook.Cause(err)+".", "Check that this machine reaches Bitbucket, and try again in a few minutes.")
	}
	return warning("Bitbucket took a code that nobody was given.", "Check DEVPILOT_BITBUCKET_SITE_URL: what answers there is not Bitbucket.")
}

// delivery sends a signed delivery through the public URL to the installation, as Bitbucket would.
func (x *exam) delivery(ctx context.Context) Check {
	if c, does := x.concerns("webhooks", "webhook", "gateway"); !does {
		return c
	}
	public, err := x.public()
	if err != nil {
		return skipped("There is no public URL to send one to.")
	}
	if why := x.unreachable(public); why != "" {
		return skipped("%s %s, so that Bitbucket sends nothing there.", public, why)
	}
	if x.notStarted() {
		return skipped("Nothing was sent: the program does not run.")
	}
	keyset, c := x.signer(ctx)
	if keyset == nil {
		return c
	}
	secret, err := hook.InstallationSecret(keyset)
	if err != nil {
		return failed(err.Error()+".", "Give this program the installation's keyset.")
	}
	if p := hook.Prove(ctx, x.client, public+allinone.WebhooksPath+hook.InstallationID, secret); !p.Verified {
		return failed(p.Trouble, "Check DEVPILOT_PUBLIC_URL and that the proxy before Devpilot passes POST "+allinone.WebhooksPath+"… on unchanged, to the webhook service of this installation.")
	}
	return ok("A signed delivery to ourselves through %s arrived and was verified; it was not routed.", public)
}

// signer is the keyset that signs for webhook, or what is said where this program has none.
func (x *exam) signer(ctx context.Context) (*seal.Keyset, Check) {
	keysets, err := x.keysets()
	if err != nil {
		return nil, skipped("Without the keyset nothing can be signed; see keyset.")
	}
	if keyset := keysets["webhook"]; keyset != nil {
		return keyset, Check{}
	}
	keyset := keysets[x.flags.Service]
	if c, err := x.nats(); err == nil {
		if _, err := installation.Look(ctx, c.js, seal.Shared(keyset, "webhook")); errors.Is(err, installation.ErrKeyset) {
			return nil, skipped("webhook has a keyset of its own, which signs: ask its own doctor (--service webhook).")
		}
	}
	return keyset, Check{}
}
