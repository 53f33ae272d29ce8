package redisx_test

import (
	"slices"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/redisx"
)

func TestParse_oneURLForEachMode(t *testing.T) {
	for url, want := range map[string]redisx.Target{
		"redis://host":                                                 {Mode: redisx.ModeServer, Addresses: []string{"host:6379"}},
		"rediss://me:s3cr3t@host:7000/3":                               {Mode: redisx.ModeServer, Addresses: []string{"host:7000"}, Encrypted: true},
		"redis://[::1]:7000?pool_size=5":                               {Mode: redisx.ModeServer, Addresses: []string{"[::1]:7000"}},
		"redis://host?cluster=false":                                   {Mode: redisx.ModeServer, Addresses: []string{"host:6379"}},
		"unix:///run/redis.sock":                                       {Mode: redisx.ModeServer},
		"redis://s1?master_name=one":                                   {Mode: redisx.ModeSentinel, Addresses: []string{"s1:26379"}, Master: "one"},
		"redis://s1:1/2?master_name=one&addr=s2:2&addr=s3:3&addr=s1:1": {Mode: redisx.ModeSentinel, Addresses: []string{"s1:1", "s2:2", "s3:3"}, Master: "one"},
		"rediss://:s3cr3t@s1?master_name=one&sentinel_username=u&sentinel_password=s3cr3t": {Mode: redisx.ModeSentinel, Addresses: []string{"s1:26379"}, Master: "one", Encrypted: true},
		"redis://n1?cluster=true":           {Mode: redisx.ModeCluster, Addresses: []string{"n1:6379"}},
		"rediss://me:s3cr3t@n1/0?addr=n2:7": {Mode: redisx.ModeCluster, Addresses: []string{"n1:6379", "n2:7"}, Encrypted: true},
	} {
		got, err := redisx.Parse(url)
		if err != nil || got.Mode != want.Mode || !slices.Equal(got.Addresses, want.Addresses) || got.Master != want.Master || got.Encrypted != want.Encrypted {
			t.Errorf("%s is %+v, %v", url, got, err)
		}
	}
}

// What is wrong is said in a sentence that shows nothing of the URL.
func TestParse_refuses(t *testing.T) {
	for url, want := range map[string]string{
		"":                                 "looks like redis://host:6379/0",
		"redis://me:s3cr3t@host:port:more": "looks like",
		"http://me:s3cr3t@host":            "looks like",
		"redis://me:s3cr3t@host/one":       "looks like",
		"redis://host?s3cr3t=1":            "looks like",
		"redis://host?addr=s3cr3t;x":       "looks like",
		"redis://host?master_name=one&read_only=true": "looks like",
		"redis://n1?addr=n2:7&route_randomly=true":    "looks like",
		"redis://s1?master_name=one&cluster=true":     "leave one out",
		"redis://n1?cluster=s3cr3t":                   "true or false",
		"redis://n1?cluster=false&addr=n2:7":          "true or false",
		"redis://n1/1?cluster=true":                   "no others than 0",
		"redis://n1?cluster=true&db=1":                "no others than 0",
		"redis://n1?addr=s3cr3t":                      "addr in the Redis URL is not the host and port",
		"redis://s1?master_name=one&addr=:1":          "addr in the Redis URL is not the host and port",
		"redis://s1?master_name=one&password=s3cr3t":  "sentinel_username and sentinel_password",
		"redis://s1?sentinel_password=s3cr3t":         "no master_name",
		"unix:///run/redis.sock?master_name=one":      "begins with redis://",
	} {
		_, err := redisx.Parse(url)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", url, err)
		}
		if _, same := redisx.Connect(url); same == nil {
			t.Errorf("%s: connected", url)
		}
	}
}
