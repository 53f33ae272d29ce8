package signin

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/pasted"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/gateway/internal/edge"
)

// Defaults and bounds of a provider's settings.
const (
	DefaultRefresh = 15 * time.Minute // how old the provider's word becomes
	minRefresh     = 10 * time.Second
	DefaultLife    = 12 * time.Hour // of a session
	minLife        = time.Minute
	maxProviders   = 20
	maxFile        = 1 << 20 // bytes of the settings file and of a file with a secret
)

// Settings are the providers and what their claims give.
type Settings struct {
	Providers []ProviderSettings `yaml:"providers"`
	// Tokens are the issuers whose tokens scripts may send.
	Tokens []TokenSettings `yaml:"tokens"`
}

// ProviderSettings describe one provider.
type ProviderSettings struct {
	// ID is in addresses, such as /sign-in/corp/callback: a-z, 0-9 and hyphens.
	ID string `yaml:"id"`
	// Name is on the button.
	Name string `yaml:"name"`
	// Issuer is compared with what tokens say, character by character.
	Issuer   string `yaml:"issuer"`
	ClientID string `yaml:"clientId"`
	// ClientSecretFile and ClientSecretVariable say where the secret is; without one the client is a public
	// one, and PKCE alone protects the code.
	ClientSecretFile     string `yaml:"clientSecretFile"`
	ClientSecretVariable string `yaml:"clientSecretVariable"`
	// Scopes are asked for beside openid.
	Scopes []string `yaml:"scopes"`
	// GroupsClaim has the groups: a list, or one name.
	GroupsClaim string `yaml:"groupsClaim"`
	// RefreshEvery is how old the provider's word about a person becomes before it is asked again.
	RefreshEvery time.Duration `yaml:"refreshEvery"`
	// SessionLife is how long a session lasts at most.
	SessionLife time.Duration `yaml:"sessionLife"`
	Rules       []Rule        `yaml:"rules"`

	secret seal.Secret
}

// RoleOperator is the role of a rule that names no workspace: whom it is about is an operator of the installation. It
// lets nobody in by itself.
const RoleOperator = "operator"

// Rule gives a role in a workspace to whom it is about: one of Group, Email and EmailDomain, or Everybody that the
// provider knows.
type Rule struct {
	Workspace   string `yaml:"workspace"`
	Role        string `yaml:"role"`
	Group       string `yaml:"group"`
	Email       string `yaml:"email"`
	EmailDomain string `yaml:"emailDomain"`
	Everybody   bool   `yaml:"everybody"`

	role identity.Role
}

