package scope

import (
	"slices"
	"testing"
)

func TestMissingAndExtra(t *testing.T) {
	cases := []struct {
		name                    string
		granted, missing, extra []string
	}{
		{"exactly", []string{"account", "repository", "webhook"}, nil, nil},
		{"nothing", nil, []string{"repository", "account", "webhook"}, nil},
		{"more than needed", []string{"account", "email", "repository", "webhook"}, nil, []string{"email"}},
		{"write implies read", []string{"account", "repository:write", "webhook"}, nil, []string{"repository:write"}},
		{"pull requests imply repositories", []string{"account", "pullrequest", "webhook"}, nil, []string{"pullrequest"}},
		{"admin implies nothing", []string{"account", "repository:admin", "webhook"}, []string{"repository"}, []string{"repository:admin"}},
		{"no webhooks", []string{"account", "repository"}, []string{"webhook"}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := Missing(c.granted); !slices.Equal(got, c.missing) {
				t.Errorf("missing %v, want %v", got, c.missing)
			}
			if got := Extra(c.granted); !slices.Equal(got, c.extra) {
				t.Errorf("extra %v, want %v", got, c.extra)
			}
		})
	}
}

func TestCheckboxes_nameEveryRequiredScope(t *testing.T) {
	for _, s := range Required() {
		if checkboxes[s] == "" {
			t.Errorf("no checkbox for %s", s)
		}
	}
	if got, want := Checkboxes(Required()), `"Repositories: Read", "Account: Read" and "Webhooks: Read and write"`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestRequired_isACopy(t *testing.T) {
	Required()[0] = "changed"
	if Required()[0] != "repository" {
		t.Error("callers can change what is required")
	}
}
