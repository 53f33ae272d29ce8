package emulator_test

import (
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

func TestRefresh_revokesOlderAccessTokensWhenSwitchedOn(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]time.Duration{"at once": 0, "after ten minutes": 10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t)
			kept, other := f.tokens("jane-dev"), f.tokens("jane-dev")
			second := f.refresh(kept.RefreshToken).want(t, 200)
			f.call("GET", "/user", kept.AccessToken, nil).want(t, 200) // off: it lives on
			f.must(f.control.Switch(t.Context(), func(s *emulator.Switches) { s.Tokens.RevokeAccess, s.Tokens.RevokeAccessAfter = true, after }))
			third := f.refresh(second.json["refresh_token"].(string)).want(t, 200)
			if after > 0 {
				f.must(f.control.AdvanceClock(t.Context(), after-time.Second))
				f.call("GET", "/user", second.json["access_token"].(string), nil).want(t, 200)
				f.refresh(third.json["refresh_token"].(string)).want(t, 200) // does not prolong what is revoked already
				f.must(f.control.AdvanceClock(t.Context(), time.Second))
			}
			for _, old := range []string{kept.AccessToken, second.json["access_token"].(string)} {
				f.call("GET", "/user", old, nil).want(t, 401, "Token is invalid, expired, or not supported for this endpoint.")
			}
			f.call("GET", "/user", third.json["access_token"].(string), nil).want(t, 200)
			f.call("GET", "/user", other.AccessToken, nil).want(t, 200) // another grant
		})
	}
}

func TestRefresh_reuseAfterTheGraceKillsTheFamilyWhenSwitchedOn(t *testing.T) {
	t.Parallel()
	f := start(t, func(o *emulator.Options) { o.Tokens = emulator.TokenOptions{Rotate: true, Grace: 10 * time.Minute} })
	families := func(on bool) {
		f.must(f.control.Switch(t.Context(), func(s *emulator.Switches) { s.Tokens.Families = on }))
	}
	other := f.tokens("jane-dev")
	first := f.tokens("jane-dev")
	second := f.refresh(first.RefreshToken).want(t, 200).json["refresh_token"].(string)
	families(true)
	third := f.refresh(first.RefreshToken).want(t, 200) // within the grace
	f.refresh("of nobody").want(t, 400)
	f.call("GET", "/user", third.json["access_token"].(string), nil).want(t, 200)
	f.must(f.control.AdvanceClock(t.Context(), 10*time.Minute))
	families(false)
	f.refresh(first.RefreshToken).want(t, 400)
	f.call("GET", "/user", third.json["access_token"].(string), nil).want(t, 200) // off: only that token is dead
	families(true)
	f.refresh(first.RefreshToken).want(t, 400)
	f.call("GET", "/user", third.json["access_token"].(string), nil).want(t, 401)
	f.refresh(second).want(t, 400)
	f.refresh(third.json["refresh_token"].(string)).want(t, 400)
	f.refresh(other.RefreshToken).want(t, 200)
}
