package signin

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/http"
	"time"

	"golang.org/x/oauth2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/seal"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

const (
	// attemptLife is how long somebody may take at the provider.
	attemptLife   = 10 * time.Minute
	attemptName   = "devpilot_sign_in_"
	attemptData   = "devpilot gateway sign-in attempt v1"
	attemptIDSize = 11   // characters of the state that name its cookie
	maxAttempt    = 3500 // bytes of an attempt's cookie: browsers keep 4096
)

// attempts seal what binds a provider's answer to the browser that asked.
type attempts struct {
	keyset *seal.Keyset
	secure bool
	now    func() time.Time
}

func random() string {
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

func (a attempts) begin(provider, next, invitation string) *gatewaystorev1.SignInAttempt {
	return &gatewaystorev1.SignInAttempt{
		Provider: provider, State: random(), Nonce: random(), Verifier: oauth2.GenerateVerifier(), Next: next, Invitation: invitation,
		ExpireTime: timestamppb.New(a.now().Add(attemptLife)),
	}
}

// name is a cookie per attempt: two tabs may sign in at once.
func (a attempts) name(state string) string {
	name := attemptName + state[:min(len(state), attemptIDSize)]
	if a.secure {
		return "__Host-" + name
	}
	return name
}

func (a attempts) cookie(state, value string, maxAge int) *http.Cookie {
	// The provider sends the browser back by a top-level visit from another site, hence Lax.
	return &http.Cookie{Name: a.name(state), Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true, Secure: a.secure, SameSite: http.SameSiteLaxMode}
}

func (a attempts) seal(made *gatewaystorev1.SignInAttempt) (*http.Cookie, error) {
	raw, err := proto.Marshal(made)
	if err != nil {
		return nil, err
	}
	sealed, err := a.keyset.Seal(raw, []byte(attemptData))
	if err != nil {
		return nil, err
	}
	value := base64.RawURLEncoding.EncodeToString(sealed)
	if len(value) > maxAttempt {
		return nil, errors.New("signin: the attempt does not fit into a cookie")
	}
	return a.cookie(made.GetState(), value, int(attemptLife/time.Second)), nil
}

// find is the attempt that the state is of; nil when this browser has none.
func (a attempts) find(r *http.Request, provider, state string) *gatewaystorev1.SignInAttempt {
	if len(state) < attemptIDSize {
		return nil
	}
	cookies := r.CookiesNamed(a.name(state))
	if len(cookies) != 1 || len(cookies[0].Value) > maxAttempt {
		return nil
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(cookies[0].Value)
	if err != nil {
		return nil
	}
	raw, err := a.keyset.Open(sealed, []byte(attemptData))
	if err != nil {
		return nil
	}
	var made gatewaystorev1.SignInAttempt
	if proto.Unmarshal(raw, &made) != nil || made.GetState() != state || made.GetProvider() != provider || !a.now().Before(made.GetExpireTime().AsTime()) {
		return nil
	}
	return &made
}
