package identity

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

// Life of the tokens. A user token must outlast the request it was made for, a caller token one
// connection attempt.
const (
	TokenLife   = 60 * time.Second
	callerReuse = 30 * time.Second
	// userReuse leaves a reused token more than the 30 s that a request may take.
	userReuse = 25 * time.Second
	leeway    = 5 * time.Second
	// maxLabel bounds the label in a token, in bytes: it is for people and may be shortened.
	maxLabel = 256
	// maxToken bounds a token that is parsed, in bytes. The longest subject, label and list of apps fit.
	maxToken = 8192
)

// The two kinds of tokens differ in type and audience, so that neither passes for the other.
const (
	userType     = "devpilot-user+jwt"
	callerType   = "devpilot-caller+jwt"
	userAudience = "devpilot"
)

// ErrInvalid is in every error of a Verifier. The rest of the error is for logs.
var ErrInvalid = errors.New("identity: token not valid")

// ErrExpired is in the error, beside ErrInvalid, of a token that was good once.
var ErrExpired = errors.New("identity: token expired")

// ClockError is in the error of a caller token that is good but for its time. A caller signs anew every half a minute, so
// that the clocks of the two machines differ, or the call lay somewhere while one of them stood still.
type ClockError struct {
	Caller string
	// Ahead is how far the time of issue is ahead of this machine's clock; negative where it is behind, then half a minute more
	// than the clocks differ by, at most.
	Ahead time.Duration
	err   error
}

// Error implements error.
func (e *ClockError) Error() string {
	return fmt.Sprintf("the clocks differ, or one of the two stood still: %s signed at %v from now: %v", e.Caller, e.Ahead, e.err)
}

// Unwrap is what was wrong with the token.
func (e *ClockError) Unwrap() error { return e.err }

type userClaims struct {
	jwt.RegisteredClaims
	Kind      SubjectKind `json:"knd"`
	Label     string      `json:"lbl,omitempty"`
	Workspace string      `json:"wsp,omitempty"`
	Role      string      `json:"rol,omitempty"`
	Scope     string      `json:"scp,omitempty"`
	Apps      []string    `json:"app,omitempty"`
	Operator  bool        `json:"opr,omitempty"`
	RequestID string      `json:"rid,omitempty"`
}

// Signer signs as one service. Safe for concurrent use.
type Signer struct {
	service string
	key     key
	now     func() time.Time

	callers memory[string, string]   // token by target service
	users   memory[Identity, string] // token by whom it is of
}

// NewSigner makes a signer for a service whose private key is held.
func NewSigner(keys *Keys, service string) (*Signer, error) {
	k, err := keys.signing(service)
	if err != nil {
		return nil, err
	}
	return &Signer{
		service: service, key: k, now: time.Now,
		callers: newMemory[string, string](maxCallers), users: newMemory[Identity, string](maxUsers),
	}, nil
}

// SignUser makes a user token. Only the gateway may. One without a request id is made once and reused
// for 25 s by all requests of the same subject, label, workspace, role, scope and apps, of an operator or not: what any of these
// becomes meanwhile is another token.
func (s *Signer) SignUser(id Identity) (string, error) {
	if s.service != Gateway {
		return "", fmt.Errorf("identity: service %q may not sign for users", s.service)
	}
	if id.Subject == "" || !id.SubjectKind.valid() {
		return "", fmt.Errorf("identity: subject %q of kind %q", id.Subject, id.SubjectKind)
	}
	id.Label = cut(id.Label, maxLabel)
	if token, ok := s.users.get(id, s.now()); ok {
		return token, nil
	}
	c := userClaims{
		RegisteredClaims: s.registered(userAudience),
		Kind:             id.SubjectKind, Label: id.Label, Workspace: id.Workspace, RequestID: id.RequestID, Operator: id.Operator,
	}
	c.Subject = id.Subject
	if id.Role != RoleNone {
		c.Role = id.Role.String()
	}
	if id.Scope != ScopeNone {
		c.Scope = id.Scope.String()
	}
	c.Apps = id.Apps.IDs()
	token, err := s.sign(userType, c)
	if err == nil && id.RequestID == "" {
		s.users.put(id, token, c.IssuedAt.Time, c.IssuedAt.Add(userReuse))
	}
	return token, err
}

// cut shortens s to at most n bytes, between characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// SignCaller makes (or reuses, for 30 s) the token by which this service calls target.
func (s *Signer) SignCaller(target string) (string, error) {
	now := s.now()
	if token, ok := s.callers.get(target, now); ok {
		return token, nil
	}
	token, err := s.sign(callerType, s.registered(target))
	if err != nil {
		return "", err
	}
	s.callers.put(target, token, now, now.Add(callerReuse))
	return token, nil
}

func (s *Signer) registered(audience string) jwt.RegisteredClaims {
	now := s.now()
	return jwt.RegisteredClaims{
		Issuer: s.service, Audience: jwt.ClaimStrings{audience},
		IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(TokenLife)),
	}
}

