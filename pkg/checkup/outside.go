package checkup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/seal"
)

// NewClient makes a client that follows no redirect, as Bitbucket does not.
func NewClient() *http.Client {
	return &http.Client{Transport: bitbucket.NewTransport(), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Clock holds this machine's clock against Bitbucket's.
func Clock(ctx context.Context, client *http.Client, site string) Check {
	at, err := bitbucket.Clock(ctx, client, site)
	const remedy = "Check that this machine reaches Bitbucket, and DEVPILOT_BITBUCKET_SITE_URL."
	switch {
	case errors.Is(err, bitbucket.ErrNoTime):
		return Fail(site+" answers without a time.", remedy)
	case err != nil:
		return Fail(site+" does not answer: "+hook.Cause(err)+".", remedy)
	}
	skew := time.Since(at).Round(time.Second)
	if skew.Abs() > bitbucket.MaxSkew {
		side := "ahead of"
		if skew < 0 {
			side = "behind"
		}
		return Fail(fmt.Sprintf("This machine's clock is %s %s Bitbucket's, and no more than %s are allowed.", skew.Abs(), side, bitbucket.MaxSkew), "Set this machine's clock, best by NTP.")
	}
	return Well("This machine's clock and Bitbucket's differ by no more than %s.", max(skew.Abs(), time.Second))
}

// Info is what a Devpilot tells anybody about itself.
type Info struct {
	Version          string `json:"version"`
	BitbucketSiteURL string `json:"bitbucketSiteUrl"`
	Emulator         bool   `json:"emulator"`
}

// notDevpilot is an answer of something else.
type notDevpilot struct{ status int }

func (e *notDevpilot) Error() string {
	return fmt.Sprintf("what answers is not Devpilot (status %d)", e.status)
}

// AskInfo asks the Devpilot at an address about itself.
func AskInfo(ctx context.Context, client *http.Client, at string) (i Info, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at+"/v1/info", http.NoBody)
	if err != nil {
		return i, err
	}
	answer, err := client.Do(req)
	if err != nil {
		return i, err
	}
	defer answer.Body.Close()
	if json.NewDecoder(io.LimitReader(answer.Body, 64<<10)).Decode(&i) != nil || answer.StatusCode != http.StatusOK || i.Version == "" || i.BitbucketSiteURL == "" {
		return i, &notDevpilot{answer.StatusCode}
	}
	return i, nil
}

// PublicURL asks the public URL as a browser would, and whether it is this product that answers.
func PublicURL(ctx context.Context, client *http.Client, public, site string) Check {
	const remedy = "Point the name at Devpilot, or at the proxy before it, and have that pass everything on (deploy/README.md)."
	info, err := AskInfo(ctx, client, public)
	var other *notDevpilot
	switch {
	case errors.As(err, &other):
		return Fail(fmt.Sprintf("What answers at %s is not Devpilot (status %d).", public, other.status), remedy)
	case Untrusted(err) != "":
		return Fail(public+" is not trusted: "+Untrusted(err)+".", "Have the certificate of the public URL renewed, by an authority that Bitbucket knows.")
	case err != nil:
		return Fail(public+" does not answer: "+hook.Cause(err)+".", remedy)
	}
	if why := Unreachable(public, site); why != "" {
		return Warn(fmt.Sprintf("Devpilot %s answers at %s, which Bitbucket cannot reach: it %s. No webhook is registered; pushes are found by polling.", info.Version, public, why),
			"For pushes that deploy at once, set DEVPILOT_PUBLIC_URL to an https address that the internet reaches.")
	}
	return Well("Devpilot %s answers at %s.", info.Version, public)
}

// Unreachable is why Bitbucket cannot reach the public URL; empty where it can.
func Unreachable(public, site string) string {
	u, err := url.Parse(public)
	if err != nil {
		return "is no URL"
	}
	s, err := url.Parse(site)
	if err != nil {
		s = nil
	}
	return bitbucket.Unreachable(u, s)
}

// Consumer is the OAuth consumer of an installation.
type Consumer struct {
	ClientID        string
	Secret          seal.Secret
	SiteURL, APIURL string
	Callback        string // its callback URL
}

// OAuth checks the consumer's key and secret. A code that nobody was given is exchanged: Bitbucket looks at
// the consumer first. It is no refresh, which would lock others out when it fails (BITBUCKET.md#lock-out).
func OAuth(ctx context.Context, client *http.Client, c Consumer) Check {
	const remedy = "Take key and secret from the OAuth consumer in the workspace's settings at Bitbucket: DEVPILOT_BITBUCKET_CLIENT_ID and DEVPILOT_BITBUCKET_CLIENT_SECRET_FILE."
	if c.ClientID == "" || c.Secret.IsZero() {
		return Warn("No OAuth consumer is set: nobody can connect Bitbucket.", remedy)
	}
	site, err := bitbucket.NewSite(c.SiteURL, c.APIURL)
	if err != nil {
		return Fail(err.Error()+".", "Put DEVPILOT_BITBUCKET_SITE_URL and DEVPILOT_BITBUCKET_API_URL right, or leave them out.")
	}
	consumer := bitbucket.NewOAuth(site, c.ClientID, c.Secret, c.Callback, bitbucket.WithHTTPClient(client))
	_, err = consumer.Exchange(ctx, "devpilot-doctor", bitbucket.NewVerifier())
	var refused *bitbucket.OAuthError
	switch {
	case errors.As(err, &refused) && refused.Class == bitbucket.OAuthConsumerMisconfigured:
		return Fail("Bitbucket does not accept the OAuth consumer: its key, secret or callback URL is wrong.", remedy+" Its callback URL has to be "+c.Callback+".")
	case errors.As(err, &refused) && refused.Class == bitbucket.OAuthCodeRefused:
		return Well("Bitbucket takes the key and the secret. Callback URL and permissions show when somebody connects: they have to be %s, and account, email, repositories (read) and webhooks.", c.Callback)
	case err != nil:
		return Warn("Bitbucket does not say whether it takes the OAuth consumer: "+hook.Cause(err)+".", "Check that this machine reaches Bitbucket, and try again in a few minutes.")
	}
	return Warn("Bitbucket took a code that nobody was given.", "Check DEVPILOT_BITBUCKET_SITE_URL: what answers there is not Bitbucket.")
}

// DeliveryName is the name of the check that Delivery makes.
const DeliveryName = "webhook-delivery"

// Delivery sends a delivery that is signed by the keyset of webhook through the public URL to the installation, as
// Bitbucket would.
func Delivery(ctx context.Context, client *http.Client, public, site string, keyset *seal.Keyset) Check {
	if why := Unreachable(public, site); why != "" {
		return Skip("%s %s, so that Bitbucket sends nothing there.", public, why)
	}
	secret, err := hook.InstallationSecret(keyset)
	if err != nil {
		return Fail(err.Error()+".", "Give this program the installation's keyset.")
	}
	if p := hook.Prove(ctx, client, public+hook.Path+hook.InstallationID, secret); !p.Verified {
		return Fail(p.Trouble, "Check DEVPILOT_PUBLIC_URL and that the proxy before Devpilot passes POST "+hook.Path+"… on unchanged, to the webhook service of this installation.")
	}
	return Well("A signed delivery to ourselves through %s arrived and was verified; it was not routed.", public)
}
