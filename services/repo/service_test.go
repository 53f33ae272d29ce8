package repo_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/repo"
)

func TestNew_namesWhatIsMissing(t *testing.T) {
	good := repo.Config{SiteURL: "https://bitbucket.org", APIURL: "https://api.bitbucket.org/2.0"}
	deps := func(change func(*repo.Deps)) repo.Deps {
		d := repo.Deps{
			Logger: testkit.Logger(t).Logger, Redis: testkit.Redis(t).Client(), Keyset: testkit.Keyset(t),
			Auth: authv1.NewAuthServiceClient((*grpc.ClientConn)(nil)),
		}
		change(&d)
		return d
	}
	if _, err := repo.New(good, deps(func(*repo.Deps) {})); err != nil {
		t.Errorf("complete: %v", err)
	}
	for name, change := range map[string]func(*repo.Deps){
		"Logger": func(d *repo.Deps) { d.Logger = nil },
		"Redis":  func(d *repo.Deps) { d.Redis = nil },
		"Keyset": func(d *repo.Deps) { d.Keyset = nil },
		"Auth":   func(d *repo.Deps) { d.Auth = nil },
	} {
		if _, err := repo.New(good, deps(change)); err == nil || !strings.Contains(err.Error(), "Deps."+name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	for _, cfg := range []repo.Config{{}, {SiteURL: good.SiteURL}, {SiteURL: "bitbucket", APIURL: good.APIURL}, {SiteURL: good.SiteURL, APIURL: "http://api.example.test"}} {
		if _, err := repo.New(cfg, deps(func(*repo.Deps) {})); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

func TestPolicy_isComplete(t *testing.T) {
	// testkit.ServeGRPC fails where a method has no rule or a rule no method.
	newStack(t, "sample").replica()
	for method, rule := range repo.Policy {
		if len(rule.Callers) == 0 {
			t.Errorf("nobody may call %s", method)
		}
	}
}