// ReadSettings reads the file of the providers, and their secrets; an empty path is no providers.
func ReadSettings(path string) (Settings, error) {
	if path == "" {
		return Settings{}, nil
	}
	raw, err := readSmall(path)
	if err != nil {
		return Settings{}, err
	}
	s, err := ParseSettings(raw, os.LookupEnv)
	if err != nil {
		return Settings{}, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// ParseSettings reads the settings, and the secrets that they name.
func ParseSettings(raw []byte, variable func(string) (string, bool)) (Settings, error) {
	var s Settings
	if err := yaml.UnmarshalWithOptions(raw, &s, yaml.Strict()); err != nil {
		return Settings{}, errors.New(strings.TrimSpace(yaml.FormatError(err, false, false)))
	}
	if len(s.Providers) > maxProviders {
		return Settings{}, fmt.Errorf("there are %d providers: at most %d", len(s.Providers), maxProviders)
	}
	seen := map[string]bool{}
	for i := range s.Providers {
		p := &s.Providers[i]
		if err := p.check(variable); err != nil {
			return Settings{}, fmt.Errorf("provider %d (%s): %w", i+1, p.ID, err)
		}
		if seen[p.ID] {
			return Settings{}, fmt.Errorf("two providers have the id %s", p.ID)
		}
		seen[p.ID] = true
	}
	return s, s.checkTokens()
}

var idPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

func (p *ProviderSettings) check(variable func(string) (string, bool)) error {
	if !idPattern.MatchString(p.ID) {
		return errors.New("id: 1 to 32 lower-case letters, digits and hyphens, beginning with a letter or digit")
	}
	if p.Name = strings.TrimSpace(p.Name); p.Name == "" {
		p.Name = p.ID
	}
	if err := checkIssuer(p.Issuer); err != nil {
		return err
	}
	if p.ClientID == "" {
		return errors.New("clientId: the id under which the provider knows Devpilot")
	}
	if p.RefreshEvery == 0 {
		p.RefreshEvery = DefaultRefresh
	}
	if p.SessionLife == 0 {
		p.SessionLife = DefaultLife
	}
	if p.RefreshEvery < minRefresh || p.SessionLife < minLife {
		return fmt.Errorf("refreshEvery is at least %s, and sessionLife %s", minRefresh, minLife)
	}
	if p.GroupsClaim == "" {
		p.GroupsClaim = "groups"
	}
	if len(p.Scopes) == 0 {
		p.Scopes = []string{"email", "profile", "offline_access"}
	}
	for i := range p.Rules {
		if err := p.Rules[i].check(); err != nil {
			return fmt.Errorf("rule %d: %w", i+1, err)
		}
	}
	return p.readSecret(variable)
}

func checkIssuer(issuer string) error {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && (u.Scheme != "http" || !edge.Loopback(u.Hostname())) {
		return errors.New("issuer: an https address, exactly as the provider writes it (http on this machine only)")
	}
	return nil
}

func (r *Rule) check() (err error) {
	switch {
	case r.operates() && (r.Workspace != "" || r.Everybody):
		return errors.New("role operator is for the whole installation: it goes with no workspace, and not with everybody")
	case !r.operates() && !rpc.ValidWorkspace(r.Workspace):
		return errors.New("workspace: the id of a workspace")
	case !r.operates():
		if r.role, err = identity.ParseRole(r.Role); err != nil {
			return errors.New("role: owner, admin or member, or operator without a workspace")
		}
	}
	about := 0
	for _, given := range []bool{r.Group != "", r.Email != "", r.EmailDomain != "", r.Everybody} {
		if given {
			about++
		}
	}
	if about != 1 {
		return errors.New("say who it is about by one of group, email, emailDomain, or everybody: true")
	}
	return nil
}

func (r *Rule) operates() bool { return strings.EqualFold(r.Role, RoleOperator) }

func (p *ProviderSettings) readSecret(variable func(string) (string, bool)) error {
	switch {
	case p.ClientSecretFile != "" && p.ClientSecretVariable != "":
		return errors.New("clientSecretFile and clientSecretVariable exclude each other")
	case p.ClientSecretFile != "":
		raw, err := readSmall(p.ClientSecretFile)
		if err != nil {
			return fmt.Errorf("clientSecretFile: %w", err)
		}
		p.secret = seal.NewSecret(pasted.Line(string(raw)))
	case p.ClientSecretVariable != "":
		value, ok := variable(p.ClientSecretVariable)
		if !ok {
			return fmt.Errorf("clientSecretVariable: the variable %s is not set", p.ClientSecretVariable)
		}
		p.secret = seal.NewSecret(pasted.Line(value))
	default:
		return nil
	}
	if p.secret.IsZero() {
		return errors.New("the client secret is empty")
	}
	return nil
}

func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err //nolint:wrapcheck // names the file
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	raw, err := os.ReadFile(path)
	return raw, err //nolint:wrapcheck // names the file
}

// MakesOwner says whether somebody can become an owner by the rules.
func (s Settings) MakesOwner() bool {
	return slices.ContainsFunc(s.Providers, func(p ProviderSettings) bool {
		return slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.role == identity.RoleOwner })
	})
}

// Workspaces are those that rules speak of, sorted.
func (s Settings) Workspaces() []string {
	var ids []string
	for _, p := range s.Providers {
		for _, r := range p.Rules {
			if !r.operates() {
				ids = append(ids, r.Workspace)
			}
		}
	}
	for _, t := range s.Tokens {
		ids = append(ids, t.Workspace)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// grants are the roles that the rules give somebody, by workspace: of several the highest. What depends on
// an address counts only when the provider has verified it.
func (p *ProviderSettings) grants(c claims) map[string]identity.Role {
	out := map[string]identity.Role{}
	for _, r := range p.Rules {
		if !r.operates() && r.matches(c) {
			out[r.Workspace] = max(out[r.Workspace], r.role)
		}
	}
	return out
}

// operates says whether the rules make somebody an operator of the installation.
func (p *ProviderSettings) operates(c claims) bool {
	return slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.operates() && r.matches(c) })
}

func (r Rule) matches(c claims) bool {
	_, domain, _ := strings.Cut(c.Email, "@")
	switch {
	case r.Everybody:
		return true
	case r.Group != "":
		return slices.Contains(c.groups, r.Group)
	case r.Email != "":
		return bool(c.EmailVerified) && strings.EqualFold(c.Email, r.Email)
	}
	return bool(c.EmailVerified) && domain != "" && strings.EqualFold(domain, r.EmailDomain)
}
