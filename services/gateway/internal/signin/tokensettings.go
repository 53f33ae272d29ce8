package signin

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
)

// Bounds of an issuer's settings.
const (
	maxIssuers    = 50
	maxTokenRules = 100
)

// TokenSettings describe one issuer whose tokens scripts may send, for one workspace.
type TokenSettings struct {
	// ID is in the subject of who calls: a-z, 0-9 and hyphens.
	ID   string `yaml:"id"`
	Name string `yaml:"name"`
	// Issuer is compared with what tokens say, character by character.
	Issuer string `yaml:"issuer"`
	// Audience must be among those of a token.
	Audience  string `yaml:"audience"`
	Workspace string `yaml:"workspace"`
	// LabelClaim is the claim that says in histories which script it was; sub where nothing is said.
	LabelClaim string `yaml:"labelClaim"`
	// Rules say which tokens may do what: the first that matches counts.
	Rules []TokenRule `yaml:"rules"`
}

// TokenRule gives a scope to tokens whose claims are all as it says.
type TokenRule struct {
	Scope string   `yaml:"scope"`
	Apps  []string `yaml:"apps"`
	// Claims are the texts that each claim may have; * stands for any run of characters.
	Claims map[string]texts `yaml:"claims"`

	scope    identity.Scope
	patterns map[string][]*regexp.Regexp
}

// texts is one text or several.
type texts []string

// UnmarshalYAML implements yaml.InterfaceUnmarshaler.
func (t *texts) UnmarshalYAML(unmarshal func(any) error) error {
	var one string
	if err := unmarshal(&one); err == nil {
		*t = texts{one}
		return nil
	}
	var many []string
	if err := unmarshal(&many); err != nil {
		return errors.New("a text, or a list of texts")
	}
	*t = many
	return nil
}

// checkTokens refuses what would let in more than was meant, or nobody.
func (s Settings) checkTokens() error {
	if len(s.Tokens) > maxIssuers {
		return fmt.Errorf("there are %d issuers of tokens: at most %d", len(s.Tokens), maxIssuers)
	}
	ids, pairs := map[string]bool{}, map[[2]string]bool{}
	for i := range s.Tokens {
		t := &s.Tokens[i]
		err := t.check()
		pair := [2]string{t.Issuer, t.Audience}
		switch {
		case err != nil:
		case ids[t.ID]:
			err = errors.New("id: another one has it")
		case pairs[pair]:
			err = errors.New("audience: another one takes the same tokens; give each workspace an audience of its own")
		case slices.ContainsFunc(s.Providers, func(p ProviderSettings) bool { return p.Issuer == t.Issuer && p.ClientID == t.Audience }):
			err = errors.New("audience: it is the clientId by which people sign in at this issuer, so that the token of any sign-in would do. Have the issuer write another one into tokens for scripts")
		}
		if err != nil {
			return fmt.Errorf("tokens %d (%s): %w", i+1, t.ID, err)
		}
		ids[t.ID], pairs[pair] = true, true
	}
	return nil
}

func (t *TokenSettings) check() error {
	if !idPattern.MatchString(t.ID) {
		return errors.New("id: 1 to 32 lower-case letters, digits and hyphens, beginning with a letter or digit")
	}
	if t.Name = strings.TrimSpace(t.Name); t.Name == "" {
		t.Name = t.ID
	}
	if err := checkIssuer(t.Issuer); err != nil {
		return err
	}
	if t.Audience == "" {
		return errors.New("audience: what tokens that are meant for Devpilot have in aud")
	}
	if !rpc.ValidWorkspace(t.Workspace) {
		return errors.New("workspace: the id of a workspace")
	}
	if t.LabelClaim == "" {
		t.LabelClaim = "sub"
	}
	if len(t.Rules) == 0 || len(t.Rules) > maxTokenRules {
		return fmt.Errorf("rules: 1 to %d; without one that matches, no token may do anything", maxTokenRules)
	}
	for i := range t.Rules {
		if err := t.Rules[i].check(); err != nil {
			return fmt.Errorf("rule %d: %w", i+1, err)
		}
	}
	return nil
}

func (r *TokenRule) check() (err error) {
	if r.scope, err = identity.ParseScope(r.Scope); err != nil {
		return errors.New("scope: read, deploy or admin")
	}
	if len(r.Apps) > identity.MaxApps {
		return fmt.Errorf("apps: at most %d", identity.MaxApps)
	}
	for _, app := range r.Apps {
		if !rpc.ValidWorkspace(app) { // ids of apps have the same form
			return fmt.Errorf("apps: %q is not the id of an app", app)
		}
	}
	if len(r.Claims) == 0 {
		return errors.New("claims: at least one; a rule without would let in every token of the issuer")
	}
	r.patterns = map[string][]*regexp.Regexp{}
	for _, claim := range slices.Sorted(maps.Keys(r.Claims)) {
		if len(r.Claims[claim]) == 0 {
			return fmt.Errorf("claims: %s has no text to compare with", claim)
		}
		for _, text := range r.Claims[claim] {
			if strings.Trim(text, "*") == "" {
				return fmt.Errorf("claims: %s: %q says nothing; leave the claim out, or say what it must be", claim, text)
			}
			quoted := strings.ReplaceAll(regexp.QuoteMeta(text), `\*`, `.*`)
			r.patterns[claim] = append(r.patterns[claim], regexp.MustCompile(`\A(?s:`+quoted+`)\z`))
		}
	}
	return nil
}

// matches tells whether every claim that the rule names has one of its texts. A claim that is a list has those of
// its elements; an object has none.
func (r *TokenRule) matches(claims map[string]json.RawMessage) bool {
	for claim, patterns := range r.patterns {
		if !slices.ContainsFunc(textsIn(claims[claim]), func(text string) bool {
			return slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(text) })
		}) {
			return false
		}
	}
	return true
}

// textsIn are the texts of a claim: of a text itself, of numbers and booleans as JSON writes them.
func textsIn(raw json.RawMessage) []string {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		list = []json.RawMessage{raw}
	}
	var out []string
	for _, e := range list {
		var text string
		var number json.Number
		var yes *bool
		switch {
		case len(e) == 0:
		case json.Unmarshal(e, &text) == nil && e[0] == '"':
			out = append(out, text)
		case json.Unmarshal(e, &yes) == nil && yes != nil:
			out = append(out, fmt.Sprint(*yes))
		case json.Unmarshal(e, &number) == nil && number != "":
			out = append(out, number.String())
		}
	}
	return out
}
