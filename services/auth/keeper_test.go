package auth_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/auth"
)

func TestSettings_otherSiteOrConsumer(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	s.connect(i, "acme-inc", "jane-dev")
	if err := i.stop(); err != nil {
		t.Fatal(err)
	}
	before := s.counters()
	elsewhere := s.start("elsewhere", func(c *auth.Config) {
		c.Site.SiteURL = "https://bitbucket.org"
		c.Site.APIURL = "https://api.bitbucket.org/2.0"
	})
	_, err := issue(t, elsewhere.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
	if e := wantReason(t, err, apierr.ReasonReconnectRequired); !strings.Contains(e.Message(), s.site.SiteURL) {
		t.Error(e.Message())
	}
	if got := s.get(elsewhere, "acme-inc"); got.GetState() != authv1.Integration_RECONNECT_REQUIRED || got.GetSiteUrl() != s.site.SiteURL {
		t.Errorf("%v", got)
	}
	other := s.start("other", func(c *auth.Config) { c.ClientID = "another-consumer" })
	if _, err := issue(t, other.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"}); err != nil {
		t.Errorf("the token is valid, whoever granted it: %v", err)
	}
	s.expire()
	_, err = issue(t, other.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
	wantReason(t, err, apierr.ReasonReconnectRequired)
	if got := s.get(other, "acme-inc"); got.GetState() != authv1.Integration_RECONNECT_REQUIRED || !strings.Contains(got.GetLastError().GetMessage(), "another OAuth consumer") {
		t.Errorf("%v", got)
	}
	if after := s.counters(); after.Refreshes != before.Refreshes || after.RefreshesDead != before.RefreshesDead || after.ClientRefused != before.ClientRefused {
		t.Error("a refresh token was sent with another consumer")
	}
}

func TestKeeper_renewsAheadOfExpiry(t *testing.T) {
	s := newStack(t, emulator.Options{})
	is := []*instance{s.start("P1"), s.start("P2"), s.start("P3")}
	s.connect(is[0], "acme-inc", "jane-dev")
	first, err := issue(t, is[0].repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
	if err != nil {
		t.Fatal(err)
	}
	s.forward(95 * time.Minute)
	eventually(t, func() bool { return s.counters().Refreshes == 1 })
	eventually(t, func() bool {
		return s.get(is[1], "acme-inc").GetTokenExpireTime().AsTime().After(first.GetExpireTime().AsTime())
	})
	if r, err := issue(t, is[2].repo, &authv1.IssueTokenRequest{Workspace: "acme-inc", MinLife: durationpb.New(time.Hour)}); err != nil || r.GetAccessToken() == first.GetAccessToken() {
		t.Errorf("%v", err)
	}
	if n := s.counters().Refreshes; n != 1 {
		t.Errorf("%d refreshes by three processes", n)
	}
	eventually(t, func() bool { return metric(t, is[0], "devpilot_auth_integrations", "CONNECTED") == 1 })
	if metric(t, is[0], "devpilot_auth_tokens_issued_total", "ok") != 1 || metric(t, is[2], "devpilot_auth_tokens_issued_total", "ok") != 1 {
		t.Error("issued tokens are not counted")
	}
	// The count follows the record, which others may see first.
	eventually(t, func() bool {
		return metric(t, is[0], "devpilot_auth_refreshes_total", "stored")+metric(t, is[1], "devpilot_auth_refreshes_total", "stored")+metric(t, is[2], "devpilot_auth_refreshes_total", "stored") == 1
	})
}

// metric reads one value: the sum of those whose labels hold the given value.
func metric(t *testing.T, i *instance, name, label string) float64 {
	t.Helper()
	families, err := i.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			match := label == ""
			for _, l := range m.GetLabel() {
				match = match || l.GetValue() == label
			}
			if match {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// The README's table of metrics is the truth.
func TestMetrics_areInTheReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	s.connect(i, "acme-inc", "jane-dev")
	s.expire()
	if _, err := issue(t, i.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"}); err != nil {
		t.Fatal(err)
	}
	families, err := i.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	exported := map[string]bool{}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "devpilot_auth_") {
			exported[f.GetName()] = true
		}
	}
	described := map[string]bool{}
	for _, name := range regexp.MustCompile("(?m)^\\| `(devpilot_auth_[a-z_]+)").FindAllStringSubmatch(string(readme), -1) {
		described[name[1]] = true
	}
	if len(exported) == 0 || !maps.Equal(exported, described) {
		t.Errorf("exported %v, described %v", slices.Sorted(maps.Keys(exported)), slices.Sorted(maps.Keys(described)))
	}
}
