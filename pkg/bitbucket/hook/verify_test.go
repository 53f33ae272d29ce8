package hook

import (
	"errors"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/seal"
)

// The vector that Atlassian publishes (BITBUCKET.md#signature).
const (
	vectorSecret    = "It's a Secret to Everybody"
	vectorBody      = "Hello World!"
	vectorSignature = "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"
)

func TestVerify_publishedVector(t *testing.T) {
	matched, err := Verify([]byte(vectorBody), vectorSignature, seal.NewSecret(vectorSecret))
	if err != nil || matched != 0 {
		t.Fatalf("Verify = %d, %v; want 0, nil", matched, err)
	}
	if got := Sign([]byte(vectorBody), seal.NewSecret(vectorSecret)); got != vectorSignature {
		t.Errorf("Sign = %q, want %q", got, vectorSignature)
	}
}

func TestVerify_acceptsEitherSecretDuringRotation(t *testing.T) {
	body := []byte(`{"push":{}}`)
	current, previous := seal.NewSecret("current"), seal.NewSecret("previous")
	for want, secret := range []seal.Secret{current, previous} {
		matched, err := Verify(body, Sign(body, secret), current, previous)
		if err != nil || matched != want {
			t.Errorf("signed with secret %d: Verify = %d, %v", want, matched, err)
		}
	}
	if _, err := Verify(body, Sign(body, previous), current); !errors.Is(err, ErrSignatureMismatch) {
		t.Errorf("after rotation: err = %v, want ErrSignatureMismatch", err)
	}
}

func TestVerify_refuses(t *testing.T) {
	body := []byte("body")
	secret := seal.NewSecret("s")
	good := Sign(body, secret)
	tests := map[string]struct {
		header  string
		body    string
		secrets []seal.Secret
		want    error
	}{
		"no header":                 {"", "body", []seal.Secret{secret}, ErrSignatureMissing},
		"blank header":              {"  ", "body", []seal.Secret{secret}, ErrSignatureMissing},
		"no algorithm":              {strings.TrimPrefix(good, "sha256="), "body", []seal.Secret{secret}, ErrSignatureMalformed},
		"another algorithm":         {strings.Replace(good, "sha256", "sha1", 1), "body", []seal.Secret{secret}, ErrSignatureMalformed},
		"upper-case algorithm":      {strings.Replace(good, "sha256", "SHA256", 1), "body", []seal.Secret{secret}, ErrSignatureMalformed},
		"too short":                 {good[:len(good)-2], "body", []seal.Secret{secret}, ErrSignatureMalformed},
		"too long":                  {good + "00", "body", []seal.Secret{secret}, ErrSignatureMalformed},
		"not hexadecimal":           {"sha256=" + strings.Repeat("zz", 32), "body", []seal.Secret{secret}, ErrSignatureMalformed},
		"one bit off":               {good[:len(good)-1] + flip(good[len(good)-1]), "body", []seal.Secret{secret}, ErrSignatureMismatch},
		"changed body":              {good, "body ", []seal.Secret{secret}, ErrSignatureMismatch},
		"another secret":            {good, "body", []seal.Secret{seal.NewSecret("t")}, ErrSignatureMismatch},
		"no secret":                 {good, "body", nil, ErrNoSecret},
		"signed with an empty key":  {Sign(body, seal.Secret{}), "body", []seal.Secret{{}}, ErrNoSecret},
		"empty key beside a secret": {Sign(body, seal.Secret{}), "body", []seal.Secret{{}, secret}, ErrSignatureMismatch},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if matched, err := Verify([]byte(tt.body), tt.header, tt.secrets...); !errors.Is(err, tt.want) || matched != -1 {
				t.Errorf("Verify = %d, %v; want -1, %v", matched, err, tt.want)
			}
		})
	}
}

func flip(c byte) string {
	if c == '0' {
		return "1"
	}
	return "0"
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte(vectorBody), vectorSignature, vectorSecret)
	f.Add([]byte(""), "sha256=", "")
	f.Fuzz(func(t *testing.T, body []byte, header, secret string) {
		s := seal.NewSecret(secret)
		_, err := Verify(body, header, s)
		if genuine := strings.EqualFold(strings.TrimSpace(header), Sign(body, s)) && secret != ""; err == nil && !genuine {
			t.Errorf("accepted %q for a body of %d bytes", header, len(body))
		}
		if _, err := Verify(body, Sign(body, s), s); secret != "" && err != nil {
			t.Errorf("refused its own signature: %v", err)
		}
	})
}
