package registry

import (
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
)

func TestNewAddress_whoCanReachUs(t *testing.T) {
	cloud := bitbucket.Site{SiteURL: bitbucket.DefaultSiteURL, APIURL: bitbucket.DefaultAPIURL}
	local := bitbucket.Site{SiteURL: "http://localhost:8081", APIURL: "http://localhost:8081/2.0"}
	for url, reachable := range map[string]bool{
		"https://devpilot.example.com":     true,
		"https://devpilot.example.com:444": true,
		"https://203.0.113.7":              true,
		"https://[2001:db8::1]":            true,
		"http://devpilot.example.com":      false, // plain http
		"http://127.0.0.1:8080":            false,
		"https://127.0.0.1":                false,
		"https://localhost:8080":           false,
		"https://devpilot.localhost":       false,
		"https://[::1]:8080":               false,
		"https://[::ffff:127.0.0.1]":       false,
		"https://0.0.0.0:8080":             false,
		"https://10.1.2.3":                 false,
		"https://172.16.0.1":               false,
		"https://172.32.0.1":               true,
		"https://192.168.1.1":              false,
		"https://169.254.1.1":              false,
		"https://100.64.0.1":               false,
		"https://[fd00::1]":                false,
		"https://[fe80::1]":                false,
		"https://devpilot":                 false, // no public name has no dot
		"https://devpilot.local":           false,
		"https://devpilot.corp.internal":   false,
	} {
		a, err := NewAddress(url, cloud)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		problem := a.Unreachable()
		if (problem == nil) != reachable {
			t.Errorf("%s: %v, want reachable %v", url, problem, reachable)
		}
		if problem != nil && (problem.Reason() != apierr.ReasonNoPublicURL || !strings.Contains(problem.Message(), url)) {
			t.Errorf("%s: %v", url, problem)
		}
		// Where Bitbucket itself is on loopback everything is in its reach.
		if a, err := NewAddress(url, local); err != nil || a.Unreachable() != nil {
			t.Errorf("%s with a Bitbucket on loopback: %v, %v", url, a.Unreachable(), err)
		}
		if got := a.URL("abc"); got != url+"/webhooks/bitbucket/abc" {
			t.Errorf("webhook URL %s", got)
		}
	}
	for _, url := range []string{"", "devpilot.example.com", "ftp://x", "https://"} {
		if _, err := NewAddress(url, cloud); err == nil {
			t.Errorf("%q is taken for a public URL", url)
		}
	}
}
