package doctor

import (
	"context"
	"errors"
	"net"
	"slices"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/seal"
)

// concerns tells whether the program has to do with something; c says that it has not.
func (x *exam) concerns(what string, services ...string) (c checkup.Check, does bool) {
	if x.flags.Service == whole || slices.Contains(services, x.flags.Service) {
		return checkup.Check{}, true
	}
	return checkup.Skip("%s has nothing to do with %s.", x.flags.Service, what), false
}

// public is the public URL; where none is set it follows from the address that is listened on.
func (x *exam) public() (string, error) {
	at, err := net.ResolveTCPAddr("tcp", x.flags.Listen)
	if err != nil || x.flags.Listen == "" {
		return x.flags.URL(nil, false)
	}
	return x.flags.URL(at, x.flags.ListenCertFile != "")
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
func (x *exam) clock(ctx context.Context) checkup.Check {
	if x.flags.Emulator && x.notStarted() {
		return checkup.Skip("The emulator does not run, so there is no other clock.")
	}
	return checkup.Clock(ctx, x.client, x.flags.BitbucketSiteURL)
}

// publicURL asks the public URL as a browser would, and whether it is this product that answers.
func (x *exam) publicURL(ctx context.Context) checkup.Check {
	if c, does := x.concerns("the public URL", "auth", "webhook", "gateway"); !does {
		return c
	}
	public, err := x.public()
	if err != nil {
		return checkup.Fail(err.Error()+".", "Set DEVPILOT_PUBLIC_URL to the address that people and Bitbucket use.")
	}
	if x.notStarted() {
		return checkup.Skip("%s was not asked: the program does not run.", public)
	}
	return checkup.PublicURL(ctx, x.client, public, x.flags.BitbucketSiteURL)
}

// oauth checks the consumer's key and secret.
func (x *exam) oauth(ctx context.Context) checkup.Check {
	if c, does := x.concerns("the OAuth consumer", "auth"); !does {
		return c
	}
	consumer := checkup.Consumer{
		ClientID: x.flags.BitbucketClientID, Secret: x.flags.BitbucketClientSecret, SiteURL: x.flags.BitbucketSiteURL, APIURL: x.flags.BitbucketAPIURL,
	}
	public, err := x.public()
	switch missing := consumer.ClientID == "" || consumer.Secret.IsZero(); {
	case err != nil && !missing:
		return checkup.Skip("Without a public URL there is no callback URL.")
	case x.flags.Emulator && x.notStarted() && !missing:
		return checkup.Skip("The emulator does not run; its consumer is set by itself.")
	}
	consumer.Callback = public + "/oauth/bitbucket/callback"
	return checkup.OAuth(ctx, x.client, consumer)
}

// delivery sends a signed delivery through the public URL to the installation, as Bitbucket would.
func (x *exam) delivery(ctx context.Context) checkup.Check {
	if c, does := x.concerns("webhooks", "webhook", "gateway"); !does {
		return c
	}
	public, err := x.public()
	if err != nil {
		return checkup.Skip("There is no public URL to send one to.")
	}
	if checkup.Unreachable(public, x.flags.BitbucketSiteURL) == "" && x.notStarted() {
		return checkup.Skip("Nothing was sent: the program does not run.")
	}
	keyset, c := x.signer(ctx)
	if keyset == nil {
		return c
	}
	return checkup.Delivery(ctx, x.client, public, x.flags.BitbucketSiteURL, keyset)
}

// signer is the keyset that signs for webhook, or what is said where this program has none.
func (x *exam) signer(ctx context.Context) (*seal.Keyset, checkup.Check) {
	keysets, err := x.keysets()
	if err != nil {
		return nil, checkup.Skip("Without the keyset nothing can be signed; see keyset.")
	}
	if keyset := keysets["webhook"]; keyset != nil {
		return keyset, checkup.Check{}
	}
	keyset := keysets[x.flags.Service]
	if js, err := x.jetStream(); err == nil {
		if _, err := installation.Look(ctx, js, seal.Shared(keyset, "webhook")); errors.Is(err, installation.ErrKeyset) {
			return nil, checkup.Skip("webhook has a keyset of its own, which signs: ask its own doctor (--service webhook).")
		}
	}
	return keyset, checkup.Check{}
}
