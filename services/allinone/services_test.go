package allinone

import (
	"reflect"
	"testing"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/services/auth"
	"devpilot.io/bitbucket/services/deployer"
	"devpilot.io/bitbucket/services/gateway"
	"devpilot.io/bitbucket/services/repo"
	"devpilot.io/bitbucket/services/webhook"
)

// TestFlags_everyGroupOfAServiceIsASettingOfThisProgram: a group that is missing here would be empty
// in the service, without a word.
func TestFlags_everyGroupOfAServiceIsASettingOfThisProgram(t *testing.T) {
	settings := reflect.TypeFor[Settings]()
	for _, flags := range []reflect.Type{
		reflect.TypeFor[auth.Flags](), reflect.TypeFor[repo.Flags](), reflect.TypeFor[webhook.Flags](), reflect.TypeFor[deployer.Flags](), reflect.TypeFor[gateway.Flags](),
	} {
		for f := range flags.Fields() {
			if !f.Anonymous || f.Type == reflect.TypeFor[servicemain.SignInFlags]() { // the token is in the data directory
				continue
			}
			if have, ok := settings.FieldByName(f.Name); !ok || have.Type != f.Type {
				t.Errorf("%s has %s, which the settings lack", flags, f.Name)
			}
		}
	}
}

func TestFlagsOf_areTheSettings(t *testing.T) {
	s := Settings{}
	s.PublicURL, s.BitbucketClientSecret, s.TrustedProxies = "https://devpilot.example.com", seal.NewSecret("secret"), []string{"10.0.0.0/8"}
	got := FlagsOf[gateway.Flags](&s)
	if got.PublicURL != s.PublicURL || got.BitbucketClientSecret.Reveal() != "secret" || len(got.TrustedProxies) != 1 {
		t.Errorf("%+v", got)
	}
}
