package heads

import (
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
)

const token = "planted+Token/with=odd characters-0123456789abcdef"

type fixture struct {
	git    *gittest.Server
	tokens *gittest.Tokens
	lister *Lister
	logs   *testkit.Logs
}

func setUp(t *testing.T, stall time.Duration) *fixture {
	t.Helper()
	f := &fixture{git: gittest.New(t, token), tokens: &gittest.Tokens{List: []string{token}}, logs: testkit.Logger(t)}
	git, err := program.New(program.Config{Site: f.git.URL, StallTime: stall})
	if err != nil {
		t.Fatal(err)
	}
	f.lister = New(git, f.tokens)
	return f
}
