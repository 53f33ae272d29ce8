package program

import (
	"net/url"
	"testing"
)

func TestCredential_answersOnlyForTheSite(t *testing.T) {
	site := &url.URL{Scheme: "http", Host: "127.0.0.1:7990"}
	c := &credential{site: site}
	host := site.Host
	for _, q := range []map[string]string{
		{"protocol": "https", "host": host}, {"protocol": "http", "host": "evil.test"}, {"protocol": "http", "host": host + ".evil.test"},
		{"protocol": "http", "host": "localhost"}, {"protocol": "http", "host": host, "username": "someone"}, {},
	} {
		if c.matches(q) {
			t.Errorf("answers %v", q)
		}
	}
	if !c.matches(map[string]string{"protocol": "http", "host": host, "path": "acme/web.git"}) {
		t.Error("does not answer for the site")
	}
}
