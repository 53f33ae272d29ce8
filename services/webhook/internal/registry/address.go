package registry

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/bitbucket/hook"
)

// Address is where Bitbucket reaches the webhooks, and whether it can.
type Address struct {
	base string
	// unreachable says why Bitbucket cannot call us; nil when it can.
	unreachable *apierr.Error
}

// NewAddress judges the public URL by the rule of [bitbucket.Unreachable].
func NewAddress(publicURL string, site bitbucket.Site) (Address, error) {
	u, err := url.Parse(publicURL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return Address{}, errors.New("registry: the public URL is not an http or https URL")
	}
	a := Address{base: strings.TrimRight(u.Scheme+"://"+u.Host+u.EscapedPath(), "/")}
	api, err := url.Parse(site.APIURL)
	if err != nil {
		return Address{}, errors.New("registry: the API's address is not a URL")
	}
	if why := bitbucket.Unreachable(u, api); why != "" {
		a.unreachable = apierr.New(apierr.ReasonNoPublicURL, fmt.Sprintf(
			"Bitbucket cannot reach Devpilot: its public URL %s %s. Pushes are found by asking Bitbucket at intervals instead. Set DEVPILOT_PUBLIC_URL to an https address that Bitbucket can reach to have webhooks.", a.base, why))
	}
	return a, nil
}

// URL is what Bitbucket calls for a webhook.
func (a Address) URL(id string) string { return a.base + hook.Path + id }

// Unreachable is the error NO_PUBLIC_URL when Bitbucket cannot call us, else nil.
func (a Address) Unreachable() *apierr.Error { return a.unreachable }