func (s *Signer) sign(typ string, c jwt.Claims) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c)
	t.Header["typ"] = typ
	t.Header["kid"] = s.key.id
	signed, err := t.SignedString(s.key.private)
	if err != nil {
		return "", fmt.Errorf("identity: sign: %w", err)
	}
	return signed, nil
}

// Verifier checks the tokens that reach one service. Safe for concurrent use.
type Verifier struct {
	service string
	keys    *Keys
	now     func() time.Time

	// Tokens that were found good, until they expire: a caller token comes with every call for 30 s, a
	// user token with every call of a request, and of the requests that follow it.
	callers memory[string, string]   // name by token
	users   memory[string, Identity] // identity by token
}

// NewVerifier makes a verifier for the service that receives the calls.
func NewVerifier(keys *Keys, service string) *Verifier {
	return &Verifier{
		service: service, keys: keys, now: time.Now,
		callers: newMemory[string, string](maxCallers), users: newMemory[string, Identity](maxUsers),
	}
}

// User verifies a user token: signed by the gateway's key, for this product, not expired. Errors
// wrap ErrInvalid, and ErrExpired where only time has passed.
func (v *Verifier) User(token string) (Identity, error) {
	if id, ok := v.users.get(token, v.now()); ok {
		return id, nil
	}
	var c userClaims
	if err := v.parse(token, userType, userAudience, &c, func() string { return Gateway }); err != nil {
		return Identity{}, err
	}
	id := Identity{Subject: c.Subject, SubjectKind: c.Kind, Label: c.Label, Workspace: c.Workspace, RequestID: c.RequestID, Operator: c.Operator}
	if id.Subject == "" || !c.Kind.valid() || c.Issuer != Gateway {
		return Identity{}, fmt.Errorf("%w: incomplete claims", ErrInvalid)
	}
	if c.Role != "" {
		role, err := ParseRole(c.Role)
		if err != nil {
			return Identity{}, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		id.Role = role
	}
	if c.Scope != "" {
		scope, err := ParseScope(c.Scope)
		if err != nil {
			return Identity{}, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		id.Scope = scope
	}
	id.Apps = LimitedTo(c.Apps...)
	v.users.put(token, id, c.IssuedAt.Add(-leeway), c.ExpiresAt.Time)
	return id, nil
}

// Caller verifies a caller token: signed by the key of the service it names, meant for this
// service, not expired; it returns the caller's name. Errors wrap ErrInvalid, in a ClockError where
// the time alone is wrong.
func (v *Verifier) Caller(token string) (string, error) {
	if name, ok := v.callers.get(token, v.now()); ok {
		return name, nil
	}
	var c jwt.RegisteredClaims
	if err := v.parse(token, callerType, v.service, &c, func() string { return c.Issuer }); err != nil {
		if errors.Is(err, ErrExpired) || errors.Is(err, jwt.ErrTokenUsedBeforeIssued) {
			return "", &ClockError{Caller: c.Issuer, Ahead: c.IssuedAt.Sub(v.now()).Round(time.Second), err: err}
		}
		return "", err
	}
	v.callers.put(token, c.Issuer, c.IssuedAt.Add(-leeway), c.ExpiresAt.Time)
	return c.Issuer, nil
}

// parse checks everything that the two kinds share. issuer is asked after the claims were read and
// before the signature is checked: it says whose keys count.
func (v *Verifier) parse(token, typ, audience string, claims jwt.Claims, issuer func() string) error {
	if token == "" || len(token) > maxToken {
		return fmt.Errorf("%w: length %d", ErrInvalid, len(token))
	}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
		jwt.WithAudience(audience), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithLeeway(leeway), jwt.WithTimeFunc(v.now), jwt.WithStrictDecoding(),
	)
	parsed, err := parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		if t.Header["typ"] != typ {
			return nil, fmt.Errorf("type %v, not %s", t.Header["typ"], typ)
		}
		kid, _ := t.Header["kid"].(string)
		pub, ok := v.keys.verifying(issuer(), kid)
		if !ok {
			return nil, fmt.Errorf("no key %q of service %q", kid, issuer())
		}
		return pub, nil
	})
	if err != nil {
		if errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid) {
			return fmt.Errorf("%w: %w: %w", ErrInvalid, ErrExpired, err)
		}
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return v.checkLife(parsed)
}

// checkLife refuses tokens that claim to live longer than ours do, and those without a time of issue.
func (v *Verifier) checkLife(t *jwt.Token) error {
	iat, err := t.Claims.GetIssuedAt()
	if err != nil || iat == nil {
		return fmt.Errorf("%w: no time of issue", ErrInvalid)
	}
	exp, err := t.Claims.GetExpirationTime()
	if err != nil || exp == nil || exp.Sub(iat.Time) > TokenLife {
		return fmt.Errorf("%w: lives too long", ErrInvalid)
	}
	return nil
}
