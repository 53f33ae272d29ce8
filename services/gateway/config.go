package gateway

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/gateway/internal/deletion"
	"devpilot.io/bitbucket/services/gateway/internal/edge"
	"devpilot.io/bitbucket/services/gateway/internal/events"
	"devpilot.io/bitbucket/services/gateway/internal/notify"
	"devpilot.io/bitbucket/services/gateway/internal/signin"
)

// Defaults of what an operator need not set.
const (
	defaultHeartbeat = 15 * time.Second
	defaultTimeout   = 30 * time.Second
	// minActivityRetention is the least that the activity list reaches back: less answers no question.
	minActivityRetention = 24 * time.Hour
)

// Config is what an operator sets.
type Config struct {
	// PublicURL is where people and Bitbucket reach this installation, without a path.
	PublicURL string
	// Listen is the address that the handler is served on, as bound; it is a known host. May be
	// empty where it is not known.
	Listen string
	// AllowedOrigins are origins whose pages may call the API.
	AllowedOrigins []string
	// TrustedProxies are addresses and networks whose X-Forwarded-For counts.
	TrustedProxies []string
	// AdminToken signs the local owner in and makes sign-in codes; without one, only codes do.
	AdminToken seal.Secret
	// ProvidersFile names the identity providers that sign people in; empty for none.
	ProvidersFile string
	// LocalOwnerOff switches the local owner off: only the providers let people in.
	LocalOwnerOff bool

	// Version, Emulator and BitbucketSiteURL are shown by /v1/info.
	Version          string
	Emulator         bool
	BitbucketSiteURL string

	// Mail is the mail server for notifications; without a host there is none.
	Mail notify.SMTP
	// NotifyAllow are private networks and addresses that receivers of notifications may be in.
	NotifyAllow []string

	// ActivityRetention is how long the activity list reaches back, at least a day; 0: a year.
	ActivityRetention time.Duration

	// ProgramRequestsPerMinute bounds what an API key, or a token of an identity provider, sends in a minute; 0: nothing does.
	ProgramRequestsPerMinute int

	// SessionIdle and SessionLife bound a browser session; 0: 14 and 90 days.
	SessionIdle, SessionLife time.Duration
	// Heartbeat of streams, at which their caller is checked again; 0: 15 s.
	Heartbeat time.Duration
	// ObjectWait is how long an event waits for what it brings along; 0: events.ObjectWait.
	ObjectWait time.Duration
	// DeletionSettle is how long a workspace that is empty stays DELETING at least; 0: deletion.Settle.
	DeletionSettle time.Duration
	// DoctorTime is how long a service may take to say how it is; 0: doctor.Config's.
	DoctorTime time.Duration
	// Timeout of a request that is not a stream; 0: 30 s.
	Timeout time.Duration
}

// web is the checked part of a Config that the HTTP side needs.
type web struct {
	public  *url.URL
	hosts   edge.Hosts
	origins edge.Origins
	proxies edge.Proxies
	// receivers may have these addresses.
	receivers notify.Addresses
	people    signin.Settings
}

func (c *Config) check() (web, error) {
	if c.DeletionSettle == 0 {
		c.DeletionSettle = deletion.Settle
	}
	if c.ObjectWait == 0 {
		c.ObjectWait = events.ObjectWait
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = defaultHeartbeat
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.PublicURL == "" {
		return web{}, errors.New("gateway: Config.PublicURL is missing")
	}
	if c.ActivityRetention != 0 && c.ActivityRetention < minActivityRetention {
		return web{}, fmt.Errorf("gateway: the activity list must reach back at least %s, not %s", minActivityRetention, c.ActivityRetention)
	}
	u, err := url.Parse(c.PublicURL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return web{}, fmt.Errorf("gateway: the public URL must be like https://devpilot.example.com")
	}
	u.Path = ""
	w := web{public: u, hosts: edge.NewHosts(u, c.Listen)}
	if w.origins, err = edge.NewOrigins(u, c.AllowedOrigins); err != nil {
		return web{}, fmt.Errorf("gateway: %w", err)
	}
	if w.proxies, err = edge.ParseProxies(c.TrustedProxies); err != nil {
		return web{}, fmt.Errorf("gateway: %w", err)
	}
	if w.receivers, err = notify.ParseAddresses(c.NotifyAllow); err != nil {
		return web{}, fmt.Errorf("gateway: what notifications may reach: %w", err)
	}
	if w.people, err = signin.ReadSettings(c.ProvidersFile); err != nil {
		return web{}, fmt.Errorf("gateway: --identity-providers-file (DEVPILOT_IDENTITY_PROVIDERS_FILE): %w", err)
	}
	if c.LocalOwnerOff && !w.people.MakesOwner() {
		return web{}, errors.New("gateway: --local-owner=off (DEVPILOT_LOCAL_OWNER) would leave nobody who can get in: name a provider in --identity-providers-file with a rule that makes somebody an owner")
	}
	if err := c.Mail.Check(); err != nil {
		return web{}, fmt.Errorf("gateway: %w", err)
	}
	return w, nil
}

// webhooksReachable says whether Bitbucket can call us. It only informs; webhook decides, by the
// same rule.
func webhooksReachable(public *url.URL, siteURL string) bool {
	site, err := url.Parse(siteURL)
	if err != nil {
		site = nil
	}
	return bitbucket.Unreachable(public, site) == ""
}
