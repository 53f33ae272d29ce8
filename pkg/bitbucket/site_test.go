package bitbucket

import (
	"net/url"
	"testing"
)

func TestNewSite_normalises(t *testing.T) {
	tests := []struct{ site, api, wantSite, wantAPI string }{
		{DefaultSiteURL, DefaultAPIURL, "https://bitbucket.org", "https://api.bitbucket.org/2.0"},
		{"HTTPS://Bitbucket.ORG:443/", "https://API.bitbucket.org/2.0/", "https://bitbucket.org", "https://api.bitbucket.org/2.0"},
		{" http://localhost:8081/ ", "http://localhost:8081/2.0", "http://localhost:8081", "http://localhost:8081/2.0"},
		{"http://[::1]:80", "https://[::1]:8443/2.0", "http://[::1]", "https://[::1]:8443/2.0"},
	}
	for _, tt := range tests {
		s, err := NewSite(tt.site, tt.api)
		if err != nil || s.SiteURL != tt.wantSite || s.APIURL != tt.wantAPI {
			t.Errorf("NewSite(%q, %q) = %+v, %v", tt.site, tt.api, s, err)
		}
	}
}

func TestNewSite_refuses(t *testing.T) {
	const ok = "https://api.bitbucket.org/2.0"
	for _, site := range []string{
		"", "bitbucket.org", "ftp://bitbucket.org", "https://", "https://user:pw@bitbucket.org", "https://bitbucket.org?x=1",
		"https://bitbucket.org#x", "https://bitbucket.org/a/../b", "https://bad host/", "//bitbucket.org",
	} {
		if s, err := NewSite(site, ok); err == nil {
			t.Errorf("NewSite(%q) = %+v, want an error", site, s)
		}
	}
	if _, err := NewSite("https://bitbucket.org", "http://api.bitbucket.org/2.0"); err == nil {
		t.Error("a plain http API was accepted beside an https site")
	}
}

func TestSite_OnAPI(t *testing.T) {
	s, err := NewSite(DefaultSiteURL, DefaultAPIURL)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{
		"https://api.bitbucket.org/2.0/user":                     true,
		"https://API.bitbucket.org:443/2.0/user?page=2":          true,
		"https://api.bitbucket.org/2.0":                          true,
		"http://api.bitbucket.org/2.0/user":                      false,
		"https://bitbucket.org/2.0/user":                         false,
		"https://api.bitbucket.org:8443/2.0/user":                false,
		"https://api.bitbucket.org/1.0/user":                     false,
		"https://api.bitbucket.org/2.0evil/user":                 false,
		"https://api.bitbucket.org/2.0/../internal":              false,
		"https://api.bitbucket.org/2.0/..%2finternal":            false,
		"https://user@api.bitbucket.org/2.0/user":                false,
		"https://api.bitbucket.org@evil.example/2.0/user":        false,
		"https://api.bitbucket.org.evil.example/2.0/user":        false,
		"//api.bitbucket.org/2.0/user":                           false,
		"/2.0/user":                                              false,
		"https:api.bitbucket.org/2.0/user":                       false,
		"https://api.bitbucket.org/2.0/repositories/%7B%7D/x%2F": true,
	}
	for raw, want := range tests {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.OnAPI(u); got != want {
			t.Errorf("OnAPI(%q) = %t, want %t", raw, got, want)
		}
	}
	if s.OnAPI(nil) || (Site{}).OnAPI(&url.URL{}) {
		t.Error("nothing is on the API")
	}
}

