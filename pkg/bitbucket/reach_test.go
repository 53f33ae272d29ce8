package bitbucket

import (
	"net/url"
	"testing"
)

func TestUnreachable(t *testing.T) {
	parse := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	const machine, network, plain = "is on this machine only", "is an address of a private network", "is not https"
	for public, want := range map[string]string{
		"https://devpilot.example.com":     "",
		"https://devpilot.example.com:444": "",
		"https://203.0.113.7":              "",
		"https://[2001:db8::1]":            "",
		"https://[2a00:1450:4001::1]":      "",
		"https://172.32.0.1":               "",
		"http://devpilot.example.com":      plain,
		"http://127.0.0.1:8080":            machine,
		"https://127.0.0.1":                machine,
		"https://localhost:8080":           machine,
		"https://LocalHost.:8080":          machine,
		"https://devpilot.localhost":       machine,
		"https://[::1]:8080":               machine,
		"https://[::ffff:127.0.0.1]":       machine,
		"https://0.0.0.0:8080":             network,
		"https://255.255.255.255":          network,
		"https://10.1.2.3":                 network,
		"https://172.16.0.1":               network,
		"https://192.168.1.1":              network,
		"https://169.254.1.1":              network,
		"https://100.64.0.1":               network,
		"https://[fd00::1]":                network,
		"https://[fe80::1%25eth0]":         network,
		"https://devpilot":                 network, // no public name has no dot
		"https://devpilot.local":           network,
		"https://devpilot.corp.internal.":  network,
	} {
		for _, at := range []string{DefaultSiteURL, DefaultAPIURL} {
			if got := Unreachable(parse(public), parse(at)); got != want {
				t.Errorf("%s for %s: %q, want %q", public, at, got, want)
			}
		}
		if got := Unreachable(parse(public), nil); got != want {
			t.Errorf("%s: %q, want %q", public, got, want)
		}
		// Where Bitbucket itself is on loopback everything is in its reach.
		for _, at := range []string{"http://localhost:8081", "http://127.0.0.1:8081/2.0"} {
			if got := Unreachable(parse(public), parse(at)); got != "" {
				t.Errorf("%s for %s: %q", public, at, got)
			}
		}
	}
}
