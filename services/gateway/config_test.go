package gateway

import (
	"net/url"
	"strings"
	"testing"
)

func TestConfig_check(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg  Config
		want string
	}{
		"good":              {Config{PublicURL: "https://devpilot.example.com/", AllowedOrigins: []string{"https://a.example.com"}, TrustedProxies: []string{"10.0.0.0/8", "::1"}}, ""},
		"no public URL":     {Config{}, "PublicURL is missing"},
		"public URL path":   {Config{PublicURL: "https://devpilot.example.com/sub"}, "must be like"},
		"public URL scheme": {Config{PublicURL: "ftp://devpilot.example.com"}, "must be like"},
		"origin with path":  {Config{PublicURL: "https://d.example.com", AllowedOrigins: []string{"https://a.example.com/x"}}, "allowed origin"},
		"proxy name":        {Config{PublicURL: "https://d.example.com", TrustedProxies: []string{"proxy.example.com"}}, "--trusted-proxies (DEVPILOT_TRUSTED_PROXIES)"},
	} {
		_, err := tc.cfg.check()
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNew_namesWhatIsMissing(t *testing.T) {
	_, err := New(Config{PublicURL: "https://d.example.com"}, Deps{})
	if err == nil || !strings.Contains(err.Error(), "gateway: Deps.") {
		t.Errorf("%v", err)
	}
}

func TestWebhooksReachable(t *testing.T) {
	const cloud = "https://bitbucket.org"
	for _, tc := range []struct {
		public, site string
		want         bool
	}{
		{"https://devpilot.acme.com", cloud, true},
		{"http://devpilot.acme.com", cloud, false},
		{"https://localhost:8443", cloud, false},
		{"https://192.168.1.4", cloud, false},
		{"https://100.64.0.1", cloud, false},
		{"https://[fd00::1]", cloud, false},
		{"https://[2a00:1450:4001::1]", cloud, true},
		{"https://devpilot", cloud, false},
		{"https://devpilot.internal", cloud, false},
		{"http://127.0.0.1:8080", "http://localhost:8081", true},
	} {
		u, err := url.Parse(tc.public)
		if err != nil {
			t.Fatal(err)
		}
		if got := webhooksReachable(u, tc.site); got != tc.want {
			t.Errorf("%s for %s: %v", tc.public, tc.site, got)
		}
	}
}