func TestSite_CloneURL(t *testing.T) {
	s, err := NewSite(DefaultSiteURL, DefaultAPIURL)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.CloneURL("acme/web.site"); err != nil || got != "https://bitbucket.org/acme/web.site.git" {
		t.Errorf("CloneURL = %q, %v", got, err)
	}
	for _, name := range []string{
		"", "acme", "acme/", "/web", "acme/web/x", "acme/..", "../web", "acme/.", "acme/-x", "--upload-pack=x/y", "acme/we b",
		"acme/web?x", "acme/web#x", "user@host/web", "acme/web%2f", "acme/wéb", "acme\n/web",
	} {
		if got, err := s.CloneURL(name); err == nil {
			t.Errorf("CloneURL(%q) = %q, want an error", name, got)
		}
		if got := s.RepositoryURL(name); got != "https://bitbucket.org" {
			t.Errorf("RepositoryURL(%q) = %q, want the front page", name, got)
		}
	}
	if got := s.WebhookSettingsURL("acme/web"); got != "https://bitbucket.org/acme/web/admin/webhooks" {
		t.Errorf("WebhookSettingsURL = %q", got)
	}
	if got := s.CommitURL("acme/web", "c14c"); got != "https://bitbucket.org/acme/web/commits/c14c" {
		t.Errorf("CommitURL = %q", got)
	}
}

func TestSite_ParseRepository(t *testing.T) {
	cloud, err := NewSite(DefaultSiteURL, DefaultAPIURL)
	if err != nil {
		t.Fatal(err)
	}
	local, err := NewSite("http://localhost:8081", "http://localhost:8081/2.0")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		site Site
		text string
		want string // "" for not a repository
	}{
		{cloud, "acme/web", "acme/web"},
		{cloud, " acme/web \n", "acme/web"},
		{cloud, "acme/web.git", "acme/web"},
		{cloud, "https://bitbucket.org/acme/web", "acme/web"},
		{cloud, "https://bitbucket.org/acme/web/", "acme/web"},
		{cloud, "https://bitbucket.org/acme/web.git", "acme/web"},
		{cloud, "https://jane-dev@bitbucket.org/acme/web.git", "acme/web"},
		{cloud, "git clone https://jane-dev@bitbucket.org/acme/web.git", "acme/web"},
		{cloud, "git clone git@bitbucket.org:acme/web.git web-copy", "acme/web"},
		{cloud, "https://bitbucket.org/acme/web/src/main/README.md?at=x#L1", "acme/web"},
		{cloud, "https://bitbucket.org/acme/web/branch/feature/login", "acme/web"},
		{cloud, "HTTPS://BITBUCKET.ORG/acme/web", "acme/web"},
		{cloud, "http://bitbucket.org/acme/web", "acme/web"},
		{cloud, "bitbucket.org/acme/web", "acme/web"},
		{cloud, "git@bitbucket.org:acme/web.git", "acme/web"},
		{cloud, "ssh://git@bitbucket.org/acme/web.git", "acme/web"},
		{local, "http://localhost:8081/acme/web", "acme/web"},
		{local, "http://localhost:8082/acme/web", ""},
		{local, "https://bitbucket.org/acme/web", ""},
		{cloud, "https://github.com/acme/web", ""},
		{cloud, "git@github.com:acme/web.git", ""},
		{cloud, "https://bitbucket.org/acme", ""},
		{cloud, "https://bitbucket.org/", ""},
		{cloud, "https://bitbucket.org.evil.example/acme/web", ""},
		{cloud, "ftp://bitbucket.org/acme/web", ""},
		{cloud, "acme", ""},
		{cloud, "", ""},
		{cloud, "acme/", ""},
		{cloud, "acme/web/src", ""},
		{cloud, "../web", ""},
		{cloud, "-x/web", ""},
		{cloud, "two words/web", ""},
	}
	for _, tt := range tests {
		workspace, slug, ok := tt.site.ParseRepository(tt.text)
		got := ""
		if ok {
			got = workspace + "/" + slug
		}
		if got != tt.want {
			t.Errorf("ParseRepository(%q) = %q, want %q", tt.text, got, tt.want)
		}
	}
}

func FuzzSite_ParseRepository(f *testing.F) {
	s, err := NewSite(DefaultSiteURL, DefaultAPIURL)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("git clone https://jane-dev@bitbucket.org/acme/web.git")
	f.Add("git@bitbucket.org:acme/web.git")
	f.Add("acme/web")
	f.Fuzz(func(t *testing.T, text string) {
		workspace, slug, ok := s.ParseRepository(text)
		if !ok {
			return
		}
		if _, err := s.CloneURL(workspace + "/" + slug); err != nil {
			t.Errorf("ParseRepository(%q) = %q/%q, which is no name", text, workspace, slug)
		}
	})
}
